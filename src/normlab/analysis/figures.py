"""The figures of a study, each as PNG and SVG, drawn without pyplot: no window, no global state.

Curves and final losses, the losses over learning rates, and any scalar that the runs logged.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.gridspec import GridSpecBase
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray

from normlab.analysis import panels, probe_figures, sheet
from normlab.analysis.arms import Arm, Facet, group_runs, split_facets
from normlab.analysis.comparison import learned_data
from normlab.analysis.curves import (
    MOST_FALL,
    averaged_runs,
    ends_early,
    finite_series,
    is_smoothed,
    loss_limits,
    mean_curve,
    piecewise_curve,
    single_runs,
)
from normlab.analysis.learning_rates import (
    OTHER_WINDOWS,
    LearningRates,
    RatedArm,
    RatePoint,
    learning_rate,
)
from normlab.analysis.result import (
    MOST_FACETS,
    FigurePlan,
    StudyResult,
    lowest_mean_loss,
    plan_figures,
)
from normlab.analysis.statistics import mean_interval
from normlab.analysis.style import GREY, Look, figure_style, skip_failed_figure
from normlab.archive import tags
from normlab.archive.files import FIGURES_FOLDER, check_study_files
from normlab.archive.record import short_number
from normlab.archive.study import Run, Study, read_study
from normlab.errors import NormlabError
from normlab.text import suggest_closest

_CURVES_HEIGHT = 3.0  # inches, in the comparison


def draw_figures(result: StudyResult, folder: Path, left_out: list[str]) -> list[Path]:
    """Draw all figures of a study into `folder`; returns the files, PNG and SVG of each.

    A figure that fails is left out, and gives `left_out` a sentence.

    Raises:
        OSError: the folder cannot be written.
    """
    files: list[Path] = []
    with figure_style():
        for name, save in _figure_drawers(result, folder).items():
            with skip_failed_figure(f"The figure {name}", left_out):
                files += save()
    return files


def _figure_drawers(result: StudyResult, folder: Path) -> dict[str, Callable[[], list[Path]]]:
    """What draws and saves each figure of a study, by its name."""
    planned, experiment = result.plan, result.experiment
    builds: dict[str, Callable[[], Figure]] = {
        "comparison": partial(comparison_figure, planned, own_rates=result.rates is not None),
        "training_loss": partial(loss_figure, planned, "Training loss", tags.TRAIN_LOSS),
        "validation_loss": partial(loss_figure, planned, "Validation loss", tags.VALIDATION_LOSS),
        "final_validation_loss": partial(final_validation_loss_figure, planned),
    }
    if result.rates is not None:
        builds["learning_rate"] = partial(learning_rate_figure, planned.study, result.rates)
    if experiment and result.has_finished:
        builds[experiment.name] = partial(experiment.draw_figure, result)

    def save(name: str, build: Callable[[], Figure]) -> list[Path]:
        return sheet.save_figure(build(), folder, name)

    # By partial: a lambda would look its names up when it is called, and find the last of the loop.
    drawings = {name: partial(save, name, build) for name, build in builds.items()}
    return {**drawings, "probes": partial(probe_figures.draw_probe_figures, planned, folder)}


def loss_figure(planned: FigurePlan, title: str, tag: str) -> Figure:
    """Training or validation loss over optimizer steps, one panel a facet."""
    limits = loss_limits(planned.arms)
    note = _curve_note(planned.arms) + _hidden_arms_note(planned, planned.arms)
    figure, panel_axes = _facet_sheet(planned, title, note)
    for axes, facet in zip(panel_axes, planned.facets, strict=True):
        panels.draw_loss(axes, facet.arms, planned.look, limits, tag)
    return figure


def final_validation_loss_figure(planned: FigurePlan) -> Figure:
    """Final validation loss of every arm with its seeds, one panel a facet."""
    arms = [arm for facet in planned.ranked for arm in facet.arms]
    limits, titles = panels.final_limits(arms), [facet.title for facet in planned.ranked]
    alone = len(titles) == 1
    # One order for all panels: a mean over facets would rank an arm by where it survived.
    rows = panels.row_names(arms) if alone else list(dict.fromkeys(arm.name for arm in arms))
    shape = sheet.grid_shape(len(titles))
    height = shape[0] * _rows_height(rows, 0.27 if alone else 0.2)
    title = f"Final validation loss: {planned.study}"
    note = _dots_note(arms) + _hidden_arms_note(planned, arms)
    figure, body = sheet.create_sheet(title, note, None, height)
    grid = body.add_gridspec(*shape)
    for axes, facet in zip(sheet.create_panels(grid, titles), planned.ranked, strict=True):
        panels.draw_final_losses(axes, facet.arms, planned.look, rows, limits, numbers=alone)
    return figure


def comparison_figure(planned: FigurePlan, *, own_rates: bool = False) -> Figure:
    """Training curve, validation curve and final losses of one facet under one legend.

    Of several facets it shows the one with the lowest validation loss, or the one with the most
    arms where they learn different data, whose losses do not compare; and says so, and which of
    several learning rates that is. `own_rates`: another figure compares the arms each at its own
    best one.
    """
    compare = len({learned_data(arm) for arm in planned.arms}) == 1
    facet = min(
        planned.facets, key=lowest_mean_loss if compare else lambda candidate: -len(candidate.arms)
    )
    arms, look = facet.arms, planned.look
    rows, limits = panels.row_names(arms), loss_limits(arms)
    title = planned.study
    if len(planned.facets) > 1:
        rank = "the best of" if compare else "one of"
        title += f": {facet.title}, {rank} {planned.facet_count} combinations"
    heights = [_CURVES_HEIGHT, _rows_height(rows)]
    legend = panels.legend_entries(arms, look)
    note = f"{_curve_note(arms)}\n{_dots_note(arms)}{_hidden_arms_note(planned, planned.arms)}"
    note += _shown_rate_note(facet, planned, own_rates)
    figure, body = sheet.create_sheet(title, note, legend, sum(heights))
    # Grids of their own: long names below must not press the curves together.
    outer = body.add_gridspec(2, 1, height_ratios=heights)
    above = outer[0].subgridspec(1, 2)
    train = body.add_subplot(above[0], title="Training loss")
    validation = body.add_subplot(above[1], title="Validation loss", sharex=train, sharey=train)
    final = body.add_subplot(outer[1].subgridspec(1, 1)[0], title="Final validation loss")
    panels.draw_loss(train, arms, look, limits, tags.TRAIN_LOSS)
    panels.draw_loss(validation, arms, look, limits, tags.VALIDATION_LOSS)
    panels.draw_final_losses(final, arms, look, rows, panels.final_limits(arms))
    validation.set_ylabel("")
    validation.tick_params(labelleft=False)
    return figure


def _shown_rate_note(facet: Facet, planned: FigurePlan, own_rates: bool) -> str:
    """A line for the learning rate of a facet, where others have another."""
    rates, shown = (
        {rate for arm in arms for run in arm.runs if (rate := learning_rate(run)) is not None}
        for arms in (planned.arms, facet.arms)
    )
    if not shown or not (own_rates or rates > shown):
        return ""
    others = (
        "the figure learning_rate has each arm at its own best rate"
        if own_rates
        else "training_loss, validation_loss and final_validation_loss show the other rates too"
    )
    return f"\nOnly lr={' and '.join(map(short_number, sorted(shown)))} is shown; {others}."


def _facet_sheet(planned: FigurePlan, title: str, note: str) -> tuple[Figure, list[Axes]]:
    """A sheet with a legend of the arms and a panel for every facet."""
    titles = [facet.title for facet in planned.facets]
    rows, columns = sheet.grid_shape(len(titles))
    legend = panels.legend_entries(planned.arms, planned.look, endings=len(titles) == 1)
    height = 4.0 if columns == 1 else rows * 2.1
    figure, body = sheet.create_sheet(f"{title}: {planned.study}", note, legend, height)
    return figure, sheet.create_panels(body.add_gridspec(rows, columns), titles)


def _hidden_arms_note(planned: FigurePlan, arms: Sequence[Arm]) -> str:
    """A line for the arms that are too many to be shown."""
    names = len({arm.name for arm in arms})
    if names == planned.arm_count:
        return ""
    description = f"the {names} of {planned.arm_count} arms with the lowest final loss"
    return f"\nShown: {description}; runs.csv holds all."


def _rows_height(rows: Sequence[str], row: float = 0.27) -> float:
    return max(0.5, row * len(rows)) + 0.85


def _curve_note(arms: Sequence[Arm]) -> str:
    missing = ""
    if any(ends_early(run) for arm in arms for run in arm.runs):
        missing = "\nA circle: steps beside it are missing."
    smooth = is_smoothed([run for arm in arms for run in arm.runs], tags.TRAIN_LOSS)
    training = "; training loss is a running mean" if smooth else ""
    if max(len(arm.runs) for arm in arms) > 1:
        curves = "mean over seeds, the band from the lowest to the highest seed"
        return f"Curves: {curves}{training}.{missing}"
    behind = ", faint behind it what was measured" if smooth else ""
    return f"Curves: one seed{training}{behind}.{missing}"


def _dots_note(arms: Sequence[Arm]) -> str:
    seeds = max(len(arm.final_losses) for arm in arms)
    if seeds == 0:
        return "Final losses: no run has finished."
    if seeds > 1:
        return (
            "Final losses: every seed a small dot, with their mean and its 95 % t-interval; an "
            "arrowhead where it goes on beyond the panel."
        )
    return "Final losses: one seed, so there is no interval; train more seeds to see what is noise."


MOST_RATE_ROWS = 24
MOST_RATE_CURVES = 12  # arms by name: they lie closer together than over steps

_PAD = 0.06  # share of an axis that stays empty at an end
_NAMES_WIDTH = 2.1  # inches

_Limits = tuple[float, float]


def learning_rate_figure(study: str, rates: LearningRates) -> Figure:
    """Final loss over the learning rate, a panel a facet; below it sensitivity and tuned loss."""
    rated = {arm_rates.arm.label: arm_rates for arm_rates in rates.arms}
    ranked = rates.ranked
    all_facets = split_facets([arm_rates.arm for arm_rates in rates.arms])
    visible_facets = _best_facets(all_facets, ranked, rated)
    rows, curves = ranked[:MOST_RATE_ROWS], [arm for facet in visible_facets for arm in facet.arms]
    look = Look.of([*curves, *(arm_rates.arm for arm_rates in rows)])
    lines, columns = sheet.grid_shape(len(visible_facets))
    above, below = (3.2 if lines == 1 else 2.1) * lines, 0.24 * len(rows) + 0.9
    legend = panels.legend_entries(curves, look, endings=False)
    title = f"Final validation loss over the learning rate: {study}"
    names = len({arm.name for facet in all_facets for arm in facet.arms})
    hidden = {
        "combinations of settings": len(all_facets) - len(visible_facets),
        "curves of arms": names - len({arm.name for arm in curves}),
        "rows": len(ranked) - len(rows),
    }
    note = _rates_note(rates, hidden)
    figure, body = sheet.create_sheet(title, note, legend, above + below)
    # Two grids: long names below must not press the curves together.
    outer = body.add_gridspec(2, 1, height_ratios=[above, below])
    _draw_rate_facets(outer[0].subgridspec(lines, columns), visible_facets, rated, look)
    _draw_arm_rows(body, outer[1].subgridspec(1, 2), rows, look)
    return figure


def _best_facets(
    facets: Sequence[Facet], ranked: Sequence[RatedArm], rated: Mapping[str, RatedArm]
) -> list[Facet]:
    """The best facets, in their order, each with the best arms."""
    names = list(dict.fromkeys(item.arm.name for item in ranked))[:MOST_RATE_CURVES]
    best = sorted(facets, key=lambda item: min(rated[arm.label].tuned_mean for arm in item.arms))
    limited = [
        (facet, tuple(arm for arm in facet.arms if arm.name in names))
        for facet in facets
        if facet in best[:MOST_FACETS]
    ]
    return [replace(facet, arms=arms) for facet, arms in limited if arms]


def _draw_rate_facets(
    grid: GridSpecBase, facets: Sequence[Facet], rated: Mapping[str, RatedArm], look: Look
) -> None:
    arms = [rated[arm.label] for facet in facets for arm in facet.arms]
    limits, titles = _rate_limits(arms), [facet.title for facet in facets]
    for axes, facet in zip(sheet.create_panels(grid, titles), facets, strict=True):
        _draw_rate_panel(axes, [rated[arm.label] for arm in facet.arms], look, limits)
        _set_rate_ticks(axes, arms, sparse=grid.ncols == 3)
        axes.set_xlabel("learning rate")
        axes.set_ylabel(panels.LOSS_LABEL)


def _draw_rate_panel(axes: Axes, arms: Sequence[RatedArm], look: Look, limits: _Limits) -> None:
    """The loss of each arm by rate, the loss at initialization, and above it what diverged."""
    axes.set_xscale("log")
    axes.set_ylim(*limits)
    low, top = limits
    room = _PAD * (top - low)
    initial = [rated.initial for rated in arms if not math.isnan(rated.initial)]
    start = max(initial, default=None)
    if start is not None:
        above = ", above the axes" if start > top else ""
        panels.draw_level(axes, start, f"at initialization {start:.2f}{above}", (0, (4, 2)))
    # The loss of a model that ignores the context; not where it would hide the initial loss.
    unigrams = {run.record.unigram for rated in arms for run in rated.arm.runs}
    unigram = unigrams.pop() if len(unigrams) == 1 else None
    if (
        unigram is not None
        and low < unigram < top
        and (start is None or abs(start - unigram) >= room)
    ):
        panels.draw_level(axes, unigram, f"token frequencies only {unigram:.2f}", ":")
    lost = [rated for rated in arms if rated.diverged]
    for rated in arms:
        _draw_rate_curve(axes, rated, look)
    # A height for each arm: where several diverged at one rate, their crosses would coincide.
    for line, rated in enumerate(lost):
        height = top - room * (0.5 + 2.2 * line / max(3, len(lost)))
        colour = look.colour(rated.arm)
        for point in rated.points:
            if not point.diverged:
                continue
            axes.plot([point.rate], [height], "x", color=colour, mew=1.8, ms=6, zorder=5)
            if point.diverged < len(point.arm.runs):
                axes.annotate(
                    f"{point.diverged}/{len(point.arm.runs)}", xy=(point.rate, height),
                    xytext=(5, 0), textcoords="offset points", va="center", fontsize=7,
                    color=colour,
                )  # fmt: skip


def _draw_rate_curve(axes: Axes, rated: RatedArm, look: Look) -> None:
    colour = look.colour(rated.arm)
    points = [(point.rate, losses) for point in rated.points if (losses := capped_losses(point))]
    if not points:
        return
    rates = [rate for rate, _ in points]
    means = [mean_interval(losses)[0] for _, losses in points]
    low, high = ([edge(losses) for _, losses in points] for edge in (min, max))
    axes.fill_between(rates, low, high, color=colour, alpha=0.16, lw=0, zorder=1.5)
    marker = look.marker(rated.arm)
    axes.plot(rates, means, color=colour, ls=look.line(rated.arm), marker=marker, ms=3.5, zorder=3)
    if rated.best is not None:
        at = [rated.best.rate], [mean_interval(capped_losses(rated.best))[0]]
        axes.plot(*at, marker, color=colour, ms=8, mec="white", mew=1.0, zorder=4)


def capped_losses(point: RatePoint) -> list[float]:
    """The finished losses of a point, none above its initial loss: so the sensitivity counts."""
    return [min(loss, point.capped.get(seed, loss)) for seed, loss in point.losses.items()]


def _set_rate_ticks(axes: Axes, arms: Sequence[RatedArm], *, sparse: bool) -> None:
    rates = sorted({point.rate for rated in arms for point in rated.points})
    stride = 2 if sparse and len(rates) > 4 else max(1, len(rates) // 10)
    axes.xaxis.set_minor_locator(NullLocator())
    words = [short_number(rate) if at % stride == 0 else "" for at, rate in enumerate(rates)]
    axes.set_xticks(rates, words)


def _draw_arm_rows(
    body: SubFigure, grid: GridSpecBase, arms: Sequence[RatedArm], look: Look
) -> None:
    """LR sensitivity and the loss at the best rate, a row an arm."""
    tuned = body.add_subplot(grid[0, 0], title="Loss at its own best rate")
    across = body.add_subplot(grid[0, 1], title="LR sensitivity", sharey=tuned)
    across.set_xlim(*_sensitivity_limits(arms))
    trained = [rated for rated in arms if rated.best]
    losses = [list(rated.tuned.values()) for rated in trained]
    if limits := panels.final_limits([rated.arm for rated in trained], losses):
        tuned.set_xlim(*limits)
    for row, rated in enumerate(arms):
        if rated.best is not None:
            panels.draw_seed_values(tuned, rated.arm, look, row, list(rated.tuned.values()))
            _annotate_row(tuned, row, f"at {short_number(rated.best.rate)}")
        else:
            _annotate_row(tuned, row, "none")
        values = list(rated.sensitivity.values())
        if values:
            panels.draw_seed_values(across, rated.arm, look, row, values)
    sensitive = any(rated.sensitivity for rated in arms)
    for axes, has_values, otherwise in (
        (tuned, trained, "no arm has a best rate"),
        (across, sensitive, "no arm has one"),
    ):
        axes.set_ylim(len(arms) - 0.4, -0.6)
        sheet.name_rows(axes, [rated.name for rated in arms], _NAMES_WIDTH)
        if has_values:
            axes.set_xlabel("nats per token")
            axes.xaxis.set_major_locator(MaxNLocator(5))
        else:
            panels.omit_scale(axes, otherwise)
    across.tick_params(labelleft=False)


def _sensitivity_limits(arms: Sequence[RatedArm]) -> _Limits:
    """From just below zero; a wide interval of few seeds is cut, as in `panels.final_limits`."""
    sensitivities = [list(rated.sensitivity.values()) for rated in arms if rated.sensitivity]
    high = max((value for values in sensitivities for value in values), default=1.0)
    ends = [mean + half for mean, half in map(mean_interval, sensitivities) if half < 0.5 * high]
    high = max([high, *ends, 1e-6])
    return -0.04 * high, 1.06 * high


def _annotate_row(axes: Axes, row: int, words: str) -> None:
    at = axes.get_yaxis_transform()
    axes.text(1.01, row, words, transform=at, va="center", fontsize=7.5, color=GREY)


def _rate_limits(arms: Sequence[RatedArm]) -> _Limits:
    """From below the lowest loss to above the highest, with room for what diverged.

    That is at most the initial loss, which is shown too unless it presses the curves flat.
    """
    losses = [loss for rated in arms for point in rated.points for loss in capped_losses(point)]
    initial = [rated.initial for rated in arms if not math.isnan(rated.initial)]
    if not losses + initial:
        return 0.0, 1.0
    low, high = min(losses + initial), max(losses, default=math.nan)
    start = max(initial, default=high)
    if not start - low > MOST_FALL * (high - low) > 0:
        high = start
    span = max(high - low, 1e-3)
    return low - _PAD * span, high + 4 * _PAD * span


def _rates_note(rates: LearningRates, hidden: Mapping[str, int]) -> str:
    several = any(len(point.losses) > 1 for rated in rates.arms for point in rated.points)
    band = ", the band from the lowest to the highest seed" if several else ", one seed"
    windows = f", its loss below {OTHER_WINDOWS}" if rates.halved else ""
    lines = [
        f"Curves: mean of the finished runs{band}; a loss above that at initialization is drawn at "
        f"it. Larger: the arm's best rate{windows}. LR sensitivity (arXiv 2309.14322): mean over "
        "the grid of min(loss, loss at initialization) − the lowest; an arm that learns nothing at "
        "any rate has a low one too. Intervals: 95 % t over seeds; an arrowhead: beyond the panel."
    ]
    left_out = ", ".join(f"{count} {what}" for what, count in hidden.items() if count)
    if left_out:
        lines.append(f"Not shown, with a higher loss: {left_out}; runs.csv holds all.")
    return "\n".join(lines)


METRICS_FOLDER = "metrics"

_LOG_RANGE = 50.0  # positive values that span more than this get a logarithmic axis


def draw_metric(study_folder: Path, tag: str) -> list[Path]:
    """Draw the scalar `tag` of a study into `figures/metrics/`, and return PNG and SVG.

    Raises:
        NormlabError: the folder is no study, no run logged the tag, or the figure cannot be kept.
    """
    study = read_study(study_folder, {tag})
    if not any(finite_series(run, tag) for run in study.runs):
        raise NormlabError(_explain_missing_tag(study, tag))
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", tag).strip("._") or "metric"
    try:
        check_study_files(study_folder)
        with figure_style():
            figure = metric_figure(study, tag)
            return sheet.save_figure(figure, study_folder / FIGURES_FOLDER / METRICS_FOLDER, name)
    except OSError as error:
        raise NormlabError(
            f"The figure of {tag} cannot be written: {error.strerror or error} "
            f"({error.filename or study_folder}); free space or permit writing there."
        ) from error


def metric_figure(study: Study, tag: str) -> Figure:
    """The scalar over optimizer steps, of the arms that logged it, one panel a facet."""
    arms = group_runs(study.runs)
    logged = [arm for arm in arms if any(finite_series(run, tag) for run in arm.runs)]
    # Of these arms alone: a plan is limited to the best arms, which may not have logged it.
    planned = plan_figures(study.name, logged)
    figure, panel_axes = _facet_sheet(planned, tag, _metric_note(planned, study.runs, tag))
    low, high, is_wide = _metric_limits(planned.arms, tag)
    for axes, facet in zip(panel_axes, planned.facets, strict=True):
        if is_wide:
            axes.set_yscale("log")
        axes.set_ylim(low, high)
        for arm in facet.arms:
            _draw_metric_arm(axes, arm, planned.look, tag)
        axes.set_xlabel(panels.STEP_LABEL)
        axes.set_ylabel(tag)
        axes.margins(x=0.02)
    return figure


def _draw_metric_arm(axes: Axes, arm: Arm, look: Look, tag: str) -> None:
    colour = look.colour(arm)
    together = mean_curve(averaged_runs(arm), tag, smooth=True)
    if together:
        panels.draw_mean_curve(axes, arm, look, together, look.marker(arm))
    for run in single_runs(arm):
        pieces, _ = piecewise_curve(run, tag, smooth=True)
        for piece in pieces:
            axes.plot(*piece, color=colour, ls=look.line(arm), lw=1.0, alpha=0.8, zorder=2.5)
        if pieces and run.record.state == "diverged":
            step, value = (float(values[-1]) for values in pieces[-1])
            # The limits are those of the finished runs, and this may lie beyond them.
            height = min(max(value, axes.get_ylim()[0]), axes.get_ylim()[1])
            (cross,) = axes.plot([step], [height], "x", color=colour, mew=1.8, ms=7, zorder=5)
            cross.set_clip_on(False)  # at the edge it would be half cut


def _metric_limits(arms: Sequence[Arm], tag: str) -> tuple[float, float, bool]:
    """Limits of the axis, and whether it is logarithmic.

    They are those of the runs that finished, if any did: what grows before a divergence is cut, so
    that it does not press the others flat.
    """

    def finite_values(runs: Iterable[Run]) -> list[NDArray[np.float64]]:
        return [series.values for run in runs if (series := finite_series(run, tag))]

    in_means = finite_values(run for arm in arms for run in averaged_runs(arm))
    values = np.concatenate(in_means or finite_values(run for arm in arms for run in arm.runs))
    low, high = float(values.min()), float(values.max())
    if low > 0 and high > _LOG_RANGE * low:
        pad = (high / low) ** _PAD
        return low / pad, high * pad, True
    pad = _PAD * (high - low) or max(abs(high), 1.0) * _PAD
    return low - pad, high + pad, False


def _metric_note(planned: FigurePlan, runs: Sequence[Run], tag: str) -> str:
    have = sum(finite_series(run, tag) is not None for run in runs)
    lacking = f" {len(runs) - have} of {len(runs)} runs did not log it." if have < len(runs) else ""
    probe = tags.split_probe_tag(tag)
    meaning = tags.QUANTITIES.get(probe[0], "") if probe else ""
    lacking += f"\n{meaning.capitalize()}." if meaning else ""
    smooth = " Running mean over a fortieth of the run." if is_smoothed(runs, tag) else ""
    curves = "One seed"
    if max(len(arm.runs) for arm in planned.arms) > 1:
        curves = "Mean over finished seeds, the band from the lowest to the highest"
    return f"{curves}.{smooth} × diverged.{lacking}"


def _explain_missing_tag(study: Study, tag: str) -> str:
    logged = sorted({name for run in study.runs for name in run.events.last_steps})
    if not logged:
        return f"No run of {study.folder} has readable scalars, so there is no {tag} to draw."
    sites: dict[str, list[str]] = defaultdict(list)
    for name in logged:
        probe = tags.split_probe_tag(name)
        sites[f"{tags.PROBES}{probe[0]}" if probe else name].append(name)
    names = [
        tags_of_site[0]
        + (f" ({len(tags_of_site) - 1} more sites)" if len(tags_of_site) > 1 else "")
        for tags_of_site in sites.values()
    ]
    hint = suggest_closest(tag, logged)
    return f"No run of {study.folder} logged {tag}; {hint}give one of {', '.join(names)}."
