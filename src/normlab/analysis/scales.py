"""Logarithmic axes whose ticks are written as people write numbers."""

import math
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter, LogLocator, NullFormatter

from normlab.archive.record import short_number

_FEW = 1.5  # powers of ten below which the ticks between are needed


def logarithmic(axis: Any) -> None:
    """Make an x or y axis logarithmic, after all is drawn on it: ticks at 1e-3, 0.01, 0.1, 1.

    Over few powers of ten 2 and 5 have ticks too; what has no positive limits stays linear.
    """
    if not axis.get_data_interval()[1] > 0:
        return
    axis._set_axes_scale("log")
    low, high = axis.get_view_interval()
    if not 0 < low < high:
        return
    between = (1.0, 2.0, 5.0) if math.log10(high / low) < _FEW else (1.0,)
    axis.set_major_locator(LogLocator(subs=between, numticks=6))


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
