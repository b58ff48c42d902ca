"""The panels of the trained experiments: final loss by learning rate, and at the best rates."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter

from normlab.analysis import panels, sheet
from normlab.analysis.arms import format_value
from normlab.analysis.curves import loss_limits
from normlab.analysis.statistics import mean_interval
from normlab.analysis.style import DOTTED, GREY, Look
from normlab.apps.experiments.trials import (
    Trial,
    best_shared_rate,
    best_trial,
    format_rate,
    group_trials,
)
from normlab.archive import tags

_MOST_ARMS = 12  # in a figure
# Inches: the panels above the rows of the best rates, a row, and its name.
_PANELS_HEIGHT, _ROW_HEIGHT, _NAMES_WIDTH = 2.9, 0.27, 2.4
# Shares of the span of losses that stay free: below, above, and for every row of crosses.
_BELOW, _ABOVE, _CROSSES = 0.06, 0.04, 0.07


def lowest_arms(trials: Sequence[Trial]) -> tuple[list[Trial], str]:
    """The trials of the arms with the lowest losses, and a line about those that are left out."""
    arms = group_trials(trials, "name")
    order = sorted(arms, key=lambda name: _best_mean(arms[name]))
    if len(order) <= _MOST_ARMS:
        return list(trials), ""
    note = f"\nThe {_MOST_ARMS} of {len(order)} arms with the lowest losses; runs.csv holds all."
    return [trial for trial in trials if trial.name in order[:_MOST_ARMS]], note


def _best_mean(arm: Sequence[Trial]) -> float:
    best = best_trial(arm)
    return best.mean if best else math.inf


def write_note(
    trials: Sequence[Trial], several_seeds: str, single_seed: str, best_rates: bool = True
) -> str:
    """What crosses, hollow points, small dots and the dotted line are, where there are any.

    `best_rates` tells that the figure has the panel of `draw_best_rates`.
    """
    crosses = ""
    if any(trial.diverged for trial in trials):
        crosses = "× diverged: a gradient or loss that is not finite, or a loss far above a guess."
        if any(trial.diverged and trial.losses for trial in trials):
            crosses += " Hollow: the mean of those that did not, where others did."
        crosses += "\n"
    spread = several_seeds if max(len(trial.losses) for trial in trials) > 1 else single_seed
    unigrams = " or ".join(f"{unigram:.2f}" for unigram in _unigram_losses(trials))
    dotted = f" Dotted: token frequencies alone, {unigrams}." if unigrams else ""
    windows = trials[0].windows if best_rates else ""
    best = f" Each at its own best rate{windows}." if windows else ""
    return f"{crosses}{spread}{best}{dotted}"


def _unigram_losses(trials: Iterable[Trial]) -> list[float]:
    return sorted({trial.unigram for trial in trials if trial.unigram is not None})


def create_sheet(
    title: str, note: str, legend: sheet.Legend, arms: dict[str, list[Trial]], look: Look
) -> tuple[Figure, Axes, Axes]:
    """A figure of the arms at their own best rates, and two empty panels above these."""
    heights = [_PANELS_HEIGHT, 0.85 + _ROW_HEIGHT * len(arms)]
    figure, body = sheet.create_sheet(title, note, legend, sum(heights))
    # Grids of their own: long names below must not press the panels together.
    outer = body.add_gridspec(2, 1, height_ratios=heights)
    top, below = outer[0].subgridspec(1, 2), outer[1].subgridspec(1, 1)
    left, right = body.add_subplot(top[0]), body.add_subplot(top[1])
    draw_best_rates(body.add_subplot(below[0]), arms, look)
    return figure, left, right


def draw_shared_rate(axes: Axes, trials: Sequence[Trial], look: Look) -> None:
    """Training loss of all arms at the shared rate, if there is one at which all finish."""
    rate = best_shared_rate(trials)
    if rate is None:
        axes.set_title("No rate at which all finish")
        axes.set_axis_off()
        return
    axes.set_title(f"Training loss, all at {format_rate(rate)}")
    arms = [trial.arm for trial in trials if trial.rate == rate]
    panels.draw_loss(axes, arms, look, loss_limits(arms), tags.TRAIN_LOSS)


def draw_best_rates(axes: Axes, arms: dict[str, list[Trial]], look: Look) -> None:
    """A row an arm: its final loss at its own best rate, or why it has none."""
    order = sorted(arms, key=lambda name: _best_mean(arms[name]))
    rows = {name: best_trial(arms[name]) for name in order}
    axes.set_title("Each at its own best rate")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    sheet.name_rows(axes, list(rows), _NAMES_WIDTH)
    finished = [trial for trial in rows.values() if trial]
    losses = [list(trial.losses.values()) for trial in finished]
    limits = panels.final_limits([trial.arm for trial in finished], losses)
    if limits is None:
        panels.omit_scale(axes, "no arm finishes at any rate")
    else:
        axes.set_xlabel(f"final validation {panels.LOSS_LABEL}")
        axes.set_xlim(*limits)
    # x in shares of the panel, y in rows.
    across = axes.get_yaxis_transform()
    for row, trial in enumerate(rows.values()):
        if trial is None:
            axes.text(0.02, row, "finishes at no rate", transform=across, va="center", color=GREY)
            continue
        values = list(trial.losses.values())
        mean, half = mean_interval(values)
        colour = look.colour(trial.arm)
        axes.plot(values, [row] * len(values), "o", color=colour, ms=4, alpha=0.4, mew=0)
        panels.draw_interval(axes, mean, half, row, colour)
        axes.plot([mean], [row], look.marker(trial.arm), color=colour, ms=6.5, mec="white", mew=0.9)
        label = f"{trial.loss} at {format_value(trial.rate)}"
        axes.text(1.02, row, label, transform=across, va="center", fontsize=8.5)


def _format_axes(axes: Axes, trials: Sequence[Trial]) -> None:
    """A logarithmic axis with a tick at every rate; losses with room for crosses at the top."""
    rates = sorted(group_trials(trials, "rate"))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(rates))
    axes.set_xticklabels([format_value(rate) for rate in rates])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.margins(x=0.08)
    axes.set_xlim(rates[0] / 1.5, rates[-1] * 1.5)
    values = [loss for trial in trials for loss in trial.losses.values()]
    values += _unigram_losses(trials)
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    span = max(high - low, 0.02 * abs(high))
    diverged = len({trial.name for trial in trials if trial.diverged})
    axes.set_ylim(low - _BELOW * span, high + (_ABOVE + _CROSSES * diverged) * span)
    axes.set_xlabel("learning rate")
    axes.set_ylabel(f"final {panels.LOSS_LABEL}")


def draw_losses_by_rate(
    axes: Axes, trials: Sequence[Trial], all_trials: Sequence[Trial], look: Look
) -> None:
    """Every arm's curve, and a dotted line at the loss of token frequencies alone.

    The axes are those of all trials of the figure.
    Those that diverged have a row of crosses each, above all losses. The line is the mean over the
    rates at which all runs finished; where some diverged, that of the survivors is a hollow point.
    """
    _format_axes(axes, all_trials)
    for unigram in _unigram_losses(trials):
        axes.axhline(unigram, color=GREY, lw=1.0, ls=DOTTED, zorder=1)
    low, high = axes.get_ylim()
    crosses_y = high - 0.03 * (high - low)
    for arm_trials in group_trials(trials, "name").values():
        arm = arm_trials[0].arm
        colour, marker = look.colour(arm), look.marker(arm)
        ordered = sorted(arm_trials, key=lambda trial: trial.rate)
        for trial in ordered:
            if len(trial.losses) > 1:
                rates = [trial.rate] * len(trial.losses)
                losses = list(trial.losses.values())
                axes.plot(rates, losses, marker, color=colour, ms=3, alpha=0.45, mew=0)
        complete = [(t.rate, t.mean) for t in ordered if t.complete]
        survivors = [(t.rate, t.mean) for t in ordered if t.losses and not t.complete]
        x, y = np.reshape(complete, (-1, 2)).T  # of no point too
        axes.plot(x, y, color=colour, ls=look.line(arm), marker=marker, ms=4.5, zorder=3)
        x, y = np.reshape(survivors, (-1, 2)).T
        axes.plot(x, y, marker, color=colour, ms=5, mfc="white", mew=1.2, zorder=3)
        diverged = [trial.rate for trial in ordered if trial.diverged]
        heights = [crosses_y] * len(diverged)
        axes.plot(diverged, heights, "x", color=colour, ms=6.5, mew=1.7, zorder=5)
        if diverged:
            crosses_y -= 0.055 * (high - low)
