"""The figure of `layernorm_vs_rmsnorm`: distributions, invariances, and time."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from normlab.analysis import sheet
from normlab.analysis.sheet import log_ticks
from normlab.analysis.statistics import Spread
from normlab.analysis.style import DOTTED, GREY, INK, norm_colours
from normlab.apps.experiments.layernorm_vs_rmsnorm import (
    CLAIMED_SAVING,
    IMPLEMENTATIONS,
    LayerNormVsRmsNorm,
    NormalizedInput,
)
from normlab.apps.experiments.record import MeasurementRecord
from normlab.archive.steadiness import NOT_COMPARABLE
from normlab.archive.versioned_json import none_to_nan

_NORMS = ("layernorm", "rmsnorm")
_COLOURS = norm_colours(_NORMS)
_INPUT_COLOUR, _CLAIM_COLOUR = "#D0D0D0", "#F3E3B3"
_MARKERS = "osD^v<>p"
MOST_SHAPES = len(_MARKERS)
_HEIGHT = 6.1  # inches
_LEAST_CHANGE = 1e-17  # smaller changes of the output are drawn here
_SMALL = 7.5  # points


def draw_figure(record: MeasurementRecord) -> Figure:
    """All panels, under one legend and over a note."""
    note = _write_note(record)
    numbers: LayerNormVsRmsNorm = record.numbers
    shapes = numbers.shapes[:MOST_SHAPES]
    hidden = len(numbers.shapes) - len(shapes)
    if hidden:
        note += f"\nThe first {MOST_SHAPES} shapes; {hidden} more are in the numbers."
        times = tuple(times for times in numbers.times if times.shape in shapes)
        numbers = replace(numbers, times=times)
    handles: list[Artist] = [Patch(color=_INPUT_COLOUR)]
    handles += [Line2D([], [], color=_COLOURS[norm], lw=2.5) for norm in _NORMS]
    legend: sheet.Legend = (handles, ["input", *_NORMS])
    figure, body = sheet.create_sheet("LayerNorm and RMSNorm", note, legend, _HEIGHT)
    rows = body.subfigures(3, 1, height_ratios=[1, 1.15, 1.6])
    top, middle, bottom = cast("list[SubFigure]", rows)
    for axes, kind in zip(top.subplots(1, len(numbers.inputs)), numbers.inputs, strict=True):
        _draw_distribution(axes, kind)
    direction, invariances, parameters = middle.subplots(1, 3, width_ratios=[1, 1.5, 0.6])
    _draw_direction(direction, numbers.inputs)
    _draw_invariances(invariances, numbers)
    _draw_parameters(parameters, numbers)
    over_torch, over_layernorm = bottom.subplots(1, 2)
    _draw_times(over_torch, over_layernorm, numbers)
    return figure


def _draw_distribution(axes: Axes, kind: NormalizedInput) -> None:
    axes.set_title(f"Input: {kind.input}", fontsize=9)
    axes.stairs(kind.before.shares, kind.edges, fill=True, color=_INPUT_COLOUR)
    tops = [max(kind.before.shares)]
    for row, norm in enumerate(_NORMS):
        after = kind.after[norm]
        # LayerNorm's line is the wider: where both lines coincide, both are seen.
        axes.stairs(after.shares, kind.edges, color=_COLOURS[norm], lw=2.2 - row)
        tops.append(max(after.shares))
        # Else it could read −0.00.
        mean = 0.0 if abs(after.mean) < 0.005 else after.mean
        std = 0.0 if abs(after.std) < 0.005 else after.std
        label = f"mean {mean:.2f}, std {std:.2f}"
        axes.text(
            0.99, 0.97 - 0.14 * row, label, transform=axes.transAxes, fontsize=_SMALL,
            ha="right", va="top", color=_COLOURS[norm],
        )  # fmt: skip
    axes.set_ylim(0, 1.55 * max(tops))
    axes.set_xlim(kind.edges[0], kind.edges[-1])
    axes.set_xticks([-3, 0, 3, 6])
    axes.set_yticks([])
    axes.grid(visible=False)


def _draw_direction(axes: Axes, inputs: Sequence[NormalizedInput]) -> None:
    axes.set_title("Direction kept", fontsize=9)
    axes.set_xlabel("cosine of input and output")
    for row, kind in enumerate(inputs):
        for shift, norm in zip((-0.19, 0.19), _NORMS, strict=True):
            axes.barh(row + shift, kind.cosine[norm], height=0.34, color=_COLOURS[norm])
    names = [kind.input.replace("one feature", "one at") for kind in inputs]
    axes.set_yticks(range(len(names)), names, fontsize=_SMALL)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.05)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.grid(visible=False, axis="y")


def _draw_invariances(axes: Axes, numbers: LayerNormVsRmsNorm) -> None:
    axes.set_title("Invariances: change of the output", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlabel("over its RMS; full: eps=0, open: default eps")
    for key, results in numbers.invariances.items():
        norm = key.split()[0]
        colour = _COLOURS[norm]
        fill = colour if "eps=0" in key else "white"
        for row, result in enumerate(results):
            x = max(none_to_nan(result.deviation), _LEAST_CHANGE)
            y = row + (0.17 if norm == "rmsnorm" else -0.17)
            axes.plot([x], [y], "o", ms=5.5, color=colour, mfc=fill, clip_on=False)
    names = [f"{result.name}\n{result.equation}" for result in numbers.invariances["layernorm"]]
    axes.set_yticks(range(len(names)), names, fontsize=6.8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(_LEAST_CHANGE, 100)
    axes.set_xticks([1e-16, 1e-12, 1e-8, 1e-4, 1])
    axes.minorticks_off()


def _draw_parameters(axes: Axes, numbers: LayerNormVsRmsNorm) -> None:
    axes.set_title("Parameters", fontsize=9)
    for column, norm in enumerate(_NORMS):
        count = numbers.parameters[norm]
        axes.bar(column, count, width=0.6, color=_COLOURS[norm])
        axes.annotate(
            f"{count:,}", (column, count), (0, 3), textcoords="offset points", ha="center",
            fontsize=_SMALL,
        )  # fmt: skip
    axes.set_xticks(range(2), _NORMS, fontsize=_SMALL)
    axes.set_ylim(0, 1.25 * max(numbers.parameters.values()))
    axes.set_yticks([])
    axes.set_xlabel(f"at width {numbers.width}")
    axes.grid(visible=False)


def _draw_times(left: Axes, right: Axes, numbers: LayerNormVsRmsNorm) -> None:
    """A row an implementation; in it the shapes lie under each other, each with its marker."""
    timed = {times.way for times in numbers.times}
    rows = [name for name in IMPLEMENTATIONS if name in timed]
    shapes = numbers.shapes
    offsets = [0.3 * ((index + 0.5) / len(shapes) - 0.5) for index in range(len(shapes))]
    left.set_title("Time over F.layer_norm's", fontsize=9)
    for times in numbers.times:
        index = shapes.index(times.shape)
        shift = 0.2 if times.norm == "rmsnorm" else -0.2
        y = rows.index(times.way) + shift + offsets[index]
        ratio = numbers.ratio_to_torch(times)
        _draw_ratio(left, ratio, y, _COLOURS[times.norm], _MARKERS[index])
    _format_time_axes(left, rows, rows)
    right.set_title("RMSNorm's time over LayerNorm's", fontsize=9)
    low, high = CLAIMED_SAVING
    right.axvspan(1 - high, 1 - low, color=_CLAIM_COLOUR, lw=0, zorder=0)
    for time_ratio in numbers.time_ratios(rows):
        index = shapes.index(time_ratio.shape)
        y = rows.index(time_ratio.implementation) + 2 * offsets[index]
        _draw_ratio(right, time_ratio.both, y, INK, _MARKERS[index])
    _format_time_axes(right, rows, [""] * len(rows))
    handles: list[Artist] = [
        Line2D([], [], color=GREY, marker=marker, ls="none", ms=4)
        for marker in _MARKERS[: len(shapes)]
    ]
    labels = [f"{tokens}×{width}" for tokens, width in shapes]
    handles.append(Patch(color=_CLAIM_COLOUR))
    labels.append(f"paper: {100 * low:.0f}–{100 * high:.0f} % less time")
    right.legend(handles, labels, loc="lower right", fontsize=_SMALL, handlelength=1.2)


def _draw_ratio(axes: Axes, ratio: Spread | None, y: float, colour: str, marker: str) -> None:
    if ratio:
        axes.plot([ratio.low, ratio.high], [y, y], color=colour, lw=0.9)
        axes.plot([ratio.median], [y], marker=marker, ms=4, color=colour)


def _format_time_axes(axes: Axes, rows: Sequence[str], labels: Sequence[str]) -> None:
    axes.set_xscale("log")
    axes.axvline(1, color=GREY, lw=1.0, ls=DOTTED, zorder=1)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), labels, fontsize=_SMALL)
    axes.tick_params(axis="y", length=0)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.5), max(high, 2.0))
    axes.set_xticks(log_ticks(*axes.get_xlim()))
    axes.minorticks_off()


def _write_note(record: MeasurementRecord) -> str:
    numbers: LayerNormVsRmsNorm = record.numbers
    machine, versions = record.origin.machine, record.origin.versions
    rounds = len(numbers.times[0].both) if numbers.times else 0
    threads = machine.get("threads", "")
    ratios = [numbers.ratio_to_torch(times) for times in numbers.times]
    ratios += [ratio.both for ratio in numbers.time_ratios(list(IMPLEMENTATIONS))]
    noisy = ""
    if None in ratios:
        noisy = (
            f"Not drawn: {ratios.count(None)} of {len(ratios)} ratios, {NOT_COMPARABLE}: their "
            "times vary by 10 % or more over the measurement.\n"
        )
    missing = "; ".join(f"{name}: {reason}" for name, reason in numbers.not_timed.items())
    return (
        f"Distributions at width {numbers.width}, parameters as they start, all numbers of all "
        "tokens together;\nthe change of the output with parameters moved off their start.\n"
        "Times of forward and backward in fp32, tokens×width, all in turn: median and quartiles "
        f"of {rounds} ratios inside a round.\nfused: normlab's kernels; torch: its functions; "
        "composite: written out; x.var: the same with it, held against RMSNorm written out.\n"
        f"{noisy}{machine.get('cpu', '')}, {threads} thread{'s' * (threads != 1)}, torch "
        f"{versions.get('torch', '')}, seed {record.settings['seeds'][0]}, "
        f"{record.origin.started[:10]}.{' ' + missing[:80] if missing else ''}"
    )
