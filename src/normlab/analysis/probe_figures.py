"""Probes of a study over depth and steps: a row of pictures an arm, a column a quantity."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from normlab.analysis import sheet
from normlab.analysis.arms import Arm
from normlab.analysis.curves import averaged_runs, name_with_ending
from normlab.analysis.panels import STEP_LABEL
from normlab.analysis.result import FigurePlan
from normlab.analysis.sheet import log_ticks, shorten_text
from normlab.analysis.statistics import mean_or_infinity
from normlab.analysis.style import WIDTH
from normlab.archive import tags
from normlab.archive.record import short_number
from normlab.archive.study import Run

_BLOCK_SITE = re.compile(r"block_(\d+)(/|$)")


@dataclass(frozen=True)
class ProbeField:
    """One quantity of an arm by depth and step: the mean over its runs.

    Attributes:
        steps: optimizer steps at which it was measured, increasing.
        depths: the position of each site, in blocks: a block's sites divide the stretch from its
            number less one to its number. Increasing, from bottom to top, with the end of the last.
        values: (sites, steps); NaN or infinite where a run was.
        end: the step at which the runs ended, at least one after the first measurement.
        runs: how many runs the mean is of.
    """

    steps: NDArray[np.int64]
    depths: NDArray[np.float64]
    values: NDArray[np.float64]
    end: int
    runs: int


def probed_quantities(arms: Sequence[Arm]) -> list[str]:
    """The quantities that were measured at some block of some arm, in the order of their tags."""
    runs = [run for arm in arms for run in arm.runs]
    sites = {tags.split_probe_tag(tag): None for run in runs for tag in run.events.scalars}
    return list(dict.fromkeys(key[0] for key in sites if key and _BLOCK_SITE.match(key[1])))


def probe_field(arm: Arm, quantity: str) -> ProbeField | None:
    """The field of an arm; None where none of its runs was probed for it.

    The mean is over the runs that its curves average; without any, it is that of the first that
    was probed, however it ended.
    """
    probed = [run for run in averaged_runs(arm) if _block_sites(run, quantity)]
    probed = probed or [run for run in arm.runs if _block_sites(run, quantity)][:1]
    if not probed:
        return None
    sites = _block_sites(probed[0], quantity)
    series = [
        [run.events.scalars[tags.probe_tag(quantity, site)] for site in sites] for run in probed
    ]
    steps = reduce(np.intersect1d, [of_site.steps for of_run in series for of_site in of_run])
    if not steps.size:
        return None
    values = np.array(  # (runs, sites, steps)
        [[of_site.values[np.isin(of_site.steps, steps)] for of_site in of_run] for of_run in series]
    )
    end = max(int(steps[-1]), int(steps[0]) + 1, *(run.record.step for run in probed))
    with np.errstate(invalid="ignore"):  # infinities of both signs have no mean
        return ProbeField(steps, _site_depths(sites), values.mean(axis=0), end, len(probed))


def best_probed_arms(arms: Sequence[Arm], most: int) -> list[Arm]:
    """So many of the probed arms, those with the lowest validation loss, in their order."""
    probed = [arm for arm in {arm.label: arm for arm in arms}.values() if probed_quantities([arm])]
    chosen = sorted(probed, key=lambda arm: mean_or_infinity(arm.best_losses))[:most]
    return [arm for arm in probed if arm in chosen]


def _block_sites(run: Run, quantity: str) -> list[str]:
    """The sites inside blocks, in the order of depth."""
    keys = map(tags.split_probe_tag, run.events.scalars)
    sites = [key[1] for key in keys if key and key[0] == quantity and _BLOCK_SITE.match(key[1])]
    return sorted(sites, key=_block_number)  # stable: within a block as they were written


def _block_number(site: str) -> int:
    matched = _BLOCK_SITE.match(site)
    return int(matched[1]) if matched else 0


def _site_depths(sites: Sequence[str]) -> NDArray[np.float64]:
    blocks = [_block_number(site) for site in sites]
    starts = [
        block - 1 + blocks[:at].count(block) / blocks.count(block)
        for at, block in enumerate(blocks)
    ]
    # One more than there are sites: pcolormesh takes the edges of its cells.
    return np.array([*starts, blocks[-1]], float)


MOST_ARMS = 12
_MOST_COLUMNS = 6

_COLOURS = "viridis"  # perceptually uniform
_NOTHING = "#DDDDDD"
_ROW, _BAR = 1.0, 0.62  # inches
_HEAD_SIZE = 8.5  # points
_LOG_FROM = 10.0  # largest over smallest from which colours follow the logarithm
_CUT = 1.0  # per cent at either end that have the last colour: one arm must not press all flat

_ProbeFields = dict[tuple[str, str], ProbeField]  # by the arm's label and the quantity

_QUANTITY_NAMES = {
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
_DEPTH_QUANTITIES = (
    *(tags.STREAM_RMS, tags.PARAMETER_GRADIENT, tags.UPDATE_RATIO),
    *(tags.ATTENTION_ENTROPY, tags.ATTENTION_LOGIT, tags.ANGLE),
)
_SUBLAYER_QUANTITIES = (
    *(tags.INPUT_RMS, tags.OUTPUT_RMS, tags.OUTPUT_MAX),
    *(tags.STREAM_MAX, tags.STREAM_VARIANCE),
)


def draw_probe_figures(planned: FigurePlan, folder: Path) -> list[Path]:
    """Draw what was probed: `probes`, `probes_sublayers`, and `probes_norms` where norms learn.

    Nothing is drawn of a study without probes. Raises OSError.
    """
    arms = best_probed_arms(planned.arms, MOST_ARMS)
    probed = probed_quantities(arms)
    parameters = [
        quantity
        for quantity in probed
        if quantity not in tags.QUANTITIES and not quantity.startswith(("stream_", "bias"))
    ]
    norms = [tags.SATURATION, *parameters][:_MOST_COLUMNS]
    files = []
    for name, title, quantities in (
        ("probes", "Through depth", _DEPTH_QUANTITIES),
        ("probes_sublayers", "In and after the sublayers", _SUBLAYER_QUANTITIES),
        ("probes_norms", "The norms' own parameters", norms),
    ):
        columns = [quantity for quantity in quantities if quantity in probed]
        if columns:
            files += sheet.save_figure(_probe_sheet(planned, title, arms, columns), folder, name)
    return files


def _probe_sheet(
    planned: FigurePlan, title: str, arms: Sequence[Arm], columns: Sequence[str]
) -> Figure:
    grid: _ProbeFields = {
        (arm.label, column): field
        for arm in arms
        for column in columns
        if (field := probe_field(arm, column))
    }
    arms = [arm for arm in arms if any((arm.label, column) in grid for column in columns)]
    height = _BAR + _ROW * len(arms)
    figure, body = sheet.create_sheet(
        f"{title}: {planned.study}", _probe_note(planned, grid), None, height
    )
    panels = body.subplots(
        1 + len(arms),
        len(columns),
        squeeze=False,
        gridspec_kw={"height_ratios": [_BAR / 4, *[_ROW] * len(arms)]},
    )
    for bar, below, quantity in zip(panels[0], panels[1:].T, columns, strict=True):
        _draw_column(body, bar, below, [grid.get((arm.label, quantity)) for arm in arms], quantity)
    for row, arm in zip(panels[1:], arms, strict=True):
        _write_row_heading(row[0], name_with_ending(arm.label, arm))
        row[0].set_ylabel("block", fontsize=8)
    last = max(column.end for column in grid.values())
    for axes in panels[1:].ravel():
        axes.set_xlim(0, last)
    for axes in panels[-1]:
        axes.set_xlabel(STEP_LABEL if len(columns) < 4 else "step", fontsize=8)
    return figure


def _draw_column(
    body: SubFigure,
    bar: Axes,
    below: Sequence[Axes],
    fields: Sequence[ProbeField | None],
    quantity: str,
) -> None:
    """One quantity of every arm in the same colours, and above them what these mean."""
    norm = _colour_norm(fields)
    meshes = [_draw_field(axes, field, norm) for axes, field in zip(below, fields, strict=True)]
    for axes in below[:-1]:
        axes.tick_params(labelbottom=False)
    mesh = next(field for field in meshes if field is not None)
    colorbar = body.colorbar(mesh, cax=bar, orientation="horizontal")
    bar.set_label("<colorbar>")  # as matplotlib calls those that it places itself
    bar.set_title(_QUANTITY_NAMES.get(quantity, quantity.replace("_", " ")), fontsize=8.5, pad=4)
    if isinstance(norm, LogNorm):
        ticks = log_ticks(cast(float, norm.vmin), cast(float, norm.vmax), fewest=2, most=3)
        bar.xaxis.set_major_locator(FixedLocator(ticks))
        bar.xaxis.set_minor_locator(NullLocator())
    else:
        bar.xaxis.set_major_locator(MaxNLocator(2, min_n_ticks=2))
    bar.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(float(f"{value:g}"))))
    bar.tick_params(labelsize=7)
    colorbar.outline.set_visible(False)


def _draw_field(axes: Axes, field: ProbeField | None, norm: Normalize) -> Any:
    axes.grid(visible=False)
    axes.tick_params(labelsize=7)
    axes.set_facecolor(_NOTHING)
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    if field is None:
        axes.set_yticks([])
        return None
    values = np.ma.masked_invalid(field.values)  # where it is masked the grey behind it is seen
    # Rasterized: one picture in the SVG, not a path for every cell.
    mesh = axes.pcolormesh(
        _column_edges(field), field.depths, values, norm=norm, cmap=_COLOURS, rasterized=True
    )
    blocks = round(field.depths[-1])
    labelled = range(1, blocks + 1, max(1, -(-blocks // 4)))
    axes.set_yticks([block - 0.5 for block in labelled], [str(block) for block in labelled])
    return mesh


def _column_edges(field: ProbeField) -> "np.ndarray[Any, Any]":
    """Where columns begin, and the last ends: each reaches half-way to the next measurement.

    So the last, at the end of the run, is seen too. What was lost of a run's end stays empty.
    """
    steps = field.steps.astype(float)
    between = (steps[1:] + steps[:-1]) / 2
    width = steps[-1] - steps[-2] if len(steps) > 1 else float(field.end)
    return np.concatenate([steps[:1], between, [min(steps[-1] + width, field.end)]])


def _colour_norm(fields: Sequence[ProbeField | None]) -> Normalize:
    """The same limits for every arm, logarithmic where there is a wide range to show."""
    values = np.concatenate([field.values.ravel() for field in fields if field is not None])
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Normalize(0, 1)
    low, high = np.percentile(finite, [_CUT, 100 - _CUT])
    if finite.min() > 0 and high / low > _LOG_FROM:
        return LogNorm(low, high)
    return Normalize(low, high if high > low else low + max(abs(low), 1e-6))


def _write_row_heading(axes: Axes, words: str) -> None:
    """The words above a row of panels, from its first to its last.

    A title as long as that would take its width from the first panel; a blank one keeps the height.
    """
    axes.set_title(" ", fontsize=_HEAD_SIZE, pad=3)
    words = shorten_text(words, WIDTH - 0.8, _HEAD_SIZE, bold=True)
    head = axes.annotate(words, (0, 1), (0, 3), "axes fraction", "offset points", weight="bold")
    head.set(fontsize=_HEAD_SIZE, in_layout=False)


def _probe_note(planned: FigurePlan, grid: _ProbeFields) -> str:
    most = max(field.runs for field in grid.values())
    mean = f"Mean over up to {most} seeds" if most > 1 else "One seed"
    lines = [
        f"{mean}; from the first block (below) to the last, and within each in the order of "
        f"computation, without what follows the last block. A column reaches half-way to the next "
        f"measurement. Colours are the same for all arms, cut at {_CUT:g} % of the values at "
        f"either end; grey: not finite, or not measured."
    ]
    probed = len({arm.label for arm in planned.arms if probed_quantities([arm])})
    if probed > MOST_ARMS:
        lines.append(f"The {MOST_ARMS} of {probed} arms with the lowest validation loss.")
    return "\n".join(lines)
