"""What was measured at initialisation: slopes on log-log axes, and the table on the terminal."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from normlab.analysis.statistics import mean_interval
from normlab.apps.experiments.formatting import format_short
from normlab.apps.probe.record import Measurement, Probing, Slope
from normlab.archive import tags

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# The names of the slopes. The first is fitted over depths, the others within a model.
LAST_GRADIENT = "gradient of the last feed-forward against depth"
STREAM_GROWTH = "stream variance against block"
GRADIENT_DECAY = "gradient norm of a feed-forward, factor a block towards the input"
STREAM_DECAY = "gradient by the stream, factor a block towards the input"

_MOST_ROWS = 40  # of the table; the file holds all


def feedforward(block: int) -> str:
    """The site of a block's feed-forward, blocks from 1."""
    return f"block_{block:02d}/feedforward"


def by_block(one: Measurement, quantity: str) -> list[float]:
    """A quantity at the feed-forward of every block; NaN where there is none."""
    return [one.value(quantity, feedforward(block)) for block in range(1, one.depth + 1)]


def last_gradient(one: Measurement) -> float:
    """The gradient norm of the last feed-forward's weights."""
    return one.value(tags.PARAMETER_GRADIENT, feedforward(one.depth))


def slopes(measurements: Sequence[Measurement]) -> tuple[Slope, ...]:
    """Every slope that can be fitted: of each seed alone, then their mean and t-interval.

    Over depths: log of the last feed-forward's gradient norm on log L. Within a model: log of the
    stream's variance on log l, and the factor by which gradients change from a block to the one
    before it, e to minus the slope of their log on l.
    """
    found = []
    for arm in dict.fromkeys(one.arm for one in measurements):
        ours = [one for one in measurements if one.arm == arm]
        per_seed = [
            _slope([one.depth for one in some], [last_gradient(one) for one in some], np.log)
            for some in _by_seed(ours)
        ]
        found.append(_gathered(arm, LAST_GRADIENT, None, per_seed))
        for depth in sorted({one.depth for one in ours}):
            some = [one for one in ours if one.depth == depth]
            found += _within(arm, depth, some)
    return tuple(slope for slope in found if slope is not None)


def _by_seed(measurements: Sequence[Measurement]) -> Iterator[list[Measurement]]:
    for seed in dict.fromkeys(one.seed for one in measurements):
        yield [one for one in measurements if one.seed == seed]


def _within(arm: str, depth: int, some: Sequence[Measurement]) -> Iterator[Slope | None]:
    blocks = range(1, depth + 1)
    growth = [_slope(blocks, by_block(one, tags.STREAM_VARIANCE), np.log) for one in some]
    yield _gathered(arm, STREAM_GROWTH, depth, growth)
    for name, quantity in (
        (GRADIENT_DECAY, tags.PARAMETER_GRADIENT),
        (STREAM_DECAY, tags.STREAM_GRADIENT),
    ):
        falls = [_slope(blocks, by_block(one, quantity), np.asarray) for one in some]
        yield _gathered(arm, name, depth, [math.exp(-fall) for fall in falls])


def _slope(x: Sequence[float], y: Sequence[float], scale: Callable[..., object]) -> float:
    """Least squares of log y on scale(x); NaN of fewer than two places, or a y without a log."""
    if len(set(x)) < 2 or not all(math.isfinite(one) and one > 0 for one in y):
        return math.nan
    return float(np.polyfit(np.asarray(scale(np.array(x, float))), np.log(y), 1)[0])


def _gathered(arm: str, name: str, depth: int | None, per_seed: Sequence[float]) -> Slope | None:
    if not per_seed or not all(map(math.isfinite, per_seed)):
        return None
    mean, half = mean_interval(per_seed)
    return Slope(arm, name, depth, mean, None if math.isnan(half) else half, tuple(per_seed))


def show(console: "Console", probing: Probing) -> None:
    """Print the measurements, an arm and a depth a row, the slopes, and what the words mean."""
    console.print(_values(probing))
    if len(_rows(probing)) > _MOST_ROWS:
        console.print(f"the first {_MOST_ROWS} of {len(_rows(probing))}; the file holds all")
    if any(one.name == LAST_GRADIENT for one in probing.slopes):
        console.print(_over_depths(probing))
    seeds = max(len(probing.of(arm, depth)) for arm, depth in _rows(probing))
    console.print(
        f"{'Means over seeds ± 95 % t-interval' if seeds > 1 else 'One seed, so no interval'}. "
        "RMS and variance are those of the residual stream "
        "after the first and the last block; decay: factor by which a gradient changes from a "
        "block to the one before it, of the feed-forward's weights.",
        style="dim",
    )


def _rows(probing: Probing) -> list[tuple[str, int]]:
    return list(dict.fromkeys((one.arm, one.depth) for one in probing.measurements))


def _values(probing: Probing) -> "Table":
    from rich import box
    from rich.text import Text

    from normlab.analysis.terminal_tables import FittingTable

    table = FittingTable(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("arm", overflow="fold")
    for heading in ("blocks", "seeds", "RMS first", "RMS last", "variance last", "last ‖∇‖"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("growth", justify="right", no_wrap=True)
    table.add_column("decay", justify="right", no_wrap=True)
    for arm, depth in _rows(probing)[:_MOST_ROWS]:
        ours = probing.of(arm, depth)
        last = feedforward(depth)
        table.add_row(
            Text(arm),
            str(depth),
            str(len(ours)),
            _mean([one.value(tags.STREAM_RMS, feedforward(1)) for one in ours]),
            _mean([one.value(tags.STREAM_RMS, last) for one in ours]),
            _mean([one.value(tags.STREAM_VARIANCE, last) for one in ours]),
            _mean([last_gradient(one) for one in ours]),
            _told(probing.slope(arm, STREAM_GROWTH, depth)),
            _told(probing.slope(arm, GRADIENT_DECAY, depth)),
        )
    return table


def _over_depths(probing: Probing) -> "Table":
    from rich import box
    from rich.text import Text

    from normlab.analysis.terminal_tables import FittingTable

    table = FittingTable(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("arm", overflow="fold")
    table.add_column("slope of log(last ‖∇‖) on log(blocks)", justify="right")
    for arm in probing.arms:
        table.add_row(Text(arm), _told(probing.slope(arm, LAST_GRADIENT)))
    return table


def _told(slope: Slope | None) -> str:
    if slope is None or slope.mean is None:
        return "–"
    return f"{slope.mean:.3f}" + ("" if slope.half is None else f" ±{slope.half:.3f}")


def _mean(values: Sequence[float]) -> str:
    mean, half = mean_interval(values)
    if not math.isfinite(mean):
        return "not finite"
    if mean and not 1e-3 <= abs(mean) < 1e5:
        return format_short(mean) + ("" if math.isnan(half) else f" ±{format_short(half)}")
    digits = 2 - (math.floor(math.log10(abs(mean))) if mean else 0)
    if half > 0:  # no more than the interval lets one know
        digits = min(digits, -math.floor(math.log10(half)))
    digits = max(0, digits)
    return f"{mean:.{digits}f}" + ("" if math.isnan(half) else f" ±{half:.{digits}f}")
