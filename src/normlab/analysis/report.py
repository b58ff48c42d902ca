"""What the end of a study says on the terminal: a row an arm."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from normlab.analysis.table import ArmSummary

if TYPE_CHECKING:
    from rich.table import Table


def render(summaries: Sequence[ArmSummary]) -> "Table":
    """The summaries as a table to print, in the order given."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=0)  # 80 columns are enough for plain arms
    table.caption, table.caption_justify = _caption(summaries), "left"
    table.add_column("arm")
    numbers = ("seeds", "best val loss", "final val loss", "diverged", "tok/s", "params")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    for one in summaries:
        table.add_row(
            one.label,
            _seeds(one),
            _loss(one.best_val),
            _loss(one.final_val),
            f"{one.diverged} of {one.runs}" if one.diverged else "0",
            "" if math.isnan(one.tokens_per_second) else f"{one.tokens_per_second:,.0f}",
            "" if one.parameters is None else f"{one.parameters:,}",
        )
    return table


def _seeds(one: ArmSummary) -> str:
    """How many finished; the failed and interrupted are named, for nobody else would."""
    failed = f", {one.failed} failed" if one.failed else ""
    interrupted = f", {one.interrupted} interrupted" if one.interrupted else ""
    count = f"{one.runs}" if one.finished == one.runs else f"{one.finished} of {one.runs}"
    return count + failed + interrupted


def _loss(value: tuple[float, float]) -> str:
    mean, half = value
    if math.isnan(mean):
        return "–"
    return f"{mean:.4f}" if math.isnan(half) else f"{mean:.4f} ±{half:.4f}"


def _caption(summaries: Sequence[ArmSummary]) -> str:
    lines = ["Losses in nats per token: mean of the finished runs ± 95 % t-interval over seeds."]
    floors = sorted({one.floor for one in summaries if one.floor is not None})
    if floors:
        known = " or ".join(f"{floor:.4f}" for floor in floors)
        lines.append(f"Floor: {known}; no model can do better.")
    return "\n".join(lines)
