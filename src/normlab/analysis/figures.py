"""The figures of a study, each as PNG and SVG, drawn without pyplot: no window, no global state."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from normlab.analysis import page, panels, probes
from normlab.analysis.arms import Arm
from normlab.analysis.curves import ends_early, loss_limits
from normlab.analysis.learning_rates import learning_rates
from normlab.analysis.plan import Plan, best_loss, plan
from normlab.analysis.rates_figure import learning_rate
from normlab.analysis.result import StudyExperiment
from normlab.analysis.style import Look, own_style, without_figure
from normlab.archive.study import Study

_CURVES_HEIGHT = 3.0  # inches, in the comparison
_Panel = Callable[[Axes, Sequence[Arm], Look, tuple[float, float]], None]


def draw(
    study: Study,
    folder: Path,
    left_out: list[str] | None = None,
    experiment: StudyExperiment | None = None,
) -> list[Path]:
    """Draw all figures of a study into `folder`; returns the files, PNG and SVG of each.

    A figure that fails is left out, and gives `left_out` a sentence.

    Raises:
        OSError: the folder cannot be written.
    """
    files: list[Path] = []
    with own_style():
        for name, save in _drawings(study, folder, experiment).items():
            with (
                nullcontext()
                if left_out is None
                else without_figure(f"The figure {name}", left_out)
            ):
                files += save()
    return files


def _drawings(
    study: Study, folder: Path, experiment: StudyExperiment | None
) -> dict[str, Callable[[], list[Path]]]:
    """What draws and saves each figure of a study, by its name."""
    planned, rates = plan(study), learning_rates(study)
    builds: dict[str, Callable[[], Figure]] = {
        build.__name__: partial(build, planned)
        for build in (comparison, training_loss, validation_loss, final_validation_loss)
    }
    if rates is not None:
        builds[learning_rate.__name__] = partial(learning_rate, study.name, rates)
    if experiment and any(run.record.state == "finished" for run in study.runs):
        builds[experiment.name] = partial(experiment.draw_figure, study)

    def save(name: str, build: Callable[[], Figure]) -> list[Path]:
        return page.save(build(), folder, name)

    drawings = {name: partial(save, name, build) for name, build in builds.items()}
    return {**drawings, "probes": partial(probes.draw, planned, folder)}


def training_loss(planned: Plan) -> Figure:
    """Training loss over optimizer steps, one panel a facet."""
    return _curves(planned, "Training loss", panels.training_loss)


def validation_loss(planned: Plan) -> Figure:
    """Validation loss over optimizer steps, one panel a facet."""
    return _curves(planned, "Validation loss", panels.validation_loss)


def final_validation_loss(planned: Plan) -> Figure:
    """Final validation loss of every arm with its seeds, one panel a facet."""
    arms = [arm for facet in planned.ranked for arm in facet.arms]
    limits, titles = panels.final_limits(arms), [facet.title for facet in planned.ranked]
    alone = len(titles) == 1
    # One order for all panels: a mean over facets would rank an arm by where it survived.
    rows = panels.row_names(arms) if alone else list(dict.fromkeys(arm.name for arm in arms))
    height = page.grid_shape(len(titles))[0] * _final_height(rows, 0.27 if alone else 0.2)
    title = f"Final validation loss: {planned.study}"
    note = _dots_note(arms) + _hidden(planned, arms)
    figure, body = page.sheet(title, note, None, height)
    for axes, facet in zip(page.panels_of(body, titles), planned.ranked, strict=True):
        panels.final_validation_loss(
            axes, facet.arms, planned.look, rows, limits, numbers=alone,
            names_width=2.6 if alone else 1.5,
        )  # fmt: skip
    page.label_outer(body)
    return figure


def comparison(planned: Plan) -> Figure:
    """Training curve, validation curve and final losses of one facet under one legend.

    Of several facets it shows the one with the lowest validation loss, or the one with the most
    arms where they learn different data, whose losses do not compare; and says so.
    """
    compare = _same_data(planned.arms)
    facet = min(planned.facets, key=best_loss if compare else lambda one: -len(one.arms))
    arms, look = facet.arms, planned.look
    rows, limits = panels.row_names(arms), loss_limits(arms)
    title = planned.study
    if len(planned.facets) > 1:
        rank = "the best of" if compare else "one of"
        title += f": {facet.title}, {rank} {planned.combinations} combinations"
    heights = [_CURVES_HEIGHT, _final_height(rows)]
    legend = panels.legend_entries(arms, look)
    note = f"{_curve_note(arms)}\n{_dots_note(arms)}{_hidden(planned, planned.arms)}"
    figure, body = page.sheet(title, note, legend, sum(heights))
    # Grids of their own: long names below must not press the curves together.
    outer = body.add_gridspec(2, 1, height_ratios=heights)
    above = outer[0].subgridspec(1, 2)
    train = body.add_subplot(above[0], title="Training loss")
    validation = body.add_subplot(above[1], title="Validation loss", sharex=train, sharey=train)
    final = body.add_subplot(outer[1].subgridspec(1, 1)[0], title="Final validation loss")
    panels.training_loss(train, arms, look, limits)
    panels.validation_loss(validation, arms, look, limits)
    panels.final_validation_loss(final, arms, look, rows, panels.final_limits(arms))
    validation.set_ylabel("")
    validation.tick_params(labelleft=False)
    return figure


def _curves(planned: Plan, title: str, panel: _Panel) -> Figure:
    arms, limits = planned.arms, loss_limits(planned.arms)
    titles = [facet.title for facet in planned.facets]
    rows, columns = page.grid_shape(len(titles))
    legend = panels.legend_entries(arms, planned.look, endings=len(titles) == 1)
    height = 4.0 if columns == 1 else rows * 2.1
    note = _curve_note(arms) + _hidden(planned, arms)
    figure, body = page.sheet(f"{title}: {planned.study}", note, legend, height)
    for axes, facet in zip(page.panels_of(body, titles), planned.facets, strict=True):
        panel(axes, facet.arms, planned.look, limits)
    page.label_outer(body)
    return figure


def _same_data(arms: Sequence[Arm]) -> bool:
    first, *others = [arm.runs[0].record.config.get("data") for arm in arms]
    return all(other == first for other in others)


def _hidden(planned: Plan, arms: Sequence[Arm]) -> str:
    """A line for the arms that are too many to be shown."""
    names = len({arm.name for arm in arms})
    if names == planned.names:
        return ""
    shown = f"the {names} of {planned.names} arms with the lowest final loss"
    return f"\nShown: {shown}; runs.csv holds all."


def _final_height(rows: Sequence[str], row: float = 0.27) -> float:
    return max(0.5, row * len(rows)) + 0.85


def _curve_note(arms: Sequence[Arm]) -> str:
    missing = ""
    if any(ends_early(run) for arm in arms for run in arm.runs):
        missing = "\nA circle: steps beside it are missing."
    if max(len(arm.runs) for arm in arms) > 1:
        return (
            "Curves: mean over seeds, the band from the lowest to the highest seed; "
            f"training loss is a running mean.{missing}"
        )
    return (
        "Curves: one seed; training loss is a running mean, faint behind it what was "
        f"measured.{missing}"
    )


def _dots_note(arms: Sequence[Arm]) -> str:
    seeds = max(len(panels.final_losses(arm)) for arm in arms)
    if seeds == 0:
        return "Final losses: no run has finished."
    if seeds > 1:
        return (
            "Final losses: every seed a small dot, with their mean and its 95 % t-interval; an "
            "arrowhead where it goes on beyond the panel."
        )
    return "Final losses: one seed, so there is no interval; train more seeds to see what is noise."
