"""Names written beside the ends of curves, moved apart where curves end together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

FONT = 7.5
# Share of a panel's width that the names get, and of its height that a line of them takes.
_ROOM, _LINE = 0.46, 0.095


@dataclass(frozen=True)
class End:
    """Where a curve ends, and what it is called."""

    y: float
    name: str
    colour: str


def label(axes: Axes, last: float, ends: Sequence[End]) -> None:
    """Write the names right of x = `last`, each joined to its curve; the y-axis is logarithmic.

    Call it when the limits of y are set: this sets those of x.
    """
    first = min(0.0, axes.get_xlim()[0])
    axes.set_xlim(first, first + (last - first) / (1 - _ROOM))
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    shown = [end for end in ends if end.y > 0]
    wanted = [(math.log10(end.y) - low) / (high - low) for end in shown]
    gap = min(_LINE, 1 / max(1, len(shown)))
    text_at = 1 - _ROOM + 0.06
    for end, place, y in zip(shown, apart(wanted, gap), wanted, strict=True):
        axes.plot(
            [1 - _ROOM, text_at - 0.012],
            [min(max(y, 0.0), 1.0), place],
            transform=axes.transAxes,
            color=end.colour,
            lw=0.6,
            clip_on=False,
        )
        said = axes.text(text_at, place, end.name, transform=axes.transAxes, fontsize=FONT)
        said.set(color=end.colour, va="center", ha="left")
        said.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.8})


def apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Places from 0 to 1, at least `gap` from each other, as near as may be to those wanted."""
    order = sorted(range(len(wanted)), key=lambda one: wanted[one])
    groups: list[list[int]] = []
    centres: list[float] = []
    for one in order:
        groups.append([one])
        centres.append(_within(wanted[one], gap / 2))
        while len(groups) > 1 and _overlap(groups, centres, gap):
            last = groups.pop()
            centres.pop()
            groups[-1] += last
            middle = sum(wanted[member] for member in groups[-1]) / len(groups[-1])
            centres[-1] = _within(middle, gap * len(groups[-1]) / 2)
    places = [0.0] * len(wanted)
    for group, centre in zip(groups, centres, strict=True):
        for at, member in enumerate(group):
            places[member] = centre + gap * (at - (len(group) - 1) / 2)
    return places


def _overlap(groups: Sequence[Sequence[int]], centres: Sequence[float], gap: float) -> bool:
    below, above = groups[-2:]
    least = gap * (len(below) + len(above)) / 2
    return centres[-1] - centres[-2] < least - 1e-12


def _within(centre: float, half: float) -> float:
    return min(max(centre, half), 1 - half)
