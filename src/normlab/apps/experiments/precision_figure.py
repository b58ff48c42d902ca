"""The figure of `precision`: error by the scale of the input, and what eps and the mean do."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from normlab.analysis import sheet
from normlab.analysis.arms import format_value
from normlab.analysis.sheet import log_ticks
from normlab.analysis.style import DOTTED, GREY, INK
from normlab.apps.experiments.precision import (
    EPS,
    MEANS,
    NARROW,
    NORM_NAMES,
    NORMS,
    WIDE,
    Precision,
    PrecisionCurve,
)
from normlab.apps.experiments.record import MeasurementRecord

_COLOURS = {"fp32": "#4D4D4D", "bf16": "#0072B2", "fp16": "#D55E00"}
_EPS_COLOURS = dict(zip(EPS, ("#009E73", "#CC79A7", "#8C510A"), strict=True))
_LINES: dict[str, Any] = {WIDE: "-", NARROW: (0, (4.0, 1.8))}
_HEIGHT = 6.6  # inches
_LOWEST, _HIGHEST, _CROSSES = 1e-8, 1e3, 300.0  # of the axis of errors, and where crosses stand
_SMALL = 7.5  # points


def draw_figure(record: MeasurementRecord) -> Figure:
    """All panels, under one legend and over a note."""
    numbers: Precision = record.numbers
    handles: list[Artist] = []
    labels: list[str] = []
    for curve in numbers.find_curves(norm=NORMS[0], eps=EPS[0]):
        handles.append(Line2D([], [], **_format_look(curve)))
        labels.append(curve.name)
    handles.append(Line2D([], [], color=INK, marker="x", ls="none", ms=5))
    labels.append("outputs that are not finite")
    title = "Norms in fp32, bf16 and fp16"
    figure, body = sheet.create_sheet(title, _write_note(record), (handles, labels), _HEIGHT)
    top, bottom = cast("list[SubFigure]", body.subfigures(2, 1, height_ratios=[1.75, 1]))
    panels = top.subplots(2, 2, sharex=True, sharey=True).ravel()
    for axes, norm in zip(panels, NORMS, strict=True):
        axes.set_title(NORM_NAMES[norm])
        _draw_errors(axes, numbers.scales, numbers.find_curves(norm=norm, eps=EPS[0]))
        _format_axes(axes, numbers.scales, "scale of the input")
    sheet.label_outer_panels(top.axes)
    by_eps, by_mean, output = bottom.subplots(1, 3)
    _draw_eps(by_eps, output, numbers)
    by_mean.set_title("LayerNorm, by mean (std 1)", fontsize=9)
    layernorm = [curve for curve in numbers.mean_curves if curve.norm == "layernorm"]
    # A logarithmic axis has no 0: the first mean stands a step before the second.
    positions = [MEANS[1] / (MEANS[2] / MEANS[1]), *MEANS[1:]]
    _draw_errors(by_mean, positions, layernorm)
    _format_axes(by_mean, positions, "mean of the input")
    by_mean.set_xticks(positions, [f"{mean:g}" for mean in MEANS])
    return figure


def _format_look(curve: PrecisionCurve) -> dict[str, Any]:
    return {"color": _COLOURS[curve.dtype], "ls": _LINES[curve.statistics]}


def _draw_errors(
    axes: Axes,
    positions: Sequence[float],
    curves: Sequence[PrecisionCurve],
    look: Callable[[PrecisionCurve], dict[str, Any]] = _format_look,
) -> None:
    """Every curve's error, and a row of crosses where outputs are not finite."""
    height = _CROSSES
    for curve in curves:
        error = np.maximum(np.array(curve.error, float), _LOWEST)
        axes.plot(positions, error, **look(curve))
        lost = [at for at, share in zip(positions, curve.lost, strict=True) if share]
        if lost:
            colour = look(curve)["color"]
            axes.plot(lost, [height] * len(lost), "x", color=colour, ms=4, mew=1.2)
            # On a logarithmic axis: the next curve's crosses stand below.
            height /= 3


def _format_axes(
    axes: Axes,
    positions: Sequence[float],
    label: str,
    limits: tuple[float, float] = (_LOWEST, _HIGHEST),
) -> None:
    axes.set_xlabel(label)
    axes.set_ylabel("error over output RMS")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(positions[0], positions[-1])
    axes.set_ylim(*limits)
    for axis, ends in ((axes.xaxis, (positions[0], positions[-1])), (axes.yaxis, limits)):
        axis.set_ticks(log_ticks(*ends, most=7))
    axes.minorticks_off()


def _draw_eps(errors: Axes, output: Axes, numbers: Precision) -> None:
    """RMSNorm with statistics in fp16, and its output in fp64: a line an eps."""
    errors.set_title("RMSNorm in fp16, by eps", fontsize=9)
    curves = numbers.find_curves(norm="rmsnorm", dtype="fp16", statistics=NARROW)
    _draw_errors(errors, numbers.scales, curves, lambda curve: {"color": _EPS_COLOURS[curve.eps]})
    _format_axes(errors, numbers.scales, "scale of the input")
    output.set_title("RMSNorm in fp64, by eps", fontsize=9)
    for eps, colour in _EPS_COLOURS.items():
        rms = numbers.output_rms[f"{eps:g}"]
        output.plot(numbers.scales, rms, color=colour, label=f"eps={format_value(eps)}")
        output.axvline(eps**0.5, color=GREY, lw=0.8, ls=DOTTED)
    _format_axes(output, numbers.scales, "scale of the input", (1e-4, 3.0))
    output.set_ylabel("RMS of the output")
    output.legend(fontsize=_SMALL, loc="lower right", handlelength=1.4)


def _write_note(record: MeasurementRecord) -> str:
    numbers: Precision = record.numbers
    machine, versions = record.origin.machine, record.origin.versions
    return (
        f"{numbers.tokens} Gaussian tokens of width {numbers.width}, times the scale and rounded "
        f"to the format; the error is to the same norm of the same rounded input in fp64, RMS over "
        f"all finite outputs. A line ends where the input itself is not finite in fp16.\n"
        f"Statistics in fp32: normlab's norms. In bf16 or fp16: every operation rounded to it. "
        f"Above, and by mean: eps={format_value(EPS[0])}. Below, left: statistics in fp16, colours "
        f"as on the right, where a dotted line is √eps.\n"
        f"{machine.get('cpu', '')}, torch {versions.get('torch', '')}, seed "
        f"{record.settings['seeds'][0]}, {record.origin.started[:10]}."
    )
