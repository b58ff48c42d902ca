"""The figure of `gradient_vanishing`: signal, information and gradient by depth.

Rows are what is measured, columns the networks: without a norm, with one before each ReLU, and the
Transformer by placement.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from normlab.analysis import page
from normlab.analysis.style import GREY, INK, LineStyle, norm_colours, placement_styles
from normlab.apps.experiments import theory
from normlab.apps.experiments.ends import End, label
from normlab.apps.experiments.numbers import plain, short
from normlab.apps.experiments.record import Measured, Profile, Vanishing
from normlab.archive.record import short_number

# Norms whose output has unit RMS as they start, so that theory knows it.
UNIT_RMS = ("rmsnorm", "layernorm", "layernorm_nobias", "gemma_rmsnorm", "scalenorm", "l1")
QUANTITIES = ("std", "share", "gradient")
_HEIGHT = 6.0  # inches
_INIT_COLOURS = {"PyTorch": INK, "no biases": "#8C510A", "Kaiming": "#01665E"}
_OTHER_WIDTH = "#8FA3B5"
_MOST_MARKERS = 9
_LEAST_SHARE = 1e-12  # what is smaller is drawn as if it were not there
_MOST_NAMES = 10  # in a panel, beside the curves; of more a legend tells
MOST_ARMS = 12  # in a panel


@dataclass(frozen=True)
class _Curve:
    """One profile in a panel: what it is called there and how it looks."""

    profile: Profile
    name: str
    colour: str
    line: LineStyle = "-"
    marker: str = "o"
    theory: bool = True
    normed: bool = False
    names_value: bool = False


def sheet(found: Measured) -> Figure:
    """The whole figure."""
    numbers: Vanishing = found.numbers
    title = "What depth does to signal, information and gradient at initialisation"
    normed = [numbers.stacks[0], *(one for one in numbers.stacks if one.norm != "none")]
    streams = [one for one in numbers.transformers if one.init == numbers.transformers[0].init]
    hidden = sum(max(0, len(profiles) - MOST_ARMS) for profiles in (normed, streams))
    normed, streams = normed[:MOST_ARMS], streams[:MOST_ARMS]
    colours = norm_colours([one.norm for one in (*normed, *streams)])
    columns = [_bare(numbers), _normed(normed, colours), _streams(streams, colours)]
    note = _note(found)
    if hidden:
        note += f"\nThe first {MOST_ARMS} networks of a panel; {hidden} more are in the numbers."
    figure, body = page.sheet(title, note, _legend(columns), _HEIGHT)
    grid = body.subplots(3, 3)
    heads = ("norm=none", "norm before ReLU", "Transformer")
    for row, (quantity, word) in enumerate(
        zip(QUANTITIES, ("Signal", "Information", "Gradient"), strict=True)
    ):
        for axes, curves, head in zip(grid[row], columns, heads, strict=True):
            axes.set_title(f"{word}: {head}", fontsize=9.5)
            _panel(axes, curves, quantity)
    for axes, name in zip(
        grid[:, 0], ("std", "share from the input", "norm over the last"), strict=True
    ):
        axes.set_ylabel(name)
    return figure


def _legend(columns: Sequence[Sequence[_Curve]]) -> page.Legend | None:
    """Norms by colour, placements by line, where a panel has too many to name them beside it."""
    curves = [one for some in columns if len(some) > _MOST_NAMES for one in some]
    if not curves:
        return None
    norms = {one.profile.norm: one for one in curves}
    placements = {one.profile.placement: one for one in curves if one.profile.placement}
    placements.pop("any", None)
    handles: list[Artist] = [Patch(color=one.colour) for one in norms.values()]
    handles += [
        Line2D([], [], color=GREY, ls=one.line, marker=one.marker, ms=3, lw=1)
        for one in placements.values()
    ]
    return handles, [*norms, *map(str, placements)]


def _bare(numbers: Vanishing) -> list[_Curve]:
    """The stacks without a norm; other widths are only there for their floors."""
    names = {"PyTorch": "biases", "no biases": "no biases", "Kaiming": "Kaiming"}
    main = numbers.stacks[0].width
    found = []
    for profile in numbers.stacks:
        if profile.norm != "none":
            continue
        if profile.width == main:
            colour = _INIT_COLOURS[profile.init]
            found.append(_Curve(profile, names[profile.init], colour, names_value=True))
        else:
            name = f"n={profile.width}"
            found.append(_Curve(profile, name, _OTHER_WIDTH, names_value=True))
    return found


def _normed(stacks: Sequence[Profile], colours: Mapping[str, str]) -> list[_Curve]:
    return [
        _Curve(
            one,
            one.norm,
            colours[one.norm],
            theory=one.norm in ("none", *UNIT_RMS),
            normed=one.norm != "none",
        )
        for one in stacks
    ]


def _streams(streams: Sequence[Profile], colours: Mapping[str, str]) -> list[_Curve]:
    looks = placement_styles([one.placement or "" for one in streams])
    return [
        _Curve(one, one.name, colours[one.norm], *looks[one.placement or ""], theory=False)
        for one in streams
    ]


def _panel(axes: Axes, curves: Sequence[_Curve], quantity: str) -> None:
    axes.set_yscale("log")
    blocks = curves[0].profile.placement is not None
    backwards = quantity == "gradient"
    unit = "block" if blocks else "layer"
    axes.set_xlabel(f"{unit}s back from the last" if backwards else unit)
    main = curves[0].profile.width
    drawn = [one for one in curves if one.profile.width == main or quantity == "std"]
    for curve in drawn:
        _draw(axes, curve, quantity)
    _limits(axes, quantity)
    depth = max(curve.profile.depth for curve in drawn)
    axes.set_xlim(-0.03 * depth, depth)
    if len(drawn) <= _MOST_NAMES:
        label(axes, depth, list(_ends(drawn, quantity)))
    axes.set_xticks(_ticks(depth))
    axes.minorticks_off()
    _decades(axes)


def _draw(axes: Axes, curve: _Curve, quantity: str) -> None:
    """Theory as a line and measurement as points; what has no theory as joined points."""
    measured = _values(curve.profile, quantity)
    places = range(len(measured))
    if curve.theory:
        axes.plot(places, expected(curve.profile, quantity, curve.normed), color=curve.colour, lw=1)
    else:
        axes.plot(places, measured, color=curve.colour, lw=1, ls=curve.line)
    every = max(1, math.ceil(len(measured) / _MOST_MARKERS))
    at = list(places)[::every]
    points = [measured[one] for one in at]
    axes.plot(at, points, ls="none", marker=curve.marker, ms=3, color=curve.colour)
    errors = _errors(curve.profile, quantity)
    if errors:
        spans = [2 * errors[one] * measured[one] for one in at]
        axes.errorbar(at, points, spans, fmt="none", ecolor=curve.colour, elinewidth=0.8)


def _values(profile: Profile, quantity: str) -> list[float]:
    """By layer; a gradient by layers back from the last."""
    values = [plain(value) for value in getattr(profile, quantity)]
    return values[::-1] if quantity == "gradient" else values


def _errors(profile: Profile, quantity: str) -> list[float]:
    if quantity == "share":
        return []
    source = profile.rms_error if quantity == "std" else profile.gradient_error
    errors = [0.0 if math.isnan(plain(value)) else plain(value) for value in source]
    return errors[::-1] if quantity == "gradient" else errors


def expected(profile: Profile, quantity: str, normed: bool) -> list[float]:
    """What theory says of a stack: std, rms or share by layer, or gradient by layers back."""
    weight = profile.weight or 0.0
    bias = (profile.bias or 0.0) / profile.width
    if quantity == "gradient":
        return theory.gradient(profile.depth, weight, bias, normed)[::-1]
    layers = theory.signal(profile.depth, weight, bias, normed)
    return [getattr(layer, quantity) for layer in layers]


def _ends(curves: Sequence[_Curve], quantity: str) -> Iterator[End]:
    for curve in curves:
        values = _values(curve.profile, quantity)
        finite = [value for value in values if not math.isnan(value)]
        if finite:
            value = f" {short(values[-1])}" if curve.names_value else ""
            rest = "" if curve.names_value or len(finite) == len(values) else ", not finite"
            yield End(finite[-1], curve.name + value + rest, curve.colour)


def _limits(axes: Axes, quantity: str) -> None:
    low, high = axes.get_ylim()
    # A panel where nothing happens must look like it.
    least, most = (_LEAST_SHARE, 2.0) if quantity == "share" else (0.0, max(high, 4.0))
    axes.set_ylim(max(least, min(low, 0.05)), most)


def _ticks(depth: int) -> list[int]:
    step = max(1, math.ceil(depth / 4))
    return list(range(0, depth + 1, step))


def _decades(axes: Axes) -> None:
    """At most five powers of ten."""
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    powers = list(range(math.ceil(low), math.floor(high) + 1))
    powers = powers[:: max(1, math.ceil(len(powers) / 5))]
    ticks = [10.0**power for power in powers]
    axes.set_yticks(ticks, [short_number(tick) for tick in ticks])


def _note(found: Measured) -> str:
    numbers: Vanishing = found.numbers
    stack, stream = numbers.stacks[0], numbers.transformers[0]
    first = found.settings["seeds"][0]
    return (
        f"Linear+ReLU, n={stack.width}, PyTorch's initialisation unless said, inputs N(0, 1), "
        f"{stack.seeds} seeds from {first}: points measured (bars: 2 standard errors), lines "
        "theory.\nInformation: share of the activations' variance that is variance across inputs "
        "at fixed weights. Gradient: the loss's by the activations.\n"
        f"Transformer: residual stream, n={stream.width}, weights N(0, 1/n), {stream.seeds} seeds, "
        "cross-entropy of random tokens; points joined, as for dyt and others without theory.\n"
        f"{found.origin.machine.get('cpu', '')}, torch {found.origin.versions.get('torch', '')}, "
        f"{found.origin.started[:10]}."
    )
