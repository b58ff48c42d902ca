"""One figure of any scalar that the runs logged, a probe's too, as curves per arm."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from normlab.analysis import page, panels
from normlab.analysis.arms import Arm
from normlab.analysis.curves import averaged, broken, curve, finite, single
from normlab.analysis.plan import Plan, plan
from normlab.analysis.style import Look, own_style
from normlab.archive import tags
from normlab.archive.files import FIGURES_FOLDER, check_study_links
from normlab.archive.study import Study, read_study
from normlab.errors import NormlabError

METRICS_FOLDER = "metrics"

_PAD = 0.06
_WIDE = 50.0  # positive values that span more than this get a logarithmic axis


def draw_metric(study_folder: Path, tag: str) -> list[Path]:
    """Draw the scalar `tag` of a study into `figures/metrics/`, and return PNG and SVG.

    Raises:
        NormlabError: the folder is no study, no run logged the tag, or the figure cannot be kept.
    """
    study = read_study(study_folder, {tag})
    if not any(finite(run, tag) for run in study.runs):
        raise NormlabError(_missing(study, tag))
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", tag).strip("._") or "metric"
    try:
        check_study_links(study_folder)
        with own_style():
            figure = metric(plan(study), tag)
            return page.save(figure, study_folder / FIGURES_FOLDER / METRICS_FOLDER, name)
    except OSError as error:
        raise NormlabError(
            f"The figure of {tag} cannot be written: {error.strerror or error} "
            f"({error.filename or study_folder}); free space or permit writing there."
        ) from error


def metric(planned: Plan, tag: str) -> Figure:
    """The scalar over optimizer steps, one panel a facet."""
    arms, titles = planned.arms, [facet.title for facet in planned.facets]
    rows, columns = page.grid_shape(len(titles))
    legend = panels.legend_entries(arms, planned.look, endings=len(titles) == 1)
    height = 4.0 if columns == 1 else rows * 2.1
    figure, body = page.sheet(f"{tag}: {planned.study}", _note(arms, tag), legend, height)
    low, high, wide = _range(arms, tag)
    for axes, facet in zip(page.panels_of(body, titles), planned.facets, strict=True):
        if wide:
            axes.set_yscale("log")
        axes.set_ylim(low, high)
        for arm in facet.arms:
            _draw_arm(axes, arm, planned.look, tag)
        axes.set_xlabel(panels.STEP_LABEL)
        axes.set_ylabel(tag)
        axes.margins(x=0.02)
    page.label_outer(body)
    return figure


def _draw_arm(axes: Axes, arm: Arm, look: Look, tag: str) -> None:
    colour = look.colour(arm)
    together = curve(averaged(arm), tag, smooth=True)
    if together:
        panels.draw_mean(axes, arm, look, together, look.marker(arm))
    for run in single(arm):
        pieces = broken(run, tag, smooth=True).pieces
        for piece in pieces:
            axes.plot(*piece, color=colour, ls=look.line(arm), lw=1.0, alpha=0.8, zorder=2.5)
        if pieces and run.record.state == "diverged":
            step, value = (float(values[-1]) for values in pieces[-1])
            shown = min(max(value, axes.get_ylim()[0]), axes.get_ylim()[1])
            (cross,) = axes.plot([step], [shown], "x", color=colour, mew=1.8, ms=7, zorder=5)
            cross.set_clip_on(False)  # at the edge it would be half cut


def _range(arms: Sequence[Arm], tag: str) -> tuple[float, float, bool]:
    """Limits of the axis, and whether it is logarithmic.

    They are those of the runs that finished, if any did: what grows before a divergence is cut, so
    that it does not press the others flat.
    """
    drawn = [
        [found.values for run in runs if (found := finite(run, tag))]
        for runs in (
            [run for arm in arms for run in averaged(arm)],
            [run for arm in arms for run in arm.runs],
        )
    ]
    values = np.concatenate(next(filter(None, drawn)))
    low, high = float(values.min()), float(values.max())
    if low > 0 and high > _WIDE * low:
        pad = (high / low) ** _PAD
        return low / pad, high * pad, True
    pad = _PAD * (high - low) or max(abs(high), 1.0) * _PAD
    return low - pad, high + pad, False


def _note(arms: Sequence[Arm], tag: str) -> str:
    runs = [run for arm in arms for run in arm.runs]
    have = sum(finite(run, tag) is not None for run in runs)
    lacking = f" {len(runs) - have} of {len(runs)} runs did not log it." if have < len(runs) else ""
    probe = tags.split_probe_tag(tag)
    meaning = tags.QUANTITIES.get(probe[0], "") if probe else ""
    lacking += f"\n{meaning.capitalize()}." if meaning else ""
    if max(len(arm.runs) for arm in arms) > 1:
        return (
            f"Running mean over a fortieth of the run: its mean over finished seeds, the band from "
            f"the lowest to the highest. × diverged.{lacking}"
        )
    return f"One seed; a running mean over a fortieth of the run. × diverged.{lacking}"


def _missing(study: Study, tag: str) -> str:
    known = sorted({name for run in study.runs for name in run.events.last_steps})
    if not known:
        return f"No run of {study.folder} has readable scalars, so there is no {tag} to draw."
    sites: dict[str, list[str]] = defaultdict(list)
    for name in known:
        probe = tags.split_probe_tag(name)
        sites[f"{tags.PROBES}{probe[0]}" if probe else name].append(name)
    names = [
        found[0] + (f" ({len(found) - 1} more sites)" if len(found) > 1 else "")
        for found in sites.values()
    ]
    return f"No run of {study.folder} logged {tag}; give one of {', '.join(names)}."
