"""The figure of `layernorm_vs_rmsnorm`: distributions, what each norm does not feel, and time."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from normlab.analysis import page
from normlab.analysis.scales import log_ticks
from normlab.analysis.spread import Spread
from normlab.analysis.style import GREY, INK, norm_colours
from normlab.apps.experiments.comparison_words import CLAIMED_HIGH, CLAIMED_LOW
from normlab.apps.experiments.numbers import plain
from normlab.apps.experiments.record import Comparison, Measured, Shown
from normlab.apps.experiments.times import WAYS, over_torch, pairs, shapes
from normlab.archive.record import short_number
from normlab.archive.steadiness import NOT_COMPARABLE

NORMS = ("layernorm", "rmsnorm")
_HEIGHT = 6.1  # inches
_INPUT = "#D0D0D0"
_MARKERS = "osD^v<>p"
MOST_SHAPES = len(_MARKERS)
_LEAST = 1e-17  # smaller deviations are drawn here
_SMALL = 7.5


def sheet(found: Measured) -> Figure:
    """The whole figure."""
    numbers: Comparison = found.numbers
    hidden = len(shapes(numbers)) - MOST_SHAPES
    kept = set(shapes(numbers)[:MOST_SHAPES])
    times = tuple(one for one in numbers.times if (one.tokens, one.width) in kept)
    numbers = replace(numbers, times=times)
    colours = norm_colours(NORMS)
    note = _note(found) + (
        f"\nThe first {MOST_SHAPES} shapes; {hidden} more are in the numbers." * (hidden > 0)
    )
    handles: list[Artist] = [Patch(color=_INPUT)]
    handles += [Line2D([], [], color=colours[norm], lw=2.5) for norm in NORMS]
    legend: page.Legend = (handles, ["input", *NORMS])
    figure, body = page.sheet("LayerNorm and RMSNorm", note, legend, _HEIGHT)
    above, middle, below = cast(
        "list[SubFigure]", body.subfigures(3, 1, height_ratios=[1, 1.15, 1.6])
    )
    for axes, shown in zip(above.subplots(1, len(numbers.inputs)), numbers.inputs, strict=True):
        _histogram(axes, shown, colours)
    direction, invariances, parameters = middle.subplots(1, 3, width_ratios=[1, 1.5, 0.6])
    _direction(direction, numbers, colours)
    _invariances(invariances, numbers, colours)
    _parameters(parameters, numbers, colours)
    left, right = below.subplots(1, 2)
    _time(left, right, numbers, colours)
    return figure


def _histogram(axes: Axes, shown: Shown, colours: dict[str, str]) -> None:
    axes.set_title(f"Input: {shown.input}", fontsize=9)
    axes.stairs(shown.before.shares, shown.edges, fill=True, color=_INPUT)
    tops = [max(shown.before.shares)]
    for norm in NORMS:
        after = shown.after[norm]
        # LayerNorm's line is the wider: where both are one, both are seen.
        axes.stairs(after.shares, shown.edges, color=colours[norm], lw=2.2 - NORMS.index(norm))
        tops.append(max(after.shares))
    axes.set_ylim(0, 1.55 * max(tops))
    for row, norm in enumerate(NORMS):
        after = shown.after[norm]
        words = f"mean {_tidy(after.mean)}, std {_tidy(after.std)}"
        said = axes.text(0.99, 0.97 - 0.14 * row, words, transform=axes.transAxes, fontsize=_SMALL)
        said.set(ha="right", va="top", color=colours[norm])
    axes.set_xlim(shown.edges[0], shown.edges[-1])
    axes.set_xticks([-3, 0, 3, 6])
    axes.set_yticks([])
    axes.grid(visible=False)


def _tidy(value: float) -> str:
    return f"{0.0 if abs(value) < 0.005 else value:.2f}"


def _direction(axes: Axes, numbers: Comparison, colours: dict[str, str]) -> None:
    axes.set_title("Direction kept", fontsize=9)
    axes.set_xlabel("cosine of input and output")
    for row, shown in enumerate(numbers.inputs):
        for shift, norm in zip((-0.19, 0.19), NORMS, strict=True):
            axes.barh(row + shift, shown.cosine[norm], height=0.34, color=colours[norm])
    axes.set_yticks(
        range(len(numbers.inputs)),
        [one.input.replace("one feature", "one at") for one in numbers.inputs],
        fontsize=_SMALL,
    )
    axes.set_ylim(len(numbers.inputs) - 0.4, -0.6)
    axes.set_xlim(0, 1.05)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.grid(visible=False, axis="y")


def _invariances(axes: Axes, numbers: Comparison, colours: dict[str, str]) -> None:
    axes.set_title("Invariances: change of the output", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlabel("over its RMS; full: eps=0, open: default eps")
    tried = numbers.invariances["layernorm"]
    for key, several in numbers.invariances.items():
        norm, exact = key.split()[0], "eps=0" in key
        for row, one in enumerate(several):
            x = max(plain(one.deviation), _LEAST)
            y = row + (0.17 if norm == "rmsnorm" else -0.17)
            face = colours[norm] if exact else "white"
            axes.plot([x], [y], "o", ms=5.5, color=colours[norm], mfc=face, clip_on=False)
    axes.set_yticks(
        range(len(tried)), [f"{one.name}\n{one.equation}" for one in tried], fontsize=6.8
    )
    axes.set_ylim(len(tried) - 0.4, -0.6)
    axes.set_xlim(_LEAST, 100)
    ticks = [1e-16, 1e-12, 1e-8, 1e-4, 1]
    axes.set_xticks(ticks, [short_number(tick) for tick in ticks])
    axes.minorticks_off()


def _parameters(axes: Axes, numbers: Comparison, colours: dict[str, str]) -> None:
    axes.set_title("Parameters", fontsize=9)
    for at, norm in enumerate(NORMS):
        count = numbers.parameters[norm]
        axes.bar(at, count, width=0.6, color=colours[norm])
        said = axes.annotate(f"{count:,}", (at, count), (0, 3), textcoords="offset points")
        said.set(ha="center", fontsize=_SMALL)
    axes.set_xticks(range(2), NORMS, fontsize=_SMALL)
    axes.set_ylim(0, 1.25 * max(numbers.parameters.values()))
    axes.set_yticks([])
    axes.set_xlabel(f"at width {numbers.width}")
    axes.grid(visible=False)


def _time(left: Axes, right: Axes, numbers: Comparison, colours: dict[str, str]) -> None:
    there = [way for way in WAYS if any(one.way == way for one in numbers.times)]
    left.set_title("Time over F.layer_norm's", fontsize=9)
    for one in numbers.times:
        row = there.index(one.way)
        at = shapes(numbers).index((one.tokens, one.width))
        y = row + (0.2 if one.norm == "rmsnorm" else -0.2) + _offset(numbers, at)
        _point(left, over_torch(numbers, one), y, colours[one.norm], _MARKERS[at])
    _ways(left, there)
    right.set_title("RMSNorm's time over LayerNorm's", fontsize=9)
    right.axvspan(1 / (1 + CLAIMED_HIGH), 1 / (1 + CLAIMED_LOW), color="#F3E3B3", lw=0, zorder=0)
    for pair in pairs(numbers, there):
        at = shapes(numbers).index(pair.shape)
        y = there.index(pair.way) + 2 * _offset(numbers, at)
        _point(right, pair.both, y, INK, _MARKERS[at])
    _ways(right, there, named=False)
    marks: list[Artist] = [
        Line2D([], [], color=GREY, marker=_MARKERS[at], ls="none", ms=4)
        for at in range(len(shapes(numbers)))
    ]
    names = [f"{tokens}×{width}" for tokens, width in shapes(numbers)]
    marks.append(Patch(color="#F3E3B3"))
    names.append(f"claimed: {100 * CLAIMED_LOW:.0f}–{100 * CLAIMED_HIGH:.0f} % faster")
    right.legend(marks, names, loc="lower right", fontsize=_SMALL, handlelength=1.2)


def _offset(numbers: Comparison, at: int) -> float:
    """Shapes lie one under the other within a row."""
    count = len(shapes(numbers))
    return 0.3 * ((at + 0.5) / count - 0.5)


def _point(axes: Axes, value: Spread | None, y: float, colour: str, marker: str) -> None:
    if value is None:
        return
    axes.plot([value.low, value.high], [y, y], color=colour, lw=0.9)
    axes.plot([value.median], [y], marker=marker, ms=4, color=colour)


def _ways(axes: Axes, there: Sequence[str], named: bool = True) -> None:
    axes.set_xscale("log")
    axes.axvline(1, color=GREY, lw=1.0, ls=(0, (1.0, 1.6)), zorder=1)
    axes.set_ylim(len(there) - 0.4, -0.6)
    axes.set_yticks(range(len(there)), there if named else [""] * len(there), fontsize=_SMALL)
    axes.tick_params(axis="y", length=0)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.5), max(high, 2.0))
    low, high = axes.get_xlim()
    ticks = log_ticks(low, high)
    axes.set_xticks(ticks, [short_number(tick) for tick in ticks])
    axes.minorticks_off()


def _note(found: Measured) -> str:
    numbers: Comparison = found.numbers
    rounds = len(numbers.times[0].both) if numbers.times else 0
    machine, versions = found.origin.machine, found.origin.versions
    threads = machine.get("threads", "")
    threads = "1 thread" if threads == 1 else f"{threads} threads"
    every = [over_torch(numbers, one) for one in numbers.times]
    every += [pair.both for pair in pairs(numbers, list(WAYS))]
    noisy = every.count(None)
    varying = (
        f"Not drawn: {noisy} of {len(every)} ratios, {NOT_COMPARABLE}: their times vary by 10 % or "
        "more over the measurement.\n"
        if noisy
        else ""
    )
    missing = "; ".join(f"{way}: {why}" for way, why in numbers.not_timed.items())
    return (
        f"Distributions at width {numbers.width}, parameters as they start, all numbers of all "
        "tokens together;\nthe change of the output with parameters moved off their start.\n"
        "Times of forward and backward in fp32, tokens×width, all in turn: median and quartiles "
        f"of {rounds} ratios inside a round.\nfused: normlab's kernels; torch: its functions; "
        "composite: written out; x.var: the same with it, held against RMSNorm written out.\n"
        f"{varying}"
        f"{machine.get('cpu', '')}, {threads}, torch "
        f"{versions.get('torch', '')}, seed {found.settings['seeds'][0]}, "
        f"{found.origin.started[:10]}.{' ' + missing[:80] if missing else ''}"
    )
