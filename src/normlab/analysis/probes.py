"""Depth × step pictures of a study whose runs were probed: a row an arm, a column a quantity."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from normlab.analysis import page
from normlab.analysis.arms import Arm
from normlab.analysis.curves import ending
from normlab.analysis.lettering import shorten
from normlab.analysis.panels import STEP_LABEL
from normlab.analysis.plan import Plan
from normlab.analysis.probed import Field, best, field, quantities
from normlab.analysis.scales import log_ticks
from normlab.analysis.style import WIDTH
from normlab.archive import tags
from normlab.archive.record import short_number

MOST_ARMS = 12
_MOST_COLUMNS = 6

_COLOURS = "viridis"  # perceptually uniform
_NOTHING = "#DDDDDD"
_ROW, _BAR = 1.0, 0.62  # inches
_HEAD_SIZE = 8.5  # points
_LOG_FROM = 10.0  # largest over smallest from which colours follow the logarithm
_CUT = 1.0  # per cent at either end that have the last colour: one arm must not press all flat

_Grid = dict[tuple[str, str], Field]  # by the arm's label and the quantity

_NAMES = {
    tags.STREAM_RMS: "stream RMS",
    tags.PARAMETER_GRADIENT: "gradient norm",
    tags.UPDATE_RATIO: "update ratio",
    tags.ATTENTION_ENTROPY: "entropy (nats)",
    tags.ATTENTION_LOGIT: "largest logit",
    tags.ANGLE: "angle (÷ 180°)",
    tags.INPUT_RMS: "RMS read",
    tags.OUTPUT_RMS: "RMS given",
    tags.OUTPUT_MAX: "largest given",
    tags.STREAM_MAX: "largest in stream",
    tags.STREAM_VARIANCE: "stream variance",
    tags.SATURATION: "saturated share",
}
_FIRST = (
    *(tags.STREAM_RMS, tags.PARAMETER_GRADIENT, tags.UPDATE_RATIO),
    *(tags.ATTENTION_ENTROPY, tags.ATTENTION_LOGIT, tags.ANGLE),
)
_SUBLAYERS = (
    *(tags.INPUT_RMS, tags.OUTPUT_RMS, tags.OUTPUT_MAX),
    *(tags.STREAM_MAX, tags.STREAM_VARIANCE),
)


def draw(planned: Plan, folder: Path) -> list[Path]:
    """Draw what was probed: `probes`, `probes_sublayers`, and `probes_norms` where norms learn.

    Nothing is drawn of a study without probes. Raises OSError.
    """
    arms = best(planned.arms, MOST_ARMS)
    found = quantities(arms)
    own = [one for one in found if one not in tags.QUANTITIES and not one.startswith("stream_")]
    norms = [tags.SATURATION, *(one for one in own if not one.startswith("bias"))][:_MOST_COLUMNS]
    files = []
    for name, title, wanted in (
        ("probes", "Through depth", _FIRST),
        ("probes_sublayers", "In and after the sublayers", _SUBLAYERS),
        ("probes_norms", "The norms' own parameters", norms),
    ):
        columns = [one for one in wanted if one in found]
        if columns:
            files += page.save(_sheet(planned, title, arms, columns), folder, name)
    return files


def _sheet(planned: Plan, title: str, arms: Sequence[Arm], columns: Sequence[str]) -> Figure:
    grid: _Grid = {
        (arm.label, one): found for arm in arms for one in columns if (found := field(arm, one))
    }
    arms = [arm for arm in arms if any((arm.label, one) in grid for one in columns)]
    height = _BAR + _ROW * len(arms)
    figure, body = page.sheet(f"{title}: {planned.study}", _note(planned, grid), None, height)
    panels = body.subplots(
        1 + len(arms),
        len(columns),
        squeeze=False,
        gridspec_kw={"height_ratios": [_BAR / 4, *[_ROW] * len(arms)]},
    )
    for bar, below, quantity in zip(panels[0], panels[1:].T, columns, strict=True):
        _column(body, bar, below, [grid.get((arm.label, quantity)) for arm in arms], quantity)
    for row, arm in zip(panels[1:], arms, strict=True):
        _head(row[0], _heading(arm))
        row[0].set_ylabel("block", fontsize=8)
    last = max(one.end for one in grid.values())
    for axes in panels[1:].ravel():
        axes.set_xlim(0, last)
    for axes in panels[-1]:
        axes.set_xlabel(STEP_LABEL if len(columns) < 4 else "step", fontsize=8)
    return figure


def _column(
    body: SubFigure, bar: Axes, below: Sequence[Axes], fields: Sequence[Field | None], quantity: str
) -> None:
    """One quantity of every arm in the same colours, and above them what these mean."""
    norm = _norm(fields)
    drawn = [_picture(axes, one, norm) for axes, one in zip(below, fields, strict=True)]
    for axes in below[:-1]:
        axes.tick_params(labelbottom=False)
    mesh = next(one for one in drawn if one is not None)
    shown = body.colorbar(mesh, cax=bar, orientation="horizontal")
    bar.set_label("<colorbar>")  # as matplotlib calls those that it places itself
    bar.set_title(_NAMES.get(quantity, quantity.replace("_", " ")), fontsize=8.5, pad=4)
    if isinstance(norm, LogNorm):
        ticks = log_ticks(cast(float, norm.vmin), cast(float, norm.vmax), fewest=2, most=3)
        bar.xaxis.set_major_locator(FixedLocator(ticks))
        bar.xaxis.set_minor_locator(NullLocator())
    else:
        bar.xaxis.set_major_locator(MaxNLocator(2, min_n_ticks=2))
    bar.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(float(f"{value:g}"))))
    bar.tick_params(labelsize=7)
    shown.outline.set_visible(False)


def _picture(axes: Axes, one: Field | None, norm: Normalize) -> Any:
    axes.grid(visible=False)
    axes.tick_params(labelsize=7)
    axes.set_facecolor(_NOTHING)
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    if one is None:
        axes.set_yticks([])
        return None
    values = np.ma.masked_invalid(one.values)
    mesh = axes.pcolormesh(
        _edges(one), one.depths, values, norm=norm, cmap=_COLOURS, rasterized=True
    )
    blocks = round(one.depths[-1])
    shown = range(1, blocks + 1, max(1, -(-blocks // 4)))
    axes.set_yticks([block - 0.5 for block in shown], [str(block) for block in shown])
    return mesh


def _edges(one: Field) -> "np.ndarray[Any, Any]":
    """Where columns begin, and the last ends: each reaches half-way to the next measurement.

    So the last, at the end of the run, is seen too. What was lost of a run's end stays empty.
    """
    steps = one.steps.astype(float)
    between = (steps[1:] + steps[:-1]) / 2
    width = steps[-1] - steps[-2] if len(steps) > 1 else float(one.end)
    return np.concatenate([steps[:1], between, [min(steps[-1] + width, one.end)]])


def _norm(fields: Sequence[Field | None]) -> Normalize:
    """The same limits for every arm, logarithmic where there is a wide range to show."""
    every = np.concatenate([one.values.ravel() for one in fields if one is not None])
    finite = every[np.isfinite(every)]
    if not finite.size:
        return Normalize(0, 1)
    low, high = np.percentile(finite, [_CUT, 100 - _CUT])
    if finite.min() > 0 and high / low > _LOG_FROM:
        return LogNorm(low, high)
    return Normalize(low, high if high > low else low + max(abs(low), 1e-6))


def _head(axes: Axes, words: str) -> None:
    """The words above a row of panels, from its first to its last.

    A title as long as that would take its width from the first panel; a blank one keeps the height.
    """
    axes.set_title(" ", fontsize=_HEAD_SIZE, pad=3)
    words = shorten(words, WIDTH - 0.8, _HEAD_SIZE, bold=True)
    head = axes.annotate(words, (0, 1), (0, 3), "axes fraction", "offset points", weight="bold")
    head.set(fontsize=_HEAD_SIZE, in_layout=False)


def _heading(arm: Arm) -> str:
    ended = ending(arm)
    return f"{arm.label} ({ended})" if ended else arm.label


def _note(planned: Plan, grid: _Grid) -> str:
    most = max(one.runs for one in grid.values())
    mean = f"Mean over up to {most} seeds" if most > 1 else "One seed"
    lines = [
        f"{mean}, from the first block (below) to the last, attention under feed-forward. A column "
        f"reaches half-way to the next measurement. Colours are the same for all arms, cut at "
        f"{_CUT:g} % of the values at either end; grey: not finite, or not measured."
    ]
    probed = len({arm.label for arm in planned.arms if quantities([arm])})
    if probed > MOST_ARMS:
        lines.append(f"The {MOST_ARMS} of {probed} arms with the lowest validation loss.")
    return "\n".join(lines)
