"""What of the curves in a panel would not be seen: those above its axis, those under others."""

from collections.abc import Sequence
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from normlab.analysis.style import GREY
from normlab.archive.record import short_number

HIDDEN_NOTE = "A line inside a wider one: curves that differ by less than the width of a line."

_FAINT = 0.5  # opacity below which a line is background
_UNSEEN = 0.006  # share of a panel's height, half a line's width in one of two inches
_WIDER, _MOST_WIDER = 0.9, 3  # how much wider, in widths, for each curve that lies on it
_SIZE = 7.5  # points


def mark_cut_curves(figure: Figure) -> None:
    """Say in every panel how far the curves go that leave it at the top."""
    for axes in figure.axes:
        top = max(axes.get_ylim())
        starts: list[float] = []
        peaks: list[float] = []
        for line in _curves(axes):
            values = np.asarray(line.get_ydata(), float)
            values = values[np.isfinite(values)]
            inside = np.flatnonzero(values <= top)
            first = int(inside[0]) if len(inside) else len(values)
            starts += values[:1].tolist() if first else []
            later = values[first:]
            peaks += [float(later.max())] if len(later) and later.max() > top else []
        words = [
            f"↑ {verb} {_span(some)}, above the axis"
            for verb, some in (("starts at", starts), ("rises to", peaks))
            if some
        ]
        if words:
            # Below the crosses of diverged runs, which stand at the upper edge.
            text = axes.annotate(
                "\n".join(words), (1, 1), (-3, -11), "axes fraction", "offset points",
                ha="right", va="top", fontsize=_SIZE, color=GREY, zorder=6,
            )  # fmt: skip
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8})


def widen_hidden_curves(figure: Figure) -> bool:
    """Draw each curve wider that lies under others; returns whether there is one.

    Of one colour, as the seeds of an arm, they would not be told apart in any case.
    """
    widened = False
    for axes in figure.axes:
        lines = sorted(_curves(axes), key=lambda line: line.get_zorder())
        heights = [_heights(axes, line) for line in lines]
        for at, line in enumerate(lines):
            count = sum(
                line.get_color() != other.get_color()
                and np.array_equal(line.get_xdata(), other.get_xdata())
                and _coincide(heights[at], one)
                for other, one in zip(lines[at + 1 :], heights[at + 1 :], strict=True)
            )
            if count:
                more = line.get_linewidth() * _WIDER * min(count, _MOST_WIDER)
                line.set_linewidth(line.get_linewidth() + more)
                line.set_markersize(line.get_markersize() + more)
                widened = True
    return widened


def _curves(axes: Axes) -> list[Line2D]:
    return [
        line
        for line in axes.lines
        if line.get_transform() == axes.transData
        and line.get_linestyle() not in ("None", "", " ")
        and (line.get_alpha() or 1.0) >= _FAINT
        and len(cast("Sequence[float]", line.get_xdata())) > 1
    ]


def _heights(axes: Axes, line: Line2D) -> NDArray[np.float64]:
    """Where the points stand in the panel: 0 at its lower edge, 1 at its upper one."""
    axes.get_xlim(), axes.get_ylim()  # which sets limits that are still to be found
    points = (axes.transScale + axes.transLimits).transform(line.get_xydata())
    # What is outside cannot be seen, and so makes no difference.
    return np.asarray(np.clip(points[:, 1], -_UNSEEN, 1 + _UNSEEN))


def _coincide(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    there = np.isfinite(one)
    if not np.array_equal(there, np.isfinite(other)) or not ((one >= 0) & (one <= 1)).any():
        return False
    return float(np.abs(one[there] - other[there]).max()) < _UNSEEN


def _span(values: Sequence[float]) -> str:
    ends = [_number(end(values)) for end in (min, max)]
    return "–".join(dict.fromkeys(ends))


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 100 else short_number(float(f"{value:.3g}"))
