"""The figure of `experiment=norm_comparison`: one shared rate, every rate, each arm's own best."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from normlab.analysis import page, panels
from normlab.analysis.arms import Arm, format_value
from normlab.analysis.curves import loss_limits
from normlab.analysis.statistics import mean_interval
from normlab.analysis.style import GREY, Look
from normlab.apps.experiments.norm_comparison import shared_rate
from normlab.apps.experiments.trials import Trial, best, best_arms, by, rate, trials
from normlab.apps.experiments.u_curve import (
    crosses,
    dotted,
    draw_all,
    frame,
    limits,
    without_context,
)
from normlab.archive.study import Study

_CURVES, _ROW, _NAMES_WIDTH = 2.9, 0.27, 2.4  # inches


def draw(study: Study) -> Figure:
    """Training at one rate, final loss at every rate, and each arm at its own best."""
    found, hidden = best_arms(trials(study))
    arms = by(lambda trial: trial.name, found)
    look = Look.of([trial.arm for trial in found])
    shared = shared_rate(found)
    heights = [_CURVES, 0.85 + _ROW * len(arms)]
    handles, _ = panels.legend_entries([some[0].arm for some in arms.values()], look)
    legend = handles, list(arms)
    figure, body = page.sheet(
        f"Does it need a norm? {study.name}", _note(found) + hidden, legend, sum(heights)
    )
    # Grids of their own: long names below must not press the curves together.
    outer = body.add_gridspec(2, 1, height_ratios=heights)
    above = outer[0].subgridspec(1, 2)
    training, over_rates = body.add_subplot(above[0]), body.add_subplot(above[1])
    _at_one_rate(training, [trial.arm for trial in found if trial.rate == shared], look, shared)
    over_rates.set_title("Final loss at every rate")
    frame(over_rates, list(by(lambda trial: trial.rate, found)), limits(found))
    without_context(over_rates, found)
    draw_all(over_rates, found, look)
    _tuned(body.add_subplot(outer[1].subgridspec(1, 1)[0]), arms, look)
    return figure


def _note(found: Sequence[Trial]) -> str:
    seeds = max(len(trial.losses) for trial in found)
    spread = (
        "Every seed a small dot; on the left the band from the lowest to the highest seed; "
        "below the 95 % t-interval."
        if seeds > 1
        else "One seed: no interval."
    )
    return f"{crosses(found)}\n{spread}{dotted(found)}"


def _at_one_rate(axes: Axes, arms: list[Arm], look: Look, shared: float | None) -> None:
    if shared is None:
        axes.set_title("No rate at which all finish")
        axes.set_axis_off()
        return
    axes.set_title(f"Training loss, all at {rate(shared)}")
    panels.training_loss(axes, arms, look, loss_limits(arms))


def _tuned(axes: Axes, arms: dict[str, list[Trial]], look: Look) -> None:
    """A row an arm: its final loss at its own best rate, or why it has none."""
    tuned = {name: best(some) for name, some in arms.items()}
    rows = sorted(tuned, key=lambda name: one.mean if (one := tuned[name]) else float("inf"))
    axes.set_title("Each at its own best rate")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    page.name_rows(axes, rows, _NAMES_WIDTH)
    axes.set_xlabel(f"final validation {panels.LOSS_LABEL}")
    axes.set_xlim(*panels.final_limits([one.arm for one in tuned.values() if one]))
    across = axes.get_yaxis_transform()
    for row, name in enumerate(rows):
        trial = tuned[name]
        if trial is None:
            axes.text(0.02, row, "finishes at no rate", transform=across, va="center", color=GREY)
            continue
        values = list(trial.losses.values())
        mean, half = mean_interval(values)
        colour = look.colour(trial.arm)
        axes.plot(values, [row] * len(values), "o", color=colour, ms=4, alpha=0.4, mew=0)
        panels.draw_interval(axes, mean, half, row, colour)
        axes.plot([mean], [row], look.marker(trial.arm), color=colour, ms=6.5, mec="white", mew=0.9)
        width = "" if half != half else f" ± {half:.3f}"
        told = f"{mean:.3f}{width} at {format_value(trial.rate)}"
        axes.text(1.02, row, told, transform=across, va="center", fontsize=8.5)
