"""A report in the terminal, and as Markdown for docs/performance.md."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.text import Text

from normlab.analysis.fitting_table import FittingTable
from normlab.bench.result import Goal, Report, Table

_GOAL_COLUMNS = ("ratio or time", "measured", "goal", "reached")
_STYLES = {"ours": "bold", "limit": "dim", "peer": "", "other": ""}


def show(console: Console, report: Report) -> None:
    """Print the tables, the goals, and how it was measured."""
    result = report.result
    for table in result.tables:
        console.print(_rich(table))
    if result.goals:
        goals = _frame("goals", _GOAL_COLUMNS)
        for goal in result.goals:
            style = {True: "green", False: "red", None: ""}[goal.reached]
            goals.add_row(*map(Text, _goal(goal)), style=style)
        console.print(goals)
    for note in result.notes:
        console.print(f"note: {note}", markup=False)
    console.print(f"on    {report.machine}; {report.seconds:.0f} s", markup=False)


def markdown(report: Report) -> str:
    """The same as Markdown."""
    result = report.result
    lines = [f"`{report.command}`: {report.machine}; {report.seconds:.0f} s."]
    if report.quick:
        lines.append("With `--quick`: a look, not a measurement.")
    for table in result.tables:
        lines += ["", f"**{table.title}**", "", *_pipes(_heads(table), _cells(table))]
    if result.goals:
        lines += ["", *_pipes(_GOAL_COLUMNS, [_goal(goal) for goal in result.goals])]
    lines += ["", *(f"- {note}" for note in result.notes)]
    return "\n".join(lines)


def _rich(table: Table) -> FittingTable:
    frame = _frame(table.title, _heads(table))
    for row, cells in zip(table.rows, _cells(table), strict=True):
        frame.add_row(*map(Text, cells), style=_STYLES[row.kind])
    return frame


def _frame(title: str, columns: Sequence[str]) -> FittingTable:
    frame = FittingTable(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        frame.add_column(column, justify="right" if number else "left", no_wrap=number > 0)
    return frame


def _heads(table: Table) -> tuple[str, ...]:
    return (table.first, *table.columns)


def _cells(table: Table) -> Iterator[tuple[str, ...]]:
    for row in table.rows:
        values = [row.values.get(column) for column in table.columns]
        yield row.name, *("–" if value is None else str(value) for value in values)


def _goal(goal: Goal) -> tuple[str, ...]:
    return goal.what, str(goal.value), goal.bound, goal.verdict


def _pipes(
    heads: Sequence[str], rows: "Sequence[tuple[str, ...]] | Iterator[tuple[str, ...]]"
) -> list[str]:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
