"""Figure, paragraph and page of a measured experiment, from its record alone."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normlab.analysis.arms import SEPARATOR, flatten, format_value
from normlab.analysis.cells import Cell, Column, Table
from normlab.analysis.spread import spread
from normlab.analysis.style import without_figure
from normlab.apps.experiments.formatting import format_short
from normlab.apps.experiments.measured_sentences import DESCRIPTIONS
from normlab.apps.experiments.record import (
    DepthProfile,
    GradientVanishing,
    LayerNormVsRmsNorm,
    MeasurementRecord,
    find_record,
    read_record,
    record_path,
)
from normlab.archive.files import FIGURES_FOLDER, check_study_links
from normlab.archive.record import arm_name_parts
from normlab.archive.steadiness import NOT_COMPARABLE
from normlab.archive.versioned_json import none_to_nan
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
        for name, path in self.files.items():
            console.print(f"{name:8} {path}", markup=False)
        for sentence in self.left_out:
            console.print(f"note: {sentence}", markup=False)
        console.print(f"\n{' '.join(self.sentences)}", markup=False)


def write_report(record: MeasurementRecord, folder: Path) -> Report:
    """Write the figure, PNG and SVG, and `report.html` into the folder.

    Raises:
        NormlabError: the folder of figures is or holds a link.
        OSError: the folder cannot be written.
    """
    check_study_links(folder)
    sentences, page = DESCRIPTIONS[record.name](record.numbers), folder / REPORT_FILE
    figures: list[Path] = []
    left_out: list[str] = []
    with without_figure("The figure", left_out):
        figures = draw_figure(record, folder / FIGURES_FOLDER)
    write_page(record, [*sentences, *left_out], figures, page)
    files = {"figure": figures[0]} if figures else {}
    files |= {"numbers": record_path(folder, record.name), "report": page}
    return Report(sentences, files, left_out)


def redraw_report(folder: Path, metric: str | None) -> bool:
    """See `normlab.apps.experiments.redraw`."""
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
    from normlab.analysis import page
    from normlab.analysis.style import own_style
    from normlab.apps.experiments import gradient_vanishing_figure, layernorm_vs_rmsnorm_figure

    figures = {
        "gradient_vanishing": gradient_vanishing_figure.draw_figure,
        "layernorm_vs_rmsnorm": layernorm_vs_rmsnorm_figure.draw_figure,
    }
    with own_style():
        return page.save(figures[record.name](record), folder, record.name)


def write_page(
    record: MeasurementRecord, sentences: list[str], figures: list[Path], path: Path
) -> None:
    """Write `report.html`, all of it or nothing; `figures` are the files that were just written.

    Raises:
        OSError: a figure cannot be read, or the page not be written.
    """
    from normlab.analysis import inline, web_page

    origin, folder = record.origin, path.parent
    # From the command, not from where the folder is now: the page stays the same when it moves.
    words = [word.partition("=") for word in shlex.split(origin.command)]
    output_dirs = [value for key, _, value in words if key == "output_dir"]
    study = f"{(output_dirs or ['outputs'])[-1].rstrip('/')}/{folder.name}"
    commit = (origin.git or {}).get("commit")
    made_with = [
        origin.machine.get("cpu"),
        *(f"{name} {origin.versions[name]}" for name in ("torch", "normlab")
          if name in origin.versions),
        commit and f"commit {commit[:9]}",
    ]  # fmt: skip
    circumstances = {
        "started": origin.started,
        "seconds": origin.seconds,
        **origin.machine,
        **{f"version {name}": version for name, version in origin.versions.items()},
        **{f"normlab {key}": value for key, value in (origin.git or {}).items()},
    }
    content = {
        "name": folder.name,
        "period": origin.started[:10],
        "made_with": [str(fact) for fact in made_with if fact],
        "sentences": sentences,
        "figures": inline.figures(figures),
        "readings": {record.name: build_tables(record)},
        "settings": [(key, _format_setting(v)) for key, v in flatten(record.settings).items()],
        "origin": [(key, format_value(value)) for key, value in circumstances.items()],
        "command": web_page.typed(origin.command),
        "redraw": f"python scripts/plot.py {shlex.quote(study)}",
        "numbers": record_path(folder, record.name).name,
    }
    web_page.write("measured.html", content, path)


def _format_setting(value: Any) -> str:
    """A value; of many, as seeds are, the first and the last."""
    if isinstance(value, list) and len(value) > _MOST_VALUES:
        return f"{format_value(value[0])} … {format_value(value[-1])} ({len(value)} values)"
    return format_value(value)


def build_tables(record: MeasurementRecord) -> tuple[Table, ...]:
    """The numbers: of a profile by depth what is at its ends, of times their medians."""
    numbers = record.numbers
    if isinstance(numbers, LayerNormVsRmsNorm):
        return _time_table(numbers), _distribution_table(numbers), _invariance_table(numbers)
    assert isinstance(numbers, GradientVanishing)
    stacks = _profile_table("Linear and ReLU,", "layer", (*numbers.stacks, numbers.deep))
    return stacks, _profile_table("The residual stream", "block", numbers.transformers)


def _profile_table(network: str, unit: str, profiles: Sequence[DepthProfile]) -> Table:
    caption = (
        f"{network} at the last {unit}: RMS, standard deviation, and the share of variance across "
        f"inputs. Gradient: that of the loss at the input over that at the last {unit}."
    )
    rows = []
    for profile in profiles:
        name = profile.norm
        if profile.placement is not None:
            name = SEPARATOR.join(arm_name_parts(profile.norm, profile.placement))
        counts = (profile.width, profile.depth, profile.seeds)
        ends = (profile.rms[-1], profile.std[-1], profile.share[-1], profile.gradient[0])
        rows.append((name, profile.init, *counts, *ends))
    numeric = ("width", f"{unit}s", "seeds", "RMS", "std", "information", "gradient")
    return _build_table(caption, ("network", "init"), numeric, rows)


def _time_table(numbers: LayerNormVsRmsNorm) -> Table:
    rows = []
    for times in numbers.times:
        ratio = numbers.ratio_to_torch(times)
        medians = spread(times.forward).median, spread(times.both).median
        cells = [Cell(f"{median:.3f}", median) for median in medians]
        cells.append(Cell(str(ratio), ratio.median) if ratio else Cell(NOT_COMPARABLE, math.nan))
        rows.append((times.norm, times.way, *times.shape, *cells))
    caption = "fp32, median over rounds; ratios inside a round (quartiles)."
    numeric = ("tokens", "width", "forward, ms", "with backward, ms", "over F.layer_norm")
    return _build_table(caption, ("norm", "made"), numeric, rows)


def _distribution_table(numbers: LayerNormVsRmsNorm) -> Table:
    rows = []
    for kind in numbers.inputs:
        outputs = [("as it comes", kind.before, 1.0)]
        outputs += [(norm, after, kind.cosine[norm]) for norm, after in kind.after.items()]
        for name, moments, cosine in outputs:
            rows.append((kind.input, name, moments.mean, moments.std, moments.rms, cosine))
    caption = "What each does to a distribution; the cosine is the median over tokens."
    numeric = ("mean", "std", "RMS", "cosine with input")
    return _build_table(caption, ("input", "norm"), numeric, rows)


def _invariance_table(numbers: LayerNormVsRmsNorm) -> Table:
    rows = [
        (norm, result.name, result.equation, result.verdict, result.deviation)
        for norm, results in numbers.invariances.items()
        for result in results
    ]
    texts = ("norm", "invariance", "equation", "holds")
    caption = "Largest change of the output, over its RMS."
    return _build_table(caption, texts, ("fails by, RMS",), rows)


def _build_table(
    caption: str, texts: Sequence[str], numeric: Sequence[str], rows: Sequence[Sequence[Any]]
) -> Table:
    """A table with columns of texts, then of numbers; what is no Cell is formatted by its type."""

    def build_cell(value: Any) -> Cell:
        if isinstance(value, Cell):
            return value
        if isinstance(value, str):
            return Cell(value)
        if isinstance(value, int):
            return Cell(str(value), value)
        return Cell(format_short(none_to_nan(value)), none_to_nan(value))

    columns = (*map(Column, texts), *(Column(name, numeric=True) for name in numeric))
    return Table(caption, columns, tuple(tuple(map(build_cell, row)) for row in rows))
