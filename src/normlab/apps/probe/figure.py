"""The figure of what was measured at initialization: six panels, a line an arm."""

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
from normlab.apps.probe.record import ModelSlope, ProbedModel, ProbeResult, feedforward_site
from normlab.apps.probe.slopes import LAST_GRADIENT
from normlab.archive import tags

NAME = "probe"
MOST_ARMS = 12

_HEIGHT = 4.7  # inches
# The panels: title, what is drawn of a model, whether on a logarithmic axis.
_AGAINST_BLOCK: tuple[tuple[str, Callable[[ProbedModel], Sequence[float]], bool], ...] = (
    ("Stream RMS", lambda model: model.by_block(tags.STREAM_RMS), True),
    ("Gradient, stream", lambda model: model.by_block(tags.STREAM_GRADIENT), True),
    ("Gradient, feed-forward", lambda model: model.by_block(tags.PARAMETER_GRADIENT), True),
    (
        # arccos(cosine) / π between the stream before and after a block, as in 2502.05795.
        "Angle of a block (÷ 180°)",
        lambda model: [
            model.value(tags.ANGLE, f"block_{block:02d}") for block in range(1, model.depth + 1)
        ],
        False,
    ),
)
_AGAINST_DEPTH: tuple[tuple[str, Callable[[ProbedModel], float]], ...] = (
    (
        "Variance, last block",
        lambda model: model.value(tags.STREAM_VARIANCE, feedforward_site(model.depth)),
    ),
    ("Gradient, last feed-forward", lambda model: model.last_gradient),
)


def draw_probes(result: ProbeResult, folder: Path) -> list[Path]:
    """Write `probe.png` and `probe.svg` into the folder; returns their paths. Raises OSError."""
    with figure_style():
        return sheet.save_figure(_build_figure(result), folder, NAME)


def _build_figure(result: ProbeResult) -> Figure:
    styles = _arm_styles(result)
    handles: list[Artist] = [Line2D([], [], **style, ms=4) for style in styles.values()]
    labels = [f"{arm}{_format_slope(result.slope(arm, LAST_GRADIENT))}" for arm in styles]
    depths = result.depths
    blocks = f"{', '.join(map(str, depths))} block{'s' * (depths != [1])}"
    title = f"At initialization: {blocks}, one batch a seed"
    figure, body = sheet.create_sheet(title, _write_note(result), (handles, labels), _HEIGHT)
    panels = body.subplots(2, 3).ravel()
    # Four of the six panels; the last two, against depth, are drawn below.
    for axes, (title, values_of, log) in zip(panels, _AGAINST_BLOCK, strict=False):
        axes.set_title(title)
        for arm, style in styles.items():
            deepest = max(model.depth for model in result.models_of(arm))
            # (seeds, blocks)
            values = np.array([values_of(m) for m in result.models_of(arm, deepest)], float)
            _draw_seeds(axes, values, style)
        if log and axes.get_lines():
            set_log_scale(axes)
        axes.set_xlabel("block")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axes, (title, value_of) in zip(panels[4:], _AGAINST_DEPTH, strict=True):
        axes.set_title(title)
        for arm, style in styles.items():
            _draw_depths(axes, [(m.depth, value_of(m)) for m in result.models_of(arm)], style)
        axes.set_xlabel("blocks in the model")
        set_log_scale(axes)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(depths))
        # matplotlib would label a logarithmic axis in powers of ten, and its minor ticks as well.
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
    return figure


def _arm_styles(result: ProbeResult) -> dict[str, dict[str, Any]]:
    """Colour, line and marker of the arms drawn.

    Norms differ by colour and placements by line; where more varies, a colour an arm.
    """
    models = {arm: result.models_of(arm)[0] for arm in result.arms[:MOST_ARMS]}
    plain = not any(model.settings for model in models.values())
    arms = {
        name: Arm(model.norm, model.placement, (), ()) if plain else Arm(name, "any", (), ())
        for name, model in models.items()
    }
    look = Look.of(list(arms.values()))
    return {
        name: {"color": look.colour(arm), "ls": look.line(arm), "marker": look.marker(arm)}
        for name, arm in arms.items()
    }


def _draw_seeds(axes: Axes, values: np.ndarray, style: dict[str, Any]) -> None:
    """The mean over seeds by block, and a band from lowest to highest; values (seeds, blocks)."""
    if not np.isfinite(values).any():
        return
    blocks = np.arange(1, values.shape[1] + 1)
    axes.plot(blocks, values.mean(0), **{**style, "marker": ""})
    if len(values) > 1:
        axes.fill_between(
            blocks, values.min(0), values.max(0), color=style["color"], alpha=0.15, lw=0
        )


def _draw_depths(axes: Axes, points: list[tuple[int, float]], style: dict[str, Any]) -> None:
    """The seeds as points and their mean as a line, against the number of blocks."""
    depths = sorted({depth for depth, _ in points})
    means = [np.mean([value for depth_, value in points if depth_ == depth]) for depth in depths]
    axes.plot(depths, means, **style, ms=4)
    axes.plot(*zip(*points, strict=True), ".", color=style["color"], ms=2.5, alpha=0.5)


def _format_slope(slope: ModelSlope | None) -> str:
    return "" if slope is None or slope.mean is None else f": slope {slope}"


def _write_note(result: ProbeResult) -> str:
    several_seeds = len({model.seed for model in result.measurements}) > 1
    band = "Line: mean over seeds; band: lowest to highest seed."
    lines = [
        "Gradients are those of the mean loss; values after each block's feed-forward. "
        + (band if several_seeds else "One seed: no band.")
    ]
    if len(result.depths) > 1:
        lines.append(
            "Against the block: the deepest model of each arm. Slope: of log gradient norm of the "
            "last feed-forward on log blocks" + (", ± 95 % t-interval over seeds." * several_seeds)
        )
    hidden = len(result.arms) - MOST_ARMS
    if hidden > 0:
        lines.append(f"The first {MOST_ARMS} arms are drawn; {hidden} more are in probe.json.")
    return "\n".join(lines)
