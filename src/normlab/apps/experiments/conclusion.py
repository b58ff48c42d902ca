"""Figures, words and pages of experiments that train nothing, from their numbers alone."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normlab.analysis.style import without_figure
from normlab.apps.experiments import comparison_words, gradient_words
from normlab.apps.experiments.record import Measured, measured_in, path_of, read_measured
from normlab.archive.files import FIGURES_FOLDER, check_study_links
from normlab.errors import NormlabError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

REPORT_FILE = "report.html"


@dataclass(frozen=True)
class Conclusion:
    """What was made of a measurement: sentences, the files by what they are, what is missing."""

    sentences: tuple[str, ...]
    files: dict[str, Path]
    left_out: tuple[str, ...] = ()

    def show(self, console: "Console") -> None:
        """Print where the files are, then the paragraph."""
        for what, path in self.files.items():
            console.print(f"{what:8} {path}", markup=False)
        for sentence in self.left_out:
            console.print(f"note: {sentence}", markup=False)
        console.print(f"\n{' '.join(self.sentences)}", markup=False)


def conclude(found: Measured, folder: Path) -> Conclusion:
    """Write the figure, PNG and SVG, and `report.html` into the folder.

    Raises:
        NormlabError: the folder of figures is or holds a link.
        OSError: the folder cannot be written.
    """
    from normlab.apps.experiments import document

    check_study_links(folder)
    words, page = sentences(found), folder / REPORT_FILE
    files: list[Path] = []
    left_out: list[str] = []
    with without_figure("The figure", left_out):
        files = draw(found, folder / FIGURES_FOLDER)
    document.write(found, [*words, *left_out], files, folder, page)
    made = {"figure": files[0]} if files else {}
    made |= {"numbers": path_of(folder, found.name), "report": page}
    return Conclusion(tuple(words), made, tuple(left_out))


def draw(found: Measured, folder: Path) -> list[Path]:
    """Write `<name>.png` and `<name>.svg` into the folder; returns their paths. Raises OSError."""
    from normlab.analysis import page
    from normlab.analysis.style import own_style
    from normlab.apps.experiments import comparison_figure, gradient_figure

    sheets: dict[str, Callable[[Measured], Figure]] = {
        "gradient_vanishing": gradient_figure.sheet,
        "layernorm_vs_rmsnorm": comparison_figure.sheet,
    }
    with own_style():
        return page.save(sheets[found.name](found), folder, found.name)


def sentences(found: Measured) -> list[str]:
    """What the numbers show, each sentence following from them."""
    words: dict[str, Callable[[Any], list[str]]] = {
        "gradient_vanishing": gradient_words.sentences,
        "layernorm_vs_rmsnorm": comparison_words.sentences,
    }
    return words[found.name](found.numbers)


def redraw_measurement(folder: Path, metric: str | None) -> bool:
    """Draw anew what is in the folder, and print what it shows; see `experiments.redraw`."""
    from normlab.terminal import open_terminal

    path = measured_in(folder)
    if path is None:
        return False
    if metric is not None:
        raise NormlabError(
            f"{folder} holds a measurement and no curves, so none of {metric}; leave out "
            f"--metric, or read {path}."
        )
    try:
        conclude(read_measured(path), folder).show(open_terminal())
    except OSError as error:
        raise NormlabError(
            f"The results of {folder} cannot be written: {error.strerror or error} "
            f"({error.filename or folder}); free space or permit writing there, and run "
            f"python scripts/plot.py {folder}."
        ) from error
    return True
