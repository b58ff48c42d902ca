"""Figure, paragraph and page of a measured experiment, from its record alone."""

import shlex
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normlab.analysis.arms import flatten_keys, format_value
from normlab.analysis.style import skip_failed_figure
from normlab.apps.experiments.record import (
    MeasurementRecord,
    find_record,
    read_record,
    record_path,
)
from normlab.apps.results import print_files
from normlab.archive.files import FIGURES_FOLDER, check_study_files
from normlab.archive.record import short_commit
from normlab.errors import NormlabError

if TYPE_CHECKING:
    from rich.console import Console

REPORT_FILE = "report.html"
_MOST_VALUES = 12  # of a setting, written in full


@dataclass(frozen=True)
class Report:
    """What was made of a record: sentences, the files by what they are, what is missing."""

    sentences: list[str]
    files: dict[str, Path]
    left_out: list[str]

    def print_to(self, console: "Console") -> None:
        """Print where the files are, then the paragraph."""
        print_files(console, self.files, self.left_out)
        console.print(f"\n{' '.join(self.sentences)}", markup=False)


def write_report(record: MeasurementRecord, folder: Path) -> Report:
    """Write the figure, PNG and SVG, and `report.html` into the folder.

    Raises:
        NormlabError: the folder of figures is or holds a link.
        OSError: the folder cannot be written.
    """
    check_study_files(folder)
    sentences, page = record.numbers.write_sentences(), folder / REPORT_FILE
    figures: list[Path] = []
    left_out: list[str] = []
    with skip_failed_figure("The figure", left_out):
        figures = draw_figure(record, folder / FIGURES_FOLDER)
    write_page(record, [*sentences, *left_out], figures, page)
    files = {"figure": figures[0]} if figures else {}
    files |= {"numbers": record_path(folder, record.name), "report": page}
    return Report(sentences, files, left_out)


def redraw_report(folder: Path, metric: str | None) -> bool:
    """Draw anew what a measured experiment left in a folder; False where it left nothing.

    `metric` is the scalar that the command asked for, which a measurement does not have.

    Raises:
        NormlabError: the numbers cannot be read, the results not be written, or `metric` is set.
    """
    from normlab.terminal import open_terminal

    path = find_record(folder)
    if path is None:
        return False
    if metric is not None:
        raise NormlabError(
            f"{folder} holds a measurement and no curves, so none of {metric}; leave out "
            f"--metric, or read {path}."
        )
    try:
        write_report(read_record(path), folder).print_to(open_terminal())
    except OSError as error:
        raise NormlabError(
            f"The results of {folder} cannot be written: {error.strerror or error} "
            f"({error.filename or folder}); free space or permit writing there, and run "
            f"python scripts/plot.py {folder}."
        ) from error
    return True


def draw_figure(record: MeasurementRecord, folder: Path) -> list[Path]:
    """Write `<name>.png` and `<name>.svg` into the folder; returns their paths. Raises OSError."""
    # Matplotlib takes half a second, and what is refused before must not wait for it.
    from normlab.analysis import sheet
    from normlab.analysis.style import figure_style

    experiment = import_module(f"{__package__}.{record.name}_figure")
    with figure_style():
        return sheet.save_figure(experiment.draw_figure(record), folder, record.name)


def write_page(
    record: MeasurementRecord, sentences: list[str], figures: list[Path], path: Path
) -> None:
    """Write `report.html`, all of it or nothing; `figures` are the files that were just written.

    Raises:
        OSError: a figure cannot be read, or the page not be written.
    """
    from normlab.analysis import report

    origin, folder = record.origin, path.parent
    # From the command, not from where the folder is now: the page stays the same when it moves.
    words = [word.partition("=") for word in shlex.split(origin.command)]
    output_dirs = [value for key, _, value in words if key == "output_dir"]
    study = f"{(output_dirs or ['outputs'])[-1].rstrip('/')}/{folder.name}"
    made_with = [
        origin.machine.get("cpu"),
        *(f"{name} {origin.versions[name]}" for name in ("torch", "normlab")
          if name in origin.versions),
        origin.git and f"commit {short_commit(origin.git.commit)}",
    ]  # fmt: skip
    circumstances = {
        "started": origin.started,
        "seconds": origin.seconds,
        **origin.machine,
        **{f"version {name}": version for name, version in origin.versions.items()},
        **(
            {"normlab commit": origin.git.commit, "normlab dirty": origin.git.dirty}
            if origin.git
            else {}
        ),
    }
    content = {
        "name": folder.name,
        "period": origin.started[:10],
        "made_with": [str(fact) for fact in made_with if fact],
        "sentences": sentences,
        "figures": report.inline_figures(figures),
        "readings": {record.name: record.numbers.build_tables()},
        "settings": [(key, _format_setting(v)) for key, v in flatten_keys(record.settings).items()],
        "origin": [(key, format_value(value)) for key, value in circumstances.items()],
        "command": report.typed_command(origin.command),
        "redraw": f"python scripts/plot.py {shlex.quote(study)}",
        "numbers": record_path(folder, record.name).name,
    }
    report.write_page("measured.html", content, path)


def _format_setting(value: Any) -> str:
    """A value; of many, as seeds are, the first and the last."""
    if isinstance(value, list) and len(value) > _MOST_VALUES:
        return f"{format_value(value[0])} … {format_value(value[-1])} ({len(value)} values)"
    return format_value(value)
