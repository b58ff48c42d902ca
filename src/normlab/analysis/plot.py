"""Redraw a study from what its runs left: `runs.csv`, figures, `report.html`, verdict."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from types import MappingProxyType
from typing import TYPE_CHECKING

from normlab.analysis.learning_rates import learning_rates
from normlab.analysis.plan import plan
from normlab.analysis.report import render, render_rates
from normlab.analysis.result import StudyExperiment, StudyExperiments, find_study_experiment
from normlab.analysis.style import without_figure
from normlab.analysis.table import ArmSummary, summary, write_runs
from normlab.analysis.verdict import Verdict, verdict
from normlab.archive import tags
from normlab.archive.files import FIGURES_FOLDER, check_study_links
from normlab.archive.study import Study, read_study
from normlab.errors import CommandParser, NormlabError, report_user_errors
from normlab.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

REPORT_FILE = "report.html"
# What figures and tables are made of.
CURVES = (tags.TRAIN_LOSS, tags.VALIDATION_LOSS, tags.TOKENS_PER_SECOND, tags.PROBES)

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
        page: where `report.html` is.
        left_out: sentences about whatever could not be read or was not drawn.
        experiment: the experiment that the study is of, if any.
    """

    study: Study
    summaries: list[ArmSummary]
    verdict: Verdict
    csv: Path
    figures: list[Path]
    page: Path
    left_out: list[str]
    experiment: StudyExperiment | None = None

    @property
    def table(self) -> "Table":
        """The summaries, to print with rich."""
        return render(self.summaries)


def report(study_folder: Path, experiments: StudyExperiments = MappingProxyType({})) -> Report:
    """Read a study, and write its `runs.csv`, its figures and its report into its folder.

    `experiments` are those whose studies have a figure and sentences of their own, by name.

    Raises:
        NormlabError: the folder is no study, or cannot be written.
    """
    study = read_study(study_folder, CURVES)
    left_out = [*study.left_out, *plan(study).left_out]
    experiment = find_study_experiment(study, experiments)
    found = verdict(study, experiment)
    page = study_folder / REPORT_FILE
    try:
        check_study_links(study_folder)
        csv = write_runs(study)
        files = _draw(study, experiment, found, left_out, page)
    except OSError as error:
        raise _unwritable(study_folder, error) from error
    return Report(study, summary(study), found, csv, files, page, left_out, experiment)


def _unwritable(folder: Path, error: OSError) -> NormlabError:
    return NormlabError(
        f"The results of {folder} cannot be written: {error.strerror or error} "
        f"({error.filename or folder}); free space or permit writing there, and run "
        f"python scripts/plot.py {folder}."
    )


def _draw(
    study: Study,
    experiment: StudyExperiment | None,
    found: Verdict,
    left_out: list[str],
    page: Path,
) -> list[Path]:
    from normlab.analysis import document

    files: list[Path] = []
    with without_figure("The figures", left_out):
        from normlab.analysis import figures  # matplotlib takes half a second

        files = figures.draw(study, study.folder / FIGURES_FOLDER, left_out, experiment)
    document.write(study, found, files, left_out, page, experiment)
    return files


def main(
    argv: Sequence[str] | None = None,
    *,
    experiments: StudyExperiments = MappingProxyType({}),
    redraw_measurement: Callable[[Path, str | None], bool] | None = None,
) -> None:
    """The command line of `scripts/plot.py`.

    `redraw_measurement` draws what an experiment without training left in a folder, and returns
    False if it left nothing; its second argument is `--metric`.
    """
    parser = CommandParser(
        description="Redraw a study from its event files: runs.csv, figures/*.png, *.svg and "
        "report.html.",
        epilog="example: python scripts/plot.py outputs/mystudy",
    )
    parser.add_argument("study", type=Path, help="a study's folder, outputs/<study>")
    parser.add_argument(
        "--metric",
        metavar="TAG",
        help="draw this scalar of the event files instead, as train/grad_norm or a probe's tag, "
        "into figures/metrics",
    )
    with report_user_errors():
        arguments = parser.parse_args(argv)
        if redraw_measurement and redraw_measurement(arguments.study, arguments.metric):
            return
        if arguments.metric is None:
            show(report(arguments.study, experiments))
        else:
            _show_metric(arguments.study, arguments.metric)


def _show_metric(study_folder: Path, tag: str) -> None:
    from normlab.analysis.metric_figure import draw_metric

    png, svg = draw_metric(study_folder, tag)
    for path in (png, svg):
        sys.stdout.write(printable(f"figure   {path}\n"))


def show(done: Report) -> None:
    """Print a report: the table, what it shows, what was left out, and where the files are."""
    from normlab.terminal import open_terminal

    console = open_terminal()
    console.print(done.table)
    rates = learning_rates(done.study)
    if rates is not None:
        console.print(render_rates(rates))
    if done.verdict.story:
        _say(console, "", " ".join(done.verdict.story))
    for sentence in done.verdict.sentences:
        _say(console, "- ", sentence)
    for kind, sentences in (("warning: ", done.verdict.warnings), ("note: ", done.left_out)):
        for sentence in sentences:
            _say(console, kind, sentence)
    name = done.experiment and f"{done.experiment.name}.png"
    own = [path for path in done.figures if path.name == name]
    for path in own:
        console.print(f"figure   {path}", markup=False)
    if done.figures:
        console.print(f"figures  {done.figures[0].parent}", markup=False)
    console.print(f"table    {done.csv}", markup=False)
    console.print(f"report   {done.page}", markup=False)


def _say(console: "Console", before: str, sentence: str) -> None:
    """A sentence on a line of its own, or in a window as many as it needs, indented."""
    from normlab.terminal import has_fixed_width

    width = min(console.width, _WIDEST) if has_fixed_width(console) else len(before + sentence)
    lines = wrap(sentence, width - len(before), break_long_words=False, break_on_hyphens=False)
    console.print(before + f"\n{' ' * len(before)}".join(lines), markup=False)
