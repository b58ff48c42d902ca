"""Redraw a study from what its runs left on disk: `runs.csv`, figures, table and verdict."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from normlab.analysis import drawn
from normlab.analysis.plan import plan
from normlab.analysis.report import render
from normlab.analysis.stories import story
from normlab.analysis.table import ArmSummary, summary, write_runs
from normlab.analysis.verdict import Verdict, verdict
from normlab.archive.folder import Study, read_study
from normlab.errors import NormlabError, in_words

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FIGURES_FOLDER = "figures"

_WIDEST = 100  # columns that are still easy to read


@dataclass(frozen=True)
class Report:
    """What a study ended in.

    Attributes:
        study: the runs, as they were read.
        summaries: a row an arm, best first.
        verdict: what they show, and what weakens it.
        csv: where `runs.csv` is.
        figures: the files, PNG and SVG.
        left_out: sentences about whatever could not be read or was not drawn.
    """

    study: Study
    summaries: list[ArmSummary]
    verdict: Verdict
    csv: Path
    figures: list[Path]
    left_out: list[str]

    @property
    def table(self) -> "Table":
        """The summaries, to print with rich."""
        return render(self.summaries)


def report(study_folder: Path) -> Report:
    """Read a study, and write its `runs.csv` and its figures into its folder.

    Figures that are there, drawn from the same data by the same code, are left as they are.

    Raises:
        NormlabError: the folder is no study, or cannot be written.
    """
    study = read_study(study_folder, drawn.CURVES, cached=True)
    folder = study_folder / FIGURES_FOLDER
    try:
        csv = write_runs(study)
        files = drawn.found(study, folder) or _draw(study, folder)
    except OSError as error:
        raise NormlabError(
            f"The results of {study_folder} cannot be written: {error.strerror or error} "
            f"({error.filename or study_folder}); free space or permit writing there, and run "
            f"python scripts/plot.py {study_folder}."
        ) from error
    left_out = [*study.left_out, *plan(study).left_out]
    return Report(study, summary(study), verdict(study), csv, files, left_out)


def _draw(study: Study, folder: Path) -> list[Path]:
    from normlab.analysis import figures  # matplotlib takes half a second

    files = figures.draw(study, folder)
    drawn.remember(study, files)
    return files


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of `scripts/plot.py`."""
    parser = argparse.ArgumentParser(
        description="Redraw a study from its event files: runs.csv and figures/*.png, *.svg. "
        "Figures that are up to date stay as they are; delete one to have all drawn.",
        epilog="example: python scripts/plot.py outputs/mystudy",
    )
    parser.add_argument("study", type=Path, help="a study's folder, outputs/<study>")
    arguments = parser.parse_args(argv)
    with in_words():
        show(report(arguments.study))


def show(done: Report) -> None:
    """Print a report: the table, what it shows, what was left out, and where the files are."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 140  # nobody's window: keep rows whole
    console.print(done.table)
    for sentence in done.verdict.sentences:
        _say(console, "- ", sentence)
    for kind, sentences in (("warning: ", done.verdict.warnings), ("note: ", done.left_out)):
        for sentence in sentences:
            _say(console, kind, sentence)
    told = story(done.study)
    own = [path for path in done.figures if told and path.name == f"{told.name}.png"]
    for path in own:
        console.print(f"figure   {path}", markup=False)
    console.print(f"figures  {done.figures[0].parent}", markup=False)
    console.print(f"table    {done.csv}", markup=False)


def _say(console: "Console", before: str, sentence: str) -> None:
    """A sentence on a line of its own, or in a window as many as it needs, indented."""
    width = min(console.width, _WIDEST) if console.is_terminal else len(before + sentence)
    lines = wrap(sentence, width - len(before), break_long_words=False, break_on_hyphens=False)
    console.print(before + f"\n{' ' * len(before)}".join(lines), markup=False)
