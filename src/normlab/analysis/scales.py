"""Logarithmic axes whose ticks are written as people write numbers."""

import math
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogFormatter,
    MaxNLocator,
    NullFormatter,
)

from normlab.archive.record import short_number

# Multiples of powers of ten that have ticks where the powers alone are too few.
_MULTIPLES = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0))


def log_ticks(low: float, high: float, fewest: int = 3, most: int = 6) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, and what is between them where these are few.

    There are at least two, if need be those of a linear axis.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in _MULTIPLES:
        every = [factor * 10.0**power for power in powers for factor in factors]
        ticks = [tick for tick in every if low <= tick <= high]
        if len(ticks) >= fewest:
            return ticks[:: math.ceil(len(ticks) / most)]
    linear = MaxNLocator(most - 1).tick_values(low, high)
    return [float(tick) for tick in linear if low <= tick <= high]


def logarithmic(axis: Any) -> None:
    """Make an x or y axis logarithmic, after all is drawn on it; see `log_ticks`.

    What has no positive limits stays linear.
    """
    if not axis.get_data_interval()[1] > 0:
        return
    axis._set_axes_scale("log")
    low, high = axis.get_view_interval()
    if not 0 < low < high:
        return
    axis.set_major_locator(FixedLocator(log_ticks(low, high)))


def write_plain_ticks(figure: Figure) -> None:
    """Write the ticks of every logarithmic axis plainly: 1e-3, 0.1, 100.

    matplotlib writes them as mathematical text, which the looks of the figures do not parse, since
    a name may hold dollar signs: an axis that is left as it is would show the raw markup.
    """
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatter):
                axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
            if isinstance(axis.get_minor_formatter(), LogFormatter):
                axis.set_minor_formatter(NullFormatter())
