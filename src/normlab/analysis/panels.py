"""Drawing on one Axes: a loss over steps, and what every arm ended at."""

import math
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.markers import CARETLEFT, CARETRIGHT, MarkerStyle
from matplotlib.ticker import MaxNLocator

from normlab.analysis.arms import Arm
from normlab.analysis.curves import (
    Curve,
    averaged_runs,
    data_floors,
    describe_ending,
    ends_early,
    last_finite_loss,
    mean_curve,
    name_with_ending,
    piecewise_curve,
    single_runs,
)
from normlab.analysis.formatting import format_interval
from normlab.analysis.sheet import add_tooltip, name_rows
from normlab.analysis.statistics import mean_interval, mean_or_infinity
from normlab.analysis.style import DOTTED, GREY, INK, LineStyle, Look
from normlab.archive import tags

LOSS_LABEL = "loss (nats per token)"
STEP_LABEL = "optimizer step"

_MARKERS_PER_CURVE = 15


def draw_loss(
    axes: Axes, arms: Sequence[Arm], look: Look, limits: tuple[float, float], tag: str
) -> None:
    """A loss over steps, the training loss or, by its `tag`, the validation loss.

    Training loss is smoothed, and the measured values stand faint behind a single seed; validation
    loss has a marker at every measurement. `limits` are those of the loss axis, in nats per token.
    """
    is_training = tag == tags.TRAIN_LOSS
    axes.set_xlabel(STEP_LABEL)
    axes.set_ylabel(LOSS_LABEL)
    axes.set_ylim(*limits)
    axes.margins(x=0.02)
    # A step is a whole number.
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    # The floor is that of the validation windows; by luck a training batch may be easier.
    meaning = " of the validation windows" if is_training else ": no model can do better"
    for floor in data_floors(arms):
        # Below the floor no curve can be, so there is room for words.
        draw_level(axes, floor, f"floor {floor:.2f}{meaning}", DOTTED, right=True)
    for arm in arms:
        together = mean_curve(averaged_runs(arm), tag, smooth=is_training)
        if together:
            draw_mean_curve(axes, arm, look, together, "" if is_training else look.marker(arm))
            if is_training and together.runs == 1:
                colour = look.colour(arm)
                axes.plot(together.steps, together.raw, color=colour, lw=0.7, alpha=0.16, zorder=1)
        _draw_single_runs(axes, arm, look, tag, limits)


def draw_level(
    axes: Axes, height: float, words: str, dashes: LineStyle, *, right: bool = False
) -> None:
    """A grey line across a panel at one loss, with words below its left or right end."""
    axes.axhline(height, color=GREY, lw=1.0, ls=dashes, zorder=1)
    at, side = (0.98, "right") if right else (0.01, "left")
    # The panel may end below the line.
    axes.annotate(
        words, xy=(at, min(height, axes.get_ylim()[1])), xycoords=axes.get_yaxis_transform(),
        xytext=(0, -2.5), textcoords="offset points", ha=side, va="top", fontsize=7.5, color=GREY,
    )  # fmt: skip


def draw_final_losses(
    axes: Axes,
    arms: Sequence[Arm],
    look: Look,
    rows: Sequence[str],
    limits: tuple[float, float] | None,
    *,
    numbers: bool = True,
) -> None:
    """Final validation loss of every arm: each seed a small dot, the mean, its 95 % t-interval.

    `rows` are the arms' names from top to bottom; an arm without a finished run says how it ended.
    `limits` are those of the loss axis, None where no run has finished. With `numbers`, mean and
    interval stand beside the row; without, names are shorter, as in one of several panels.
    """
    axes.set_ylim(len(rows) - 0.1, -0.6)  # downwards: the first row is the highest
    name_rows(axes, rows, 2.6 if numbers else 1.5)  # inches
    if limits is None:
        omit_scale(axes, "no run has finished")
    else:
        axes.set_xlabel(LOSS_LABEL if numbers else "nats per token")
        axes.set_xlim(*limits)
        for floor in data_floors(arms):
            axes.axvline(floor, color=GREY, lw=1.0, ls=DOTTED, zorder=1)
            outside = floor < limits[0]
            axes.annotate(
                f"← floor {floor:.2f}" if outside else f"floor {floor:.2f}",
                xy=(max(floor, limits[0]), len(rows) - 0.3),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                color=GREY,
            )
    across = axes.get_yaxis_transform()
    for arm in arms:
        row = rows.index(arm.name)
        values = arm.final_losses
        if values:
            draw_seed_values(axes, arm, look, row, values)
            _count_diverged(axes, arm, row)
        else:
            text = axes.text(
                0.025, row, describe_ending(arm), transform=across, va="center", fontsize=8
            )
            text.set(color=GREY, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
        if numbers and values:
            loss = format_interval(*mean_interval(values))
            axes.text(1.02, row, loss, transform=across, va="center", fontsize=8.5)


def _count_diverged(axes: Axes, arm: Arm, row: int) -> None:
    """Beside the mean how many runs it is without, because they diverged.

    By its dots alone an arm of one run that survived looks like one that always ends there.
    """
    diverged = len(arm.with_state("diverged"))
    if not diverged:
        return
    mean, _ = mean_interval(arm.final_losses)
    left, right = axes.get_xlim()
    inwards = 1 if mean < (left + right) / 2 else -1
    axes.annotate(
        f"{diverged} of {len(arm.runs)} diverged",
        xy=(mean, row),
        xytext=(-4 * inwards, -4.5),
        textcoords="offset points",
        ha="left" if inwards > 0 else "right",
        va="top",
        fontsize=7,
        color=GREY,
    )


def omit_scale(axes: Axes, reason: str) -> None:
    """Leave out the horizontal scale of a panel without values, and say in its place why."""
    axes.set_xticks([])
    axes.set_xlabel(reason)


def row_names(arms: Sequence[Arm]) -> list[str]:
    """The arms' names, lowest mean final validation loss first, those without one last."""
    losses: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for arm in arms:
        losses[arm.name] += arm.final_losses
    return sorted(losses, key=lambda name: mean_or_infinity(losses[name]))


def final_limits(
    arms: Sequence[Arm], losses: Sequence[Sequence[float]] | None = None
) -> tuple[float, float] | None:
    """Limits of the final loss, in nats per token: every seed, and the floor if it is near.

    None where there is no loss.

    An interval from two or three seeds can be many times wider than what was measured; it is cut
    at the edge rather than allowed to press the dots together. `losses` are drawn in place of the
    arms' final losses.
    """
    losses = losses or [arm.final_losses for arm in arms]
    values = [value for of_arm in losses for value in of_arm]
    if not values:
        return None
    low, high = min(values), max(values)
    span = max(high - low, 0.02 * abs(high))
    for of_arm in losses:
        mean, half = mean_interval(of_arm)
        if half < 0.5 * span:
            low, high = min(low, mean - half), max(high, mean + half)
    low = min([low, *(floor for floor in data_floors(arms) if low - floor < 2 * span)])
    pad = max(0.06 * (high - low), (span - (high - low)) / 2)
    return low - pad, high + pad


def legend_entries(
    arms: Sequence[Arm], look: Look, *, endings: bool = True
) -> tuple[list[Artist], list[str]]:
    """Handles and labels, one for every arm by name.

    With `endings` an arm that did not wholly finish says so; without, one entry explains the ×.
    """
    named = {arm.name: arm for arm in arms}
    handles: list[Artist] = [
        Line2D([], [], color=look.colour(arm), ls=look.line(arm), marker=look.marker(arm), ms=4)
        for arm in named.values()
    ]
    labels = [name_with_ending(name, arm) if endings else name for name, arm in named.items()]
    if not endings and any(arm.with_state("diverged") for arm in arms):
        handles.append(Line2D([], [], color=INK, marker="x", ls="none", ms=6, mew=1.6))
        labels.append("diverged")
    return handles, labels


def draw_mean_curve(axes: Axes, arm: Arm, look: Look, curve: Curve, marker: str = "") -> None:
    """An arm's mean curve with the band of its seeds."""
    colour = look.colour(arm)
    if curve.runs > 1:
        axes.fill_between(
            curve.steps, curve.low, curve.high, color=colour, alpha=0.16, lw=0, zorder=1.5
        )
    (line,) = axes.plot(
        curve.steps,
        curve.mean,
        color=colour,
        ls=look.line(arm),
        marker=marker,
        ms=3.2,
        markevery=math.ceil(len(curve.steps) / _MARKERS_PER_CURVE),
        zorder=3,
        label=arm.name,
    )
    over = "" if curve.runs == 1 else f", mean over {curve.runs} seeds"
    add_tooltip(line, f"{arm.label}: {curve.mean[-1]:.4f} at step {curve.steps[-1]}{over}")
    if any(map(ends_early, averaged_runs(arm))):
        _mark_open_end(axes, int(curve.steps[-1]), float(curve.mean[-1]), colour)


def _mark_open_end(axes: Axes, step: int, loss: float, colour: str) -> None:
    """An open circle beside which steps of a curve are missing."""
    axes.plot([step], [loss], "o", color=colour, mfc="white", mew=1.2, ms=5.5, zorder=5)


def _draw_single_runs(
    axes: Axes, arm: Arm, look: Look, tag: str, limits: tuple[float, float]
) -> None:
    """The runs outside the mean, thin; a × where one diverged, a circle where steps are missing."""
    colour = look.colour(arm)
    for run in single_runs(arm):
        pieces, open_points = piecewise_curve(run, tag, smooth=tag == tags.TRAIN_LOSS)
        for piece in pieces:
            # A single point is no line, and would not be seen.
            marker = look.marker(arm) if len(piece[0]) == 1 else ""
            (line,) = axes.plot(
                *piece, color=colour, ls=look.line(arm), lw=1.0, marker=marker, ms=3.2, alpha=0.8,
                zorder=2.5,
            )  # fmt: skip
            add_tooltip(line, f"{run.record.name}, {run.record.state}")
        for point in open_points:
            _mark_open_end(axes, *point, colour)
        end = last_finite_loss(run)
        if end:
            step, loss = end
            top = limits[1] - 0.03 * (limits[1] - limits[0])
            (cross,) = axes.plot(
                [step], [min(loss, top)], "x", color=colour, mew=1.8, ms=7, zorder=5
            )
            cross.set_clip_on(False)  # at an edge it would be half cut
            add_tooltip(
                cross, f"{run.record.name}: diverged; {loss:.4f} at step {step} before it did"
            )


def draw_seed_values(axes: Axes, arm: Arm, look: Look, row: int, values: list[float]) -> None:
    """One number of an arm in its row: each seed a small dot, the mean, its 95 % t-interval."""
    colour = look.colour(arm)
    mean, half = mean_interval(values)
    if len(values) > 1:
        (dots,) = axes.plot(
            values, [row] * len(values), "o", color=colour, ms=4, alpha=0.4, mew=0, zorder=2
        )
        add_tooltip(
            dots, f"{arm.label}, each seed: {', '.join(f'{value:.4f}' for value in values)}"
        )
        draw_interval(axes, mean, half, row, colour)
    marker = look.marker(arm)
    (middle,) = axes.plot(
        [mean], [row], marker, color=colour, ms=6.5, mec="white", mew=0.9, zorder=4
    )
    add_tooltip(middle, f"{arm.label}: {format_interval(mean, half)}")


def draw_interval(axes: Axes, mean: float, half: float, row: float, colour: str) -> None:
    """The interval as a line; an arrowhead where it goes on beyond the panel's limits.

    Call it when the limits of x are set.
    """
    if not math.isfinite(half):
        return
    left, right = sorted(axes.get_xlim())
    low, high = max(mean - half, left), min(mean + half, right)
    axes.plot([low, high], [row, row], color=colour, lw=1.6, zorder=3)
    for end, edge, head in ((mean - half, left, CARETLEFT), (mean + half, right, CARETRIGHT)):
        if not left <= end <= right:  # without clipping, or half of the head would be cut
            axes.scatter(
                [edge], [row], s=36, marker=MarkerStyle(head), color=colour, clip_on=False, zorder=4
            )
    axes.set_xlim(left, right)
