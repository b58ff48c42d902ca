"""Redraw a study from what its runs left: `runs.csv`, figures, `report.html`, verdict."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import wrap
from types import MappingProxyType
from typing import TYPE_CHECKING

from normlab.analysis.experiment import StudyExperiments
from normlab.analysis.result import StudyResult, analyse_study
from normlab.analysis.runs_csv import write_runs_csv
from normlab.analysis.style import skip_failed_figure
from normlab.archive import tags
from normlab.archive.files import FIGURES_FOLDER, check_study_files
from normlab.archive.study import read_study
from normlab.errors import CommandParser, ConfigError, NormlabError, report_user_errors
from normlab.text import excerpt, printable

if TYPE_CHECKING:
    from rich.console import Console

REPORT_FILE = "report.html"
# What figures and tables are made of.
REPORT_TAGS = (tags.TRAIN_LOSS, tags.VALIDATION_LOSS, tags.TOKENS_PER_SECOND, tags.PROBES)

_WIDEST = 100  # columns that are still easy to read


@dataclass(frozen=True)
class StudyReport:
    """A study's result, and where it was written.

    Attributes:
        result: what the study comes to.
        csv: where `runs.csv` is.
        figures: the files, PNG and SVG.
        page: where `report.html` is.
        left_out: sentences about whatever could not be read or was not drawn.
    """

    result: StudyResult
    csv: Path
    figures: list[Path]
    page: Path
    left_out: list[str]


def write_study_report(
    study_folder: Path,
    experiments: StudyExperiments = MappingProxyType({}),
    *,
    margin: float | None = None,
    target: float | None = None,
) -> StudyReport:
    """Read a study, and write its `runs.csv`, its figures and its report into its folder.

    `experiments` are those whose studies have a figure and sentences of their own, by name;
    `margin` and `target` are those of `analyse_study`.

    Raises:
        NormlabError: the folder is no study, or cannot be written.
    """
    from normlab.analysis.report import write_report  # jinja2 and pillow

    study = read_study(study_folder, REPORT_TAGS)
    result = analyse_study(study, experiments, margin=margin, target=target)
    left_out = [*study.left_out, *result.plan.left_out]
    page = study_folder / REPORT_FILE
    files: list[Path] = []
    try:
        # Before anything is written: a folder in the place of a file would stop it half-way.
        check_study_files(study_folder)
        csv = write_runs_csv(study, result.convergence.target)
        with skip_failed_figure("The figures", left_out):  # the import too may fail
            from normlab.analysis.figures import draw_figures  # matplotlib takes half a second

            files = draw_figures(result, study.folder / FIGURES_FOLDER, left_out)
        write_report(result, files, left_out, page)
    except OSError as error:
        raise NormlabError(
            f"The results of {study_folder} cannot be written: {error.strerror or error} "
            f"({error.filename or study_folder}); free space or permit writing there, and run "
            f"python scripts/plot.py {study_folder}."
        ) from error
    return StudyReport(result, csv, files, page, left_out)


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
    parser.add_argument(
        "--margin",
        type=partial(read_nats, "--margin"),
        metavar="NATS",
        help="arms whose difference lies, with confidence, within this margin end the same",
    )
    parser.add_argument(
        "--target",
        type=partial(read_nats, "--target"),
        metavar="NATS",
        help="count the steps that each arm needs to this validation loss",
    )
    with report_user_errors():
        arguments = parser.parse_args(argv)
        if arguments.metric is not None:
            for flag, value in (("--margin", arguments.margin), ("--target", arguments.target)):
                if value is not None:
                    raise ConfigError(
                        f"{flag} {value:g} is about validation losses, and --metric draws one "
                        f"scalar alone; leave one of the two out."
                    )
        if redraw_measurement and redraw_measurement(arguments.study, arguments.metric):
            return
        if arguments.metric is None:
            margin, target = arguments.margin, arguments.target
            report = write_study_report(arguments.study, experiments, margin=margin, target=target)
            print_report(report)
        else:
            from normlab.analysis.figures import draw_metric  # matplotlib takes half a second

            for path in draw_metric(arguments.study, arguments.metric):
                sys.stdout.write(printable(f"figure   {path}\n"))


def read_nats(option: str, text: str) -> float:
    """The value of an option such as `--margin`.

    Raises:
        ConfigError: it is no finite number above zero.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ConfigError(
            f"{option} {excerpt(text)} is not allowed; give a number above 0 of nats per token, as "
            f"in {option} 0.01."
        )
    return number


def print_report(report: StudyReport) -> None:
    """Print a report: the tables, what they show, what was left out, and where the files are."""
    from normlab.analysis.terminal_tables import comparisons_table, rates_table, summary_table
    from normlab.terminal import open_terminal

    result, console = report.result, open_terminal()
    console.print(summary_table(result.summaries))
    if result.rates is not None:
        console.print(rates_table(result.rates, result.look))
    if (comparisons := comparisons_table(result)) is not None:
        console.print(comparisons)
    if result.story:
        _print_sentence(console, "", " ".join(result.story))
    for sentence in result.sentences:
        _print_sentence(console, "- ", sentence)
    for sentence in result.warnings:
        _print_sentence(console, "warning: ", sentence)
    for sentence in report.left_out:
        _print_sentence(console, "note: ", sentence)
    name = result.experiment and f"{result.experiment.name}.png"
    for path in report.figures:
        if path.name == name:
            console.print(f"figure   {path}", markup=False)
    if report.figures:
        console.print(f"figures  {report.figures[0].parent}", markup=False)
    console.print(f"table    {report.csv}", markup=False)
    console.print(f"report   {report.page}", markup=False)


def _print_sentence(console: "Console", before: str, sentence: str) -> None:
    """A sentence on a line of its own, or in a window as many as it needs, indented."""
    from normlab.terminal import has_fixed_width

    width = min(console.width, _WIDEST) if has_fixed_width(console) else len(before + sentence)
    # Names and paths stay whole, so that they can be copied.
    lines = wrap(sentence, width - len(before), break_long_words=False, break_on_hyphens=False)
    console.print(before + f"\n{' ' * len(before)}".join(lines), markup=False)
