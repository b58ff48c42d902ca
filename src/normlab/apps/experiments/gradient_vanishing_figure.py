"""The figure of `gradient_vanishing`: signal, information and gradient by depth.

Rows are quantities, columns the networks: without a norm, with a norm before each ReLU, and the
Transformer by placement. Points are measurements, lines theory where there is any.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from normlab.analysis import sheet
from normlab.analysis.sheet import log_ticks
from normlab.analysis.style import INK, LineStyle, norm_colours, placement_styles
from normlab.apps.experiments.formatting import format_short
from normlab.apps.experiments.gradient_vanishing import DepthProfile, GradientVanishing
from normlab.apps.experiments.record import MeasurementRecord
from normlab.apps.experiments.signal_theory import UNIT_RMS_NORMS
from normlab.text import count_noun

_ROWS = {  # by quantity: the row's name and its y-axis
    "std": ("Signal", "std"),
    "share": ("Information", "share from the input"),
    "gradient": ("Gradient", "norm over the last"),
}
_COLUMNS = ("norm=none", "norm before ReLU", "Transformer")
_HEIGHT = 6.0  # inches
_INIT_STYLES = {  # names and colours of stacks without a norm
    "PyTorch": ("biases", INK),
    "no biases": ("no biases", "#8C510A"),
    "Kaiming": ("Kaiming", "#01665E"),
}
_OTHER_WIDTH_COLOUR = "#8FA3B5"
_MOST_MARKERS = 9
_LEAST_SHARE = 1e-12  # smaller shares are cut off
_MOST_CURVES = 10  # in a panel, which has their names at its right
_NAME_SIZE = 7.5  # points
# Share of a panel's width that the names get, and of its height that a line of them takes.
_NAMES_WIDTH, _NAME_HEIGHT = 0.46, 0.095


@dataclass(frozen=True)
class ProfileCurve:
    """A profile in a panel: its name there and how it looks."""

    profile: DepthProfile
    name: str
    colour: str
    line: LineStyle = "-"
    marker: str = "o"
    has_theory: bool = True
    shows_last_value: bool = False

    def values(self, quantity: str) -> list[float]:
        """By layer; a gradient by layers back from the last."""
        values = self.profile.by_layer(quantity)
        return values[::-1] if quantity.startswith("gradient") else values


def draw_figure(record: MeasurementRecord) -> Figure:
    """All panels, under one title and over a note."""
    numbers: GradientVanishing = record.numbers
    plain = numbers.stacks[0]
    normalized = [plain, *(stack for stack in numbers.stacks if stack.norm != "none")]
    first_init = numbers.transformers[0].init
    streams = [stream for stream in numbers.transformers if stream.init == first_init]
    colours = norm_colours([profile.norm for profile in (*normalized, *streams)])
    looks = placement_styles([stream.placement or "" for stream in streams])
    bare_curves = []
    for stack in numbers.stacks:
        if stack.norm == "none":
            name, colour = _INIT_STYLES[stack.init]
            if stack.width != plain.width:
                name, colour = f"n={stack.width}", _OTHER_WIDTH_COLOUR
            bare_curves.append(ProfileCurve(stack, name, colour, shows_last_value=True))
    columns = [
        bare_curves,
        [
            ProfileCurve(
                stack, stack.norm, colours[stack.norm],
                has_theory=stack.norm in ("none", *UNIT_RMS_NORMS),
            )
            for stack in normalized
        ],
        [
            ProfileCurve(
                stream, stream.name, colours[stream.norm], *looks[stream.placement or ""],
                has_theory=False,
            )
            for stream in streams
        ],
    ]  # fmt: skip
    note = _write_note(record)
    hidden = sum(max(0, len(column) - _MOST_CURVES) for column in columns)
    if hidden:
        note += f"\nThe first {_MOST_CURVES} networks of a panel; {hidden} more are in the numbers."
    title = "What depth does to signal, information and gradient at initialization"
    figure, body = sheet.create_sheet(title, note, None, _HEIGHT)
    grid = body.subplots(3, 3)
    for row, (quantity, (name, y_label)) in zip(grid, _ROWS.items(), strict=True):
        row[0].set_ylabel(y_label)
        for axes, curves, head in zip(row, columns, _COLUMNS, strict=True):
            axes.set_title(f"{name}: {head}", fontsize=9.5)
            _draw_panel(axes, curves[:_MOST_CURVES], quantity)
    return figure


def _draw_panel(axes: Axes, curves: Sequence[ProfileCurve], quantity: str) -> None:
    first = curves[0].profile
    # Other widths are there for their floors, which only the signal has.
    curves = [c for c in curves if c.profile.width == first.width or quantity == "std"]
    axes.set_yscale("log")
    unit = "layer" if first.placement is None else "block"
    axes.set_xlabel(f"{unit}s back from the last" if quantity == "gradient" else unit)
    for curve in curves:
        _draw_curve(axes, curve, quantity)
    low, high = axes.get_ylim()
    # A panel where nothing happens must look like it.
    least, most = (_LEAST_SHARE, 2.0) if quantity == "share" else (0.0, max(high, 4.0))
    axes.set_ylim(max(least, min(low, 0.05)), most)
    depth = max(curve.profile.depth for curve in curves)
    axes.set_xlim(-0.03 * depth, depth)
    _name_curves(axes, depth, curves, quantity)
    axes.set_xticks(range(0, depth + 1, max(1, math.ceil(depth / 4))))
    axes.minorticks_off()
    axes.set_yticks(log_ticks(*axes.get_ylim()))


def _draw_curve(axes: Axes, curve: ProfileCurve, quantity: str) -> None:
    """Theory as a line and measurements as points; what has no theory as joined points."""
    values = curve.values(quantity)
    if curve.has_theory:
        theory = curve.profile.expected_by_layer(quantity)
        theory = theory[::-1] if quantity == "gradient" else theory
        axes.plot(range(len(values)), theory, color=curve.colour, lw=1)
    else:
        axes.plot(range(len(values)), values, color=curve.colour, lw=1, ls=curve.line)
    step = max(1, math.ceil(len(values) / _MOST_MARKERS))
    layers, points = range(len(values))[::step], values[::step]
    axes.plot(layers, points, ls="none", marker=curve.marker, ms=3, color=curve.colour)
    if quantity != "share":
        errors = curve.values("gradient_error" if quantity == "gradient" else "rms_error")[::step]
        # The error of a single seed is not known: no bar.
        bars = np.nan_to_num([2 * e * point for e, point in zip(errors, points, strict=True)])
        axes.errorbar(layers, points, bars, fmt="none", ecolor=curve.colour, elinewidth=0.8)


def _name_curves(
    axes: Axes, last_layer: int, curves: Sequence[ProfileCurve], quantity: str
) -> None:
    """Write the names right of the last layer, each joined to its curve; y is logarithmic.

    Call it when the limits of y are set: this sets those of x.
    """
    left = min(0.0, axes.get_xlim()[0])
    axes.set_xlim(left, left + (last_layer - left) / (1 - _NAMES_WIDTH))
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    names, heights, colours = [], [], []
    for curve in curves:
        values = curve.values(quantity)
        finite = [value for value in values if not math.isnan(value)]
        if finite and finite[-1] > 0:
            name = curve.name
            if curve.shows_last_value:
                name += f" {format_short(values[-1])}"
            elif len(finite) < len(values):
                name += ", not finite"
            names.append(name)
            heights.append((math.log10(finite[-1]) - low) / (high - low))
            colours.append(curve.colour)
    gap = min(_NAME_HEIGHT, 1 / max(1, len(names)))
    name_x = 1 - _NAMES_WIDTH + 0.06
    separated = separate_heights(heights, gap)
    for name, height, name_y, colour in zip(names, heights, separated, colours, strict=True):
        axes.plot(
            [1 - _NAMES_WIDTH, name_x - 0.012], [min(max(height, 0.0), 1.0), name_y],
            transform=axes.transAxes, color=colour, lw=0.6, clip_on=False,
        )  # fmt: skip
        text = axes.text(name_x, name_y, name, transform=axes.transAxes, fontsize=_NAME_SIZE)
        text.set(color=colour, va="center", ha="left")
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.8})


def separate_heights(heights: Sequence[float], gap: float) -> list[float]:
    """Heights from 0 to 1, at least `gap` from each other, nearest to these by least squares.

    Less `gap` times their rank, separated heights only have to increase: an isotonic regression,
    whose bounds are those of the first and the last name.
    """
    if not heights:
        return []
    order = np.argsort(heights, kind="stable")
    offsets = gap * np.arange(len(heights))
    increasing = isotonic_regression(np.asarray(heights)[order] - offsets).x
    separated = np.empty(len(heights))
    separated[order] = np.clip(increasing, gap / 2, 1 - gap / 2 - offsets[-1]) + offsets
    return [float(height) for height in separated]


def _write_note(record: MeasurementRecord) -> str:
    numbers: GradientVanishing = record.numbers
    stack, stream, origin = numbers.stacks[0], numbers.transformers[0], record.origin
    stack_seeds, stream_seeds = (count_noun(p.seeds, "seed") for p in (stack, stream))
    return (
        f"Linear+ReLU, n={stack.width}, PyTorch's initialization unless said, inputs N(0, 1), "
        f"{stack_seeds} from {record.settings['seeds'][0]}: points measured (bars: 2 standard "
        "errors), lines theory.\nInformation: share of the activations' variance that is variance "
        "across inputs at fixed weights. Gradient: the loss's by the activations.\n"
        f"Transformer: residual stream, n={stream.width}, weights N(0, 1/n), {stream_seeds}, "
        "cross-entropy of random tokens; points joined, as for dyt and others without theory.\n"
        f"{origin.machine.get('cpu', '')}, torch {origin.versions.get('torch', '')}, "
        f"{origin.started[:10]}."
    )
