"""What the end of a study prints: a row an arm, in windows of any width."""

import math
from collections.abc import Iterator, Sequence
from textwrap import wrap

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from normlab.analysis import report_tables
from normlab.analysis.arms import SEPARATOR, Arm
from normlab.analysis.conclusions import MOST_SENTENCES
from normlab.analysis.formatting import format_interval
from normlab.analysis.learning_rates import OTHER_WINDOWS, STABLE_UP_TO, LearningRates
from normlab.analysis.result import StudyResult
from normlab.analysis.runs_csv import RUNS_FILE
from normlab.analysis.style import Look
from normlab.analysis.summary import ArmSummary
from normlab.archive.steadiness import NOT_COMPARABLE

_INDENT = 2


class FittingTable(Table):
    """A table that is printed as a list where the window is too narrow for its columns.

    `rich` would shorten the first column, that of the names, until nothing of it is left. In a list
    a row is its first cell, then each other heading with its value.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, or else the list."""
        for column in self.columns:
            if column.no_wrap:  # the measure of a table takes it for words that may be broken
                cells = (column.header, *column.cells)
                column.min_width = max(_cell_text(cell).cell_len for cell in cells)
        # As in a wide window: `get` cuts its answer to the width of the window.
        narrowest = Measurement.get(console, options.update(width=10_000), self).minimum
        if narrowest <= options.max_width:
            yield from super().__rich_console__(console, options)
        else:
            yield from self._as_list(options.max_width)

    def _as_list(self, width: int) -> Iterator[Text]:
        headings = [_cell_text(column.header).plain for column in self.columns[1:]]
        yield Text()
        for first, *values in zip(*(column.cells for column in self.columns), strict=True):
            for part in wrap(_cell_text(first).plain, width):
                yield Text(part, style="bold")
            pairs = zip(headings, map(_cell_text, values), strict=True)
            yield from _wrapped_pairs(
                [f"{name} {cell.plain}" for name, cell in pairs if cell], width
            )
        yield Text()
        if self.caption is not None:
            for part in _cell_text(self.caption).plain.split("\n"):
                yield from map(Text, wrap(part, width))


def _wrapped_pairs(pairs: Sequence[str], width: int) -> Iterator[Text]:
    """The pairs in lines of at most `width`, indented; none is broken that fits one."""
    line = ""
    for pair in pairs:
        longer = f"{line} · {pair}" if line else pair
        if line and _INDENT + len(longer) > width:
            yield Text(" " * _INDENT + line, overflow="fold")
            longer = pair
        line = longer
    if line:
        yield Text(" " * _INDENT + line, overflow="fold")


def _cell_text(cell: RenderableType) -> Text:
    return cell.copy() if isinstance(cell, Text) else Text.from_markup(str(cell))


MOST_ROWS = 40


def summary_table(summaries: Sequence[ArmSummary]) -> Table:
    """The summaries as a table to print, in the order given; the first where they are many."""
    speeds = any(summary.speed_comparable for summary in summaries)
    headings = ["seeds", "best val loss", "final val loss", "diverged", "tok/s", "params"]
    if not speeds:
        headings.remove("tok/s")
    table = _empty_table(headings, _summary_caption(summaries, speeds))
    for summary in summaries[:MOST_ROWS]:
        speed = f"{summary.tokens_per_second:,.0f}" if summary.speed_comparable else NOT_COMPARABLE
        if math.isnan(summary.tokens_per_second):
            speed = ""
        table.add_row(
            Text(summary.arm.label),
            _count_seeds(summary.arm),
            format_interval(*summary.best_val),
            format_interval(*summary.final_val),
            _count_diverged(len(summary.arm.with_state("diverged")), summary.arm),
            *([speed] if speeds else []),
            "" if summary.parameters is None else f"{summary.parameters:,}",
        )
    return table


def rates_table(rates: LearningRates, look: Look) -> Table:
    """The arms of a learning-rate study at their best rates, lowest mean loss first."""
    windows = f"\n({OTHER_WINDOWS}); " if rates.halved else ";\n"
    caption = (
        f"Over the {len(rates.grid)} learning rates that all arms share: each at the best of them"
        f"{windows}LR sensitivity (arXiv 2309.14322);\n{STABLE_UP_TO}."
    )
    table = _empty_table(
        ("best lr", "tuned loss", "sensitivity", "stable up to", "diverged"), caption
    )
    rows = report_tables.rates_table(rates, look).rows[:MOST_ROWS]
    for rated, (name, *numbers, _) in zip(rates.ranked, rows, strict=False):
        cells = [cell.text for cell in numbers]
        table.add_row(Text(name.text), *cells, _count_diverged(rated.diverged, rated.arm))
    return table


def comparisons_table(result: StudyResult) -> Table | None:
    """Each facet's lowest arm against its others, the numbers as in the report.

    None where every comparison has a sentence of its own, which has these numbers.
    """
    report = report_tables.comparisons_table(result)
    if report is None or not (result.story or len(report.rows) > MOST_SENTENCES):
        return None
    caption = (
        "Lower by: how far the first arm ends below the indented one, nats per token.\n"
        "Interval and p hold for all pairs of arms together, over equal seeds.\n"
        "Detectable: the true difference that 4 of 5 such studies report."
    )
    if len(report.rows) > MOST_ROWS:
        caption += f"\nThe first {MOST_ROWS} of {len(report.rows)}; report.html has all."
    table = _empty_table(("lower by", "p", "pairs", "outcome", "detectable"), caption)
    heading = ""
    for comparison, row in zip(result.comparisons[:MOST_ROWS], report.rows, strict=False):
        lowest = SEPARATOR.join(filter(None, [comparison.best.name, comparison.facet]))
        if lowest != heading:
            heading = lowest
            table.add_row(Text(lowest, style="bold"))
        # Before these five are names, which stand in the heading and the first column here.
        table.add_row(Text(f"  {comparison.other.name}"), *(cell.text for cell in row[-5:]))
    return table


def _empty_table(headings: Sequence[str], caption: str) -> Table:
    table = FittingTable(box=box.SIMPLE_HEAD, padding=0)  # 80 columns are enough for plain arms
    table.caption, table.caption_justify = caption, "left"
    table.add_column("arm", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _count_seeds(arm: Arm) -> str:
    """How many finished; those that the mean is without are named, for nobody else would."""
    finished = len(arm.with_state("finished"))
    count = f"{finished} of {len(arm.runs)}" if finished < len(arm.runs) else str(finished)
    others = [(len(arm.with_state(state)), state) for state in ("failed", "interrupted")]
    others.append((finished - len(arm.final_losses), "without a loss"))
    return ", ".join([count, *(f"{number} {state}" for number, state in others if number)])


def _count_diverged(diverged: int, arm: Arm) -> str:
    return f"{diverged} of {len(arm.runs)}" if diverged else "0"


def _summary_caption(summaries: Sequence[ArmSummary], speeds: bool) -> str:
    lines = ["Losses in nats per token: mean of the finished runs ± 95 % t-interval over seeds."]
    if len(summaries) > MOST_ROWS:
        more = len(summaries) - MOST_ROWS
        lines.append(f"The best {MOST_ROWS} arms; {more} more are in {RUNS_FILE}, a row a run.")
    floors = sorted({summary.floor for summary in summaries if summary.floor is not None})
    if floors:
        values = " or ".join(f"{floor:.4f}" for floor in floors)
        lines.append(f"Floor: {values}; no model can do better.")
    if not speeds and any(not math.isnan(summary.tokens_per_second) for summary in summaries):
        lines.append(
            f"Speeds: {NOT_COMPARABLE}; they vary by 10 % or more over a run, or it is short."
        )
    return "\n".join(lines)
