"""The figure of a learning-rate study: the loss by rate, LR sensitivity, each arm at its best."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.gridspec import GridSpecBase
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from normlab.analysis import page, panels
from normlab.analysis.arms import Facet, facets
from normlab.analysis.curves import MOST_FALL
from normlab.analysis.learning_rates import LearningRates, Point, RatedArm
from normlab.analysis.plan import MOST_FACETS
from normlab.analysis.statistics import mean_interval
from normlab.analysis.style import GREY, Look
from normlab.archive.record import short_number

MOST_ROWS = 24
MOST_CURVES = 12  # arms by name: they lie closer together than over steps

_PAD = 0.06
_NAMES_WIDTH = 2.1  # inches

_Limits = tuple[float, float]


def learning_rate(study: str, rates: LearningRates) -> Figure:
    """Final loss over the learning rate, a panel a facet; below it sensitivity and tuned loss."""
    rated = {id(one.arm): one for one in rates.arms}
    ranked = sorted(rates.arms, key=lambda one: one.tuned_mean)
    every = facets([one.arm for one in rates.arms])
    shown = _shown(every, ranked, rated)
    rows, curves = ranked[:MOST_ROWS], [arm for facet in shown for arm in facet.arms]
    look = Look.of([*curves, *(one.arm for one in rows)])
    lines, columns = page.grid_shape(len(shown))
    above, below = (3.2 if lines == 1 else 2.1) * lines, 0.24 * len(rows) + 0.9
    legend = panels.legend_entries(curves, look, endings=False)
    title = f"Final validation loss over the learning rate: {study}"
    names = len({arm.name for facet in every for arm in facet.arms})
    hidden = {
        "combinations of settings": len(every) - len(shown),
        "curves of arms": names - len({arm.name for arm in curves}),
        "rows": len(ranked) - len(rows),
    }
    note = _note(rates, hidden)
    figure, body = page.sheet(title, note, legend, above + below)
    # Two grids: long names below must not press the curves together.
    outer = body.add_gridspec(2, 1, height_ratios=[above, below])
    _draw_facets(body, outer[0].subgridspec(lines, columns), shown, rated, look)
    _draw_rows(body, outer[1].subgridspec(1, 2), rows, look)
    return figure


def _shown(
    every: Sequence[Facet], ranked: Sequence[RatedArm], rated: Mapping[int, RatedArm]
) -> list[Facet]:
    """The best facets, in their order, each with the best arms."""
    names = list(dict.fromkeys(one.arm.name for one in ranked))[:MOST_CURVES]
    best = sorted(every, key=lambda one: min(rated[id(arm)].tuned_mean for arm in one.arms))
    kept = [
        (facet, tuple(arm for arm in facet.arms if arm.name in names))
        for facet in every
        if facet in best[:MOST_FACETS]
    ]
    return [replace(facet, arms=arms) for facet, arms in kept if arms]


def _draw_facets(
    body: SubFigure,
    grid: GridSpecBase,
    shown: Sequence[Facet],
    rated: Mapping[int, RatedArm],
    look: Look,
) -> None:
    arms = [rated[id(arm)] for facet in shown for arm in facet.arms]
    limits, columns = _limits(arms), grid.ncols
    first: Axes | None = None
    for at, facet in enumerate(shown):
        place, lowest = grid[at // columns, at % columns], at + columns >= len(shown)
        title = page.panel_title(facet.title, columns)
        axes = body.add_subplot(place, title=title, sharex=first, sharey=first)
        first = first or axes
        _draw_rates(axes, [rated[id(arm)] for arm in facet.arms], look, limits)
        _ticks(axes, arms, sparse=columns == 3)
        axes.set_xlabel("learning rate" if lowest else "")
        axes.set_ylabel(panels.LOSS_LABEL if at % columns == 0 else "")
        axes.tick_params(labelleft=at % columns == 0, labelbottom=lowest)


def _draw_rates(axes: Axes, arms: Sequence[RatedArm], look: Look, limits: _Limits) -> None:
    """The loss of each arm by rate, the loss at initialisation, and above it what diverged."""
    axes.set_xscale("log")
    axes.set_ylim(*limits)
    initial = [one.initial for one in arms if not math.isnan(one.initial)]
    if initial:
        start, above = max(initial), max(initial) > limits[1]
        axes.axhline(start, color=GREY, lw=1.0, ls=(0, (4, 2)), zorder=1)
        axes.annotate(
            f"at initialisation {start:.2f}{', above the axes' if above else ''}",
            xy=(0.01, min(start, limits[1])), xycoords=axes.get_yaxis_transform(),
            xytext=(0, -2.5), textcoords="offset points", va="top", fontsize=7.5, color=GREY,
        )  # fmt: skip
    lost = [one for one in arms if one.diverged]
    for one in arms:
        _draw_curve(axes, one, look)
    top, room = limits[1], _PAD * (limits[1] - limits[0])
    for line, one in enumerate(lost):
        height = top - room * (0.5 + 2.2 * line / max(3, len(lost)))
        for point in one.points:
            if point.diverged:
                _draw_lost(axes, one, point, look, height)


def _draw_curve(axes: Axes, one: RatedArm, look: Look) -> None:
    colour = look.colour(one.arm)
    drawn = [(point.rate, losses) for point in one.points if (losses := shown_losses(point))]
    if not drawn:
        return
    rates = [rate for rate, _ in drawn]
    means = [mean_interval(losses)[0] for _, losses in drawn]
    low, high = ([edge(losses) for _, losses in drawn] for edge in (min, max))
    axes.fill_between(rates, low, high, color=colour, alpha=0.16, lw=0, zorder=1.5)
    marker = look.marker(one.arm)
    axes.plot(rates, means, color=colour, ls=look.line(one.arm), marker=marker, ms=3.5, zorder=3)
    if one.best is not None:
        at = [one.best.rate], [mean_interval(shown_losses(one.best))[0]]
        axes.plot(*at, marker, color=colour, ms=8, mec="white", mew=1.0, zorder=4)


def shown_losses(point: Point) -> list[float]:
    """The finished losses of a point, none above its initial loss: so the sensitivity counts."""
    return [min(loss, point.capped.get(seed, loss)) for seed, loss in point.losses.items()]


def _draw_lost(axes: Axes, one: RatedArm, point: Point, look: Look, height: float) -> None:
    colour, total = look.colour(one.arm), len(point.arm.runs)
    axes.plot([point.rate], [height], "x", color=colour, mew=1.8, ms=6, zorder=5)
    if point.diverged < total:
        axes.annotate(
            f"{point.diverged}/{total}", xy=(point.rate, height), xytext=(5, 0),
            textcoords="offset points", va="center", fontsize=7, color=colour,
        )  # fmt: skip


def _ticks(axes: Axes, arms: Sequence[RatedArm], *, sparse: bool) -> None:
    rates = sorted({point.rate for one in arms for point in one.points})
    every = 2 if sparse and len(rates) > 4 else max(1, len(rates) // 10)
    axes.xaxis.set_major_locator(FixedLocator(rates))
    axes.xaxis.set_minor_locator(NullLocator())
    words = [short_number(rate) if at % every == 0 else "" for at, rate in enumerate(rates)]
    axes.set_xticks(rates, words)


def _draw_rows(body: SubFigure, grid: GridSpecBase, arms: Sequence[RatedArm], look: Look) -> None:
    """LR sensitivity and the loss at the best rate, a row an arm."""
    tuned = body.add_subplot(grid[0, 0], title="Loss at its own best rate")
    across = body.add_subplot(grid[0, 1], title="LR sensitivity", sharey=tuned)
    across.set_xlim(*_sensitivity_limits(arms))
    tuned.set_xlim(*panels.final_limits([one.best.arm for one in arms if one.best]))
    for row, one in enumerate(arms):
        if one.best is not None:
            panels.draw_values(tuned, one.arm, look, row, list(one.tuned.values()))
            _beside(tuned, row, f"at {short_number(one.best.rate)}")
        else:
            _beside(tuned, row, "none")
        values = list(one.sensitivity.values())
        if values:
            panels.draw_values(across, one.arm, look, row, values)
    for axes in (tuned, across):
        axes.set_ylim(len(arms) - 0.4, -0.6)
        page.name_rows(axes, [one.name for one in arms], _NAMES_WIDTH)
        axes.set_xlabel("nats per token")
        axes.xaxis.set_major_locator(MaxNLocator(5))
    across.tick_params(labelleft=False)


def _sensitivity_limits(arms: Sequence[RatedArm]) -> _Limits:
    """From just below zero; a wide interval of few seeds is cut, as in `panels.final_limits`."""
    every = [list(one.sensitivity.values()) for one in arms if one.sensitivity]
    high = max((value for values in every for value in values), default=1.0)
    ends = [mean + half for mean, half in map(mean_interval, every) if half < 0.5 * high]
    high = max([high, *ends, 1e-6])
    return -0.04 * high, 1.06 * high


def _beside(axes: Axes, row: int, words: str) -> None:
    at = axes.get_yaxis_transform()
    axes.text(1.01, row, words, transform=at, va="center", fontsize=7.5, color=GREY)


def _limits(arms: Sequence[RatedArm]) -> _Limits:
    """From below the lowest loss to above the highest, with room for what diverged.

    That is at most the initial loss, which is shown too unless it presses the curves flat.
    """
    losses = [loss for one in arms for point in one.points for loss in shown_losses(point)]
    initial = [one.initial for one in arms if not math.isnan(one.initial)]
    if not losses + initial:
        return 0.0, 1.0
    low, high = min(losses + initial), max(losses, default=math.nan)
    start = max(initial, default=high)
    if not start - low > MOST_FALL * (high - low) > 0:
        high = start
    span = max(high - low, 1e-3)
    return low - _PAD * span, high + 4 * _PAD * span


def _note(rates: LearningRates, hidden: Mapping[str, int]) -> str:
    several = any(len(point.losses) > 1 for one in rates.arms for point in one.points)
    band = ", the band from the lowest to the highest seed" if several else ", one seed"
    lines = [
        f"Curves: mean of the finished runs{band}; a loss above that at initialisation is drawn at "
        "it. Larger:",
        "the arm's best rate. LR sensitivity (arXiv 2309.14322): mean over the grid of min(loss, "
        "loss at initialisation) − the lowest;",
        "an arm that learns nothing at any rate has a low one too. Intervals: 95 % t over seeds; "
        "an arrowhead: beyond the panel.",
    ]
    left_out = ", ".join(f"{count} {what}" for what, count in hidden.items() if count)
    if left_out:
        lines.append(f"Not shown, with a higher loss: {left_out}; runs.csv holds all.")
    return "\n".join(lines)
