"""The figure of what was measured at initialisation: six panels, a line an arm."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

from normlab.analysis import sheet
from normlab.analysis.arms import Arm
from normlab.analysis.sheet import set_log_scale
from normlab.analysis.style import Look, figure_style
from normlab.apps.probe.record import Measurement, Probing, Slope
from normlab.apps.probe.tables import LAST_GRADIENT, by_block, feedforward, last_gradient
from normlab.archive import tags

NAME = "probe"
MOST_ARMS = 12

_HEIGHT = 4.7  # inches
_Reading = Callable[[Measurement], Sequence[float]]


def draw(probing: Probing, folder: Path) -> list[Path]:
    """Write `probe.png` and `probe.svg` into the folder; returns their paths. Raises OSError."""
    with figure_style():
        return sheet.save_figure(_sheet(probing), folder, NAME)


def _sheet(probing: Probing) -> Figure:
    arms = probing.arms[:MOST_ARMS]
    looks = _Looks(probing, arms)
    depths = sorted({one.depth for one in probing.measurements})
    figure, body = sheet.create_sheet(
        f"At initialisation: {_words(depths, 'block')}, one batch a seed",
        _note(probing, depths),
        looks.legend(probing),
        _HEIGHT,
    )
    grid = body.subplots(2, 3).ravel()
    for axes, (title, reading, log) in zip(grid, _WITHIN, strict=False):
        axes.set_title(title)
        for arm in arms:
            deepest = max(one.depth for one in probing.of(arm))
            _line(axes, looks, arm, probing.of(arm, deepest), reading)
        if log and axes.get_lines():
            set_log_scale(axes.yaxis)
        axes.set_xlabel("block")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axes, (title, number) in zip(grid[4:], _OVER_DEPTHS, strict=True):
        axes.set_title(title)
        _over_depths(axes, looks, probing, arms, number)
    return figure


class _Looks:
    """Norms by colour and placements by line; where more varies, a colour an arm."""

    def __init__(self, probing: Probing, arms: Sequence[str]) -> None:
        firsts = {arm: probing.of(arm)[0] for arm in arms}
        plain = not any(one.settings for one in firsts.values())
        self.arms = {
            arm: Arm(one.norm, one.placement, (), ()) if plain else Arm(arm, "any", (), ())
            for arm, one in firsts.items()
        }
        self.look = Look.of(list(self.arms.values()))

    def of(self, arm: str) -> dict[str, Any]:
        """How an arm's line is drawn."""
        one = self.arms[arm]
        return {"color": self.look.colour(one), "ls": self.look.line(one)}

    def marker(self, arm: str) -> str:
        """How an arm's points are."""
        return self.look.marker(self.arms[arm])

    def legend(self, probing: Probing) -> sheet.Legend:
        """An entry an arm, with the slope over depths where there is one."""
        handles: list[Artist] = [
            Line2D([], [], **self.of(arm), marker=self.marker(arm), ms=4) for arm in self.arms
        ]
        return handles, [f"{arm}{_slope(probing.slope(arm, LAST_GRADIENT))}" for arm in self.arms]


def _line(
    axes: Axes, looks: _Looks, arm: str, some: Sequence[Measurement], reading: _Reading
) -> None:
    """The mean over seeds by block, and a band from the lowest to the highest."""
    values = np.array([reading(one) for one in some], float)
    if not np.isfinite(values).any():
        return
    blocks = np.arange(1, values.shape[1] + 1)
    axes.plot(blocks, values.mean(0), **looks.of(arm))
    if len(values) > 1:
        colour = looks.of(arm)["color"]
        axes.fill_between(blocks, values.min(0), values.max(0), color=colour, alpha=0.15, lw=0)


def _over_depths(
    axes: Axes,
    looks: _Looks,
    probing: Probing,
    arms: Sequence[str],
    number: Callable[[Measurement], float],
) -> None:
    """Every seed a point and the mean a line, against the number of blocks."""
    for arm in arms:
        ours = probing.of(arm)
        depths = sorted({one.depth for one in ours})
        means = [np.mean([number(one) for one in ours if one.depth == depth]) for depth in depths]
        look = looks.of(arm)
        axes.plot(depths, means, **look, marker=looks.marker(arm), ms=4)
        points = [(one.depth, number(one)) for one in ours]
        axes.plot(*zip(*points, strict=True), ".", color=look["color"], ms=2.5, alpha=0.5)
    depths = sorted({one.depth for one in probing.measurements})
    axes.set_xlabel("blocks in the model")
    set_log_scale(axes.yaxis)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(depths))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())


def _slope(slope: Slope | None) -> str:
    if slope is None or slope.mean is None:
        return ""
    half = "" if slope.half is None else f" ±{slope.half:.2f}"
    return f": slope {slope.mean:.2f}{half}"


def _words(depths: Sequence[int], noun: str) -> str:
    return f"{', '.join(map(str, depths))} {noun}{'s' * (depths != [1])}"


def _note(probing: Probing, depths: Sequence[int]) -> str:
    several = len({one.seed for one in probing.measurements}) > 1
    lines = [
        "Gradients are those of the mean loss; values after each block's feed-forward. "
        + (
            "Line: mean over seeds; band: lowest to highest seed."
            if several
            else "One seed: no band."
        )
    ]
    if len(depths) > 1:
        lines.append(
            "Against the block: the deepest model of each arm. Slope: of log gradient norm of the "
            "last feed-forward on log blocks" + (", ± 95 % t-interval over seeds." * several)
        )
    hidden = len(probing.arms) - MOST_ARMS
    if hidden > 0:
        lines.append(f"The first {MOST_ARMS} arms are drawn; {hidden} more are in probe.json.")
    return "\n".join(lines)


def _angles(one: Measurement) -> list[float]:
    return [one.value(tags.ANGLE, f"block_{block:02d}") for block in range(1, one.depth + 1)]


def _last_variance(one: Measurement) -> float:
    return one.value(tags.STREAM_VARIANCE, feedforward(one.depth))


_WITHIN: tuple[tuple[str, _Reading, bool], ...] = (
    ("Stream RMS", lambda one: by_block(one, tags.STREAM_RMS), True),
    ("Gradient by the stream", lambda one: by_block(one, tags.STREAM_GRADIENT), True),
    ("Gradient by feed-forward", lambda one: by_block(one, tags.PARAMETER_GRADIENT), True),
    ("Angle of a block (÷ 180°)", _angles, False),
)
_OVER_DEPTHS: tuple[tuple[str, Callable[[Measurement], float]], ...] = (
    ("Variance, last block", _last_variance),
    ("Gradient, last feed-forward", last_gradient),
)
