"""The figures of the trained experiments: final loss against learning rate, in panels."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter

from normlab.analysis import panels, sheet
from normlab.analysis.arms import format_value
from normlab.analysis.curves import loss_limits
from normlab.analysis.statistics import mean_interval
from normlab.analysis.style import GREY, Look
from normlab.apps.experiments.trained_sentences import (
    Trial,
    best_shared_rate,
    best_trial,
    format_rate,
    group_trials,
    read_trials,
)
from normlab.archive.study import Study

_MOST_ARMS = 12  # in a figure
_CURVES_HEIGHT, _ROW_HEIGHT, _NAMES_WIDTH = 2.9, 0.27, 2.4  # inches, of norm_comparison
_PANEL_HEIGHT = 2.1  # inches, of prenorm_vs_postnorm
# Shares of the span of losses that stay free: below, above, and for every row of crosses.
_BELOW, _ABOVE, _CROSSES = 0.06, 0.04, 0.07
_DOTTED = (0, (1.0, 1.6))


def draw_norm_comparison(study: Study) -> Figure:
    """Training at a shared rate, final loss at every rate, and each arm at its own best."""
    trials, hidden_note = _best_arms(read_trials(study))
    arms = group_trials(trials, "name")
    look = Look.of([trial.arm for trial in trials])
    heights = [_CURVES_HEIGHT, 0.85 + _ROW_HEIGHT * len(arms)]
    handles, _ = panels.legend_entries([arm[0].arm for arm in arms.values()], look)
    spread = (
        "Every seed a small dot; on the left the band from the lowest to the highest seed; below "
        "the 95 % t-interval."
    )
    note = _write_note(trials, spread, "One seed: no interval.") + hidden_note
    title = f"Does it need a norm? {study.name}"
    figure, body = sheet.create_sheet(title, note, (handles, list(arms)), sum(heights))
    # Grids of their own: long names below must not press the curves together.
    outer = body.add_gridspec(2, 1, height_ratios=heights)
    top = outer[0].subgridspec(1, 2)
    _draw_shared_rate(body.add_subplot(top[0]), trials, look)
    all_rates = body.add_subplot(top[1])
    all_rates.set_title("Final loss at every rate")
    _format_axes(all_rates, trials)
    _draw_arms(all_rates, trials, look)
    _draw_best_rates(body.add_subplot(outer[1].subgridspec(1, 1)[0]), arms, look)
    return figure


def draw_prenorm_vs_postnorm(study: Study) -> Figure:
    """Final loss against learning rate, without and with warm-up, a column for every depth."""
    trials, hidden_note = _best_arms(read_trials(study))
    look = Look.of([trial.arm for trial in trials])
    depths, warmups = (sorted(group_trials(trials, key)) for key in ("depth", "warmup"))
    arms = [arm[0].arm for arm in group_trials(trials, "name").values()]
    legend = panels.legend_entries(arms, look, endings=False)
    spread = "Every seed a small dot, the line their mean."
    note = _write_note(trials, spread, "One seed.") + hidden_note
    title = f"Pre-LN or Post-LN, by depth: {study.name}"
    figure, body = sheet.create_sheet(title, note, legend, _PANEL_HEIGHT * len(warmups))
    grid = body.subplots(len(warmups), len(depths), sharex=True, sharey=True, squeeze=False)
    for row, warmup in zip(grid, warmups, strict=True):
        share = f"warm-up, {100 * warmup:.3g} % of the run" if warmup else "no warm-up"
        for axes, depth in zip(row, depths, strict=True):
            axes.set_title(f"{depth} blocks")
            _format_axes(axes, trials)
            axes.set_ylabel(f"{share}\n{panels.LOSS_LABEL}")
            panel = [t for t in trials if (t.depth, t.warmup) == (depth, warmup)]
            _draw_arms(axes, panel, look)
    sheet.label_outer_panels(body)
    return figure


def _best_arms(trials: Sequence[Trial]) -> tuple[list[Trial], str]:
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


def _write_note(trials: Sequence[Trial], several_seeds: str, single_seed: str) -> str:
    """What crosses, hollow points, small dots and the dotted line are, where there are any."""
    crosses = "× diverged: a gradient or loss that is not finite, or a loss far above a guess."
    if any(trial.diverged and trial.losses for trial in trials):
        crosses += " Hollow: the mean of those that did not, where others did."
    spread = several_seeds if max(len(trial.losses) for trial in trials) > 1 else single_seed
    unigrams = " or ".join(f"{unigram:.2f}" for unigram in _unigram_losses(trials))
    dotted = f" Dotted: token frequencies alone, {unigrams}." if unigrams else ""
    return f"{crosses}\n{spread}{dotted}"


def _unigram_losses(trials: Iterable[Trial]) -> list[float]:
    return sorted({trial.unigram for trial in trials if trial.unigram is not None})


def _draw_shared_rate(axes: Axes, trials: Sequence[Trial], look: Look) -> None:
    rate = best_shared_rate(trials)
    if rate is None:
        axes.set_title("No rate at which all finish")
        axes.set_axis_off()
        return
    axes.set_title(f"Training loss, all at {format_rate(rate)}")
    arms = [trial.arm for trial in trials if trial.rate == rate]
    panels.draw_training_loss(axes, arms, look, loss_limits(arms))


def _draw_best_rates(axes: Axes, arms: dict[str, list[Trial]], look: Look) -> None:
    """A row an arm: its final loss at its own best rate, or why it has none."""
    order = sorted(arms, key=lambda name: _best_mean(arms[name]))
    rows = {name: best_trial(arms[name]) for name in order}
    axes.set_title("Each at its own best rate")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    sheet.name_rows(axes, list(rows), _NAMES_WIDTH)
    axes.set_xlabel(f"final validation {panels.LOSS_LABEL}")
    axes.set_xlim(*panels.final_limits([trial.arm for trial in rows.values() if trial]))
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
        interval = "" if math.isnan(half) else f" ± {half:.3f}"
        label = f"{mean:.3f}{interval} at {format_value(trial.rate)}"
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


def _draw_arms(axes: Axes, trials: Sequence[Trial], look: Look) -> None:
    """Every arm's curve, under a dotted line at the loss of token frequencies alone.

    Those that diverged have a row of crosses each, above all losses. The line is the mean over the
    rates at which all runs finished; where some diverged, that of the survivors is a hollow point.
    """
    for unigram in _unigram_losses(trials):
        axes.axhline(unigram, color=GREY, lw=1.0, ls=_DOTTED, zorder=1)
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


FIGURES: dict[str, Any] = {
    "norm_comparison": draw_norm_comparison,
    "prenorm_vs_postnorm": draw_prenorm_vs_postnorm,
}
