"""What the end of a study says on the terminal: a row an arm, of the best where they are many."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from normlab.analysis.learning_rates import LearningRates
from normlab.analysis.speed import speed_words
from normlab.analysis.statistics import mean_interval
from normlab.analysis.table import RUNS_FILE, ArmSummary
from normlab.archive.record import short_number
from normlab.archive.steadiness import NOT_COMPARABLE

if TYPE_CHECKING:
    from rich.table import Table

MOST_ROWS = 40


def render(summaries: Sequence[ArmSummary]) -> "Table":
    """The summaries as a table to print, in the order given; the first where they are many."""
    from rich.text import Text

    speeds = any(one.speed_comparable for one in summaries)
    headings = ["seeds", "best val loss", "final val loss", "diverged", "tok/s", "params"]
    if not speeds:
        headings.remove("tok/s")
    table = _empty(headings, _caption(summaries, speeds))
    for one in summaries[:MOST_ROWS]:
        speed = speed_words(one.tokens_per_second, one.speed_comparable)
        table.add_row(
            Text(one.label),
            _seeds(one),
            _loss(one.best_val),
            _loss(one.final_val),
            f"{one.diverged} of {one.runs}" if one.diverged else "0",
            *([speed] if speeds else []),
            "" if one.parameters is None else f"{one.parameters:,}",
        )
    return table


def render_rates(rates: LearningRates) -> "Table":
    """The arms of a learning-rate study at their best rates, lowest mean loss first."""
    from rich.text import Text

    caption = (
        f"Over the {len(rates.grid)} learning rates that all arms share: each at the best of them; "
        "LR\nsensitivity (arXiv 2309.14322); stable up to: no run diverged there or below."
    )
    table = _empty(("best lr", "tuned loss", "sensitivity", "stable up to", "diverged"), caption)
    for one in sorted(rates.arms, key=lambda one: one.tuned_mean)[:MOST_ROWS]:
        table.add_row(
            Text(one.name),
            _rate(one.best_rate),
            _loss(mean_interval(list(one.tuned.values()))),
            _loss(mean_interval(list(one.sensitivity.values()))),
            _rate(one.largest_stable),
            f"{one.diverged} of {len(one.arm.runs)}" if one.diverged else "0",
        )
    return table


def _empty(headings: Sequence[str], caption: str) -> "Table":
    from rich import box

    from normlab.analysis.fitting_table import FittingTable

    table = FittingTable(box=box.SIMPLE_HEAD, padding=0)  # 80 columns are enough for plain arms
    table.caption, table.caption_justify = caption, "left"
    table.add_column("arm", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _rate(rate: float | None) -> str:
    return "–" if rate is None else short_number(rate)


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


def _caption(summaries: Sequence[ArmSummary], speeds: bool) -> str:
    lines = ["Losses in nats per token: mean of the finished runs ± 95 % t-interval over seeds."]
    if len(summaries) > MOST_ROWS:
        more = len(summaries) - MOST_ROWS
        lines.append(f"The best {MOST_ROWS} arms; {more} more are in {RUNS_FILE}, a row a run.")
    floors = sorted({one.floor for one in summaries if one.floor is not None})
    if floors:
        known = " or ".join(f"{floor:.4f}" for floor in floors)
        lines.append(f"Floor: {known}; no model can do better.")
    if not speeds and any(not math.isnan(one.tokens_per_second) for one in summaries):
        lines.append(
            f"Speeds: {NOT_COMPARABLE}; they vary by 10 % or more over a run, or it is short."
        )
    return "\n".join(lines)
