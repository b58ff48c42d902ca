"""The measurements at initialization as tables in the terminal."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from normlab.analysis.statistics import mean_interval
from normlab.apps.experiments.formatting import format_short
from normlab.apps.probe.record import ModelSlope, ProbeResult, feedforward_site
from normlab.apps.probe.slopes import GRADIENT_DECAY, LAST_GRADIENT, STREAM_GROWTH
from normlab.archive import tags

if TYPE_CHECKING:
    from rich.console import Console

_MOST_ROWS = 40  # of the table; the file holds all
_COLUMNS = (
    "blocks",
    "seeds",
    "RMS first",
    "RMS last",
    "variance last",
    "last ‖∇‖",
    "growth",
    "decay",
)


def print_result(console: "Console", result: ProbeResult) -> None:
    """Print the measurements, an arm and a depth a row, the slopes, and what the words mean."""
    from rich import box
    from rich.text import Text

    from normlab.analysis.terminal_tables import FittingTable

    table = FittingTable(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("arm", overflow="fold")
    for heading in _COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    rows = list(dict.fromkeys((model.arm, model.depth) for model in result.measurements))
    for arm, depth in rows[:_MOST_ROWS]:
        models, last = result.models_of(arm, depth), feedforward_site(depth)
        columns = (
            [model.value(tags.STREAM_RMS, feedforward_site(1)) for model in models],
            [model.value(tags.STREAM_RMS, last) for model in models],
            [model.value(tags.STREAM_VARIANCE, last) for model in models],
            [model.last_gradient for model in models],
        )
        table.add_row(
            Text(arm),
            str(depth),
            str(len(models)),
            *map(_format_mean, columns),
            _format_slope(result.slope(arm, STREAM_GROWTH, depth)),
            _format_slope(result.slope(arm, GRADIENT_DECAY, depth)),
        )
    console.print(table)
    if len(rows) > _MOST_ROWS:
        console.print(f"the first {_MOST_ROWS} of {len(rows)}; the file holds all")
    if any(slope.name == LAST_GRADIENT for slope in result.slopes):
        table = FittingTable(box=box.SIMPLE_HEAD, padding=0)
        table.add_column("arm", overflow="fold")
        table.add_column("slope of log(last ‖∇‖) on log(blocks)", justify="right")
        for arm in result.arms:
            table.add_row(Text(arm), _format_slope(result.slope(arm, LAST_GRADIENT)))
        console.print(table)
    seeds = max(len(result.models_of(arm, depth)) for arm, depth in rows)
    console.print(
        f"{'Means over seeds ± 95 % t-interval' if seeds > 1 else 'One seed, so no interval'}. "
        "RMS and variance are those of the residual stream "
        "after the first and the last block; decay: factor by which a gradient changes from a "
        "block to the one before it, of the feed-forward's weights; last ‖∇‖: gradient norm of the "
        "last feed-forward's weights; growth: slope of log variance on log block.",
        style="dim",
    )


def _format_slope(slope: ModelSlope | None) -> str:
    return "–" if slope is None else str(slope)


def _format_mean(values: Sequence[float]) -> str:
    mean, half = mean_interval(values)
    if not math.isfinite(mean):
        return "not finite"
    if mean and not 1e-3 <= abs(mean) < 1e5:
        return format_short(mean) + ("" if math.isnan(half) else f" ± {format_short(half)}")
    digits = 2 - (math.floor(math.log10(abs(mean))) if mean else 0)
    if half > 0:  # no more than the interval lets one know
        digits = min(digits, -math.floor(math.log10(half)))
    digits = max(0, digits)
    return f"{mean:.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")
