"""The figure of some identity cards: six panels, one colour a norm."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from normlab.analysis import page
from normlab.analysis.style import GREY, INK, norm_colours, own_style
from normlab.apps.card.record import Card, Number, Ratio
from normlab.archive.steadiness import NOT_COMPARABLE, is_steady

NAME = "card"
MOST_CARDS = 12

_HEIGHT, _CARD = 4.9, 0.26  # inches: of the panels, and more for every card
_LEAST_SHOWN = 1e-8  # smaller singular values are drawn here
_NOTHING_COMPARABLE = (
    "No time is comparable: each varies\nby 10 % or more over the\nmeasurement, as on a machine\n"
    "that does other work."
)
_Panel = Callable[[Axes, Sequence[Card], dict[str, str]], None]


def draw(cards: Sequence[Card], folder: Path) -> list[Path]:
    """Write `card.png` and `card.svg` into the folder; returns their paths. Raises OSError."""
    with own_style():
        return page.save(_sheet(cards), folder, NAME)


def colours(cards: Sequence[Card]) -> dict[str, str]:
    """A colour by card: that of the norm, unless it is there twice with other arguments."""
    norms = {card.name: card.name.split()[0] for card in cards}
    if len(set(norms.values())) < len(norms):
        return norm_colours([card.name for card in cards])
    by_norm = norm_colours(list(norms.values()))
    return {name: by_norm[norm] for name, norm in norms.items()}


def _sheet(cards: Sequence[Card]) -> Figure:
    hidden = len(cards) - MOST_CARDS
    cards = cards[:MOST_CARDS]
    look = colours(cards)
    handles = [Line2D([], [], color=look[card.name], lw=2.5) for card in cards]
    legend: page.Legend = ([*handles], [card.name for card in cards])
    title = f"Identity card{'s' if len(cards) > 1 else ''} at width {cards[0].width}"
    height = _HEIGHT + _CARD * (len(cards) - 1)
    figure, body = page.sheet(title, _note(cards, hidden), legend, height)
    grid = body.subplots(2, 3).ravel()
    for axes, panel in zip(grid, _PANELS, strict=True):
        panel(axes, cards, look)
    return figure


def _response(axes: Axes, cards: Sequence[Card], look: dict[str, str]) -> None:
    axes.set_title("One feature's response")
    axes.set_ylabel("its output")
    for card in cards:
        axes.plot(card.curves.feature, _gaps(card.curves.response), color=look[card.name])
    _feature_axis(axes)


def _slope(axes: Axes, cards: Sequence[Card], look: dict[str, str]) -> None:
    axes.set_title("… and its slope")
    axes.set_ylabel("∂ output / ∂ input")
    for card in cards:
        axes.plot(card.curves.feature, _gaps(card.curves.slope), color=look[card.name])
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.05 * high), 1.05 * high)
    _feature_axis(axes)


def _feature_axis(axes: Axes) -> None:
    axes.set_xlabel("input, others N(0, 1)")
    axes.set_xticks([-6, -3, 0, 3, 6])
    axes.margins(x=0.02)


def _scale(axes: Axes, cards: Sequence[Card], look: dict[str, str]) -> None:
    axes.set_title("RMS out against RMS in")
    axes.set(xscale="log", yscale="log", xlabel="input RMS", ylabel="output RMS")
    for card in cards:
        axes.plot(card.curves.rms_in, _gaps(card.curves.rms_out), color=look[card.name])
    axes.set_xticks([1e-6, 1e-3, 1e0, 1e3, 1e6])
    axes.minorticks_off()


def _spectrum(axes: Axes, cards: Sequence[Card], look: dict[str, str]) -> None:
    axes.set_title("Jacobian")
    axes.set(yscale="log", xlabel="singular values, falling", ylabel="size at N(0, 1)")
    for card in cards:
        values = np.maximum(card.spectrum.values, _LEAST_SHOWN)
        place = np.linspace(0, 1, len(values))
        dotted = list(range(len(values) - card.spectrum.near_zero, len(values)))
        axes.plot(
            place, values, "o-", color=look[card.name], markevery=dotted, ms=4.5, clip_on=False
        )
    axes.set_xticks([0, 0.5, 1], ["first", "half", "last"])
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 1e-3), max(high, 10))
    axes.minorticks_off()


def _rounding(axes: Axes, cards: Sequence[Card], look: dict[str, str]) -> None:
    axes.set_title("Error in half precision")
    axes.set(yscale="log", ylabel="relative, in eps")
    kinds = [(at, kind) for at in range(2) for kind in ("output", "gradient")]
    for row, card in enumerate(cards):
        shift = 0.5 * ((row + 0.5) / len(cards) - 0.5)
        for place, (at, kind) in enumerate(kinds):
            one = card.rounding[at]
            typical, largest = getattr(one, f"{kind}_rms"), getattr(one, f"{kind}_max")
            if typical and largest:
                x, colour = place + shift, look[card.name]
                axes.plot([x, x], [typical, largest], color=colour, lw=1.2)
                axes.plot([x], [typical], "o", color=colour, ms=4.5)
                axes.plot([x], [largest], "_", color=colour, ms=6, mew=1.4)
    axes.axhline(0.5, color=GREY, lw=1.0, ls=(0, (1.0, 1.6)), zorder=1)
    names = [
        f"{('bf16', 'fp16')[at]}\n{'out' if kind == 'output' else '∂ in'}" for at, kind in kinds
    ]
    axes.set_xticks(range(4), names)
    axes.set_xlim(-0.5, 3.5)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.1), max(high, 3))
    axes.minorticks_off()
    axes.grid(visible=False, axis="x")


def _time(axes: Axes, cards: Sequence[Card], look: dict[str, str]) -> None:
    axes.set_title("Time over LayerNorm's")
    if not any(map(_is_comparable, _ratios(cards))):
        axes.set_axis_off()
        axes.text(0, 1, _NOTHING_COMPARABLE, transform=axes.transAxes, va="top", fontsize=8)
        return
    axes.set_xlabel("× LayerNorm")
    for row, card in enumerate(cards):
        for shift, ratio, alpha in ((-0.19, card.speed.forward, 0.45), (0.19, card.speed.both, 1)):
            _bar(axes, row + shift, ratio, look[card.name], alpha)
    axes.axvline(1, color=GREY, lw=1.0, ls=(0, (1.0, 1.6)), zorder=3)
    axes.set_ylim(len(cards) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_xlim(right=1.18 * max(1.0, axes.dataLim.x1))
    axes.grid(visible=False, axis="y")


def _ratios(cards: Sequence[Card]) -> list[Ratio]:
    return [ratio for card in cards for ratio in (card.speed.forward, card.speed.both)]


def _is_comparable(ratio: Ratio) -> bool:
    return ratio.variation is None or is_steady(ratio.variation)


def _bar(axes: Axes, row: float, ratio: Ratio, colour: str, alpha: float) -> None:
    if not _is_comparable(ratio):
        axes.plot([0], [row], "o", color=colour, alpha=alpha, ms=5, clip_on=False)
        words = axes.annotate(NOT_COMPARABLE, (0, row), (6, 0), textcoords="offset points")
        words.set(va="center", fontsize=7.5, color=GREY)
        return
    axes.barh(row, ratio.median, height=0.34, color=colour, alpha=alpha)
    axes.plot([ratio.low, ratio.high], [row, row], color=INK, lw=1.0)
    at = (max(ratio.high, ratio.median), row)
    value = axes.annotate(f"{ratio.median:.2g}", at, (4, 0), textcoords="offset points")
    value.set(va="center", fontsize=7.5)


def _gaps(values: Sequence[Number]) -> "np.ndarray[Any, Any]":
    """What is not finite leaves a gap."""
    return np.array([np.nan if value is None else value for value in values])


def _note(cards: Sequence[Card], hidden: int) -> str:
    card = cards[0]
    comparable = list(map(_is_comparable, _ratios(cards)))
    pale = "pale forward, full with backward; " * any(comparable)
    some_vary = any(comparable) and not all(comparable)
    varying = f"; {NOT_COMPARABLE}: varies by 10 % or more over the measurement" * some_vary
    threads = "1 thread" if card.speed.threads == 1 else f"{card.speed.threads} threads"
    return (
        "Parameters as they start. Jacobian: dots are values under 1e-4 of the largest, directions "
        "that the norm removes (those below 1e-8 drawn there).\n"
        "Error: the dot is the RMS, the tick the largest; dotted: exact, rounded once.\n"
        f"Time: {pale}fp32 {'×'.join(map(str, card.speed.shape))}, {threads}, median and quartiles"
        f"{varying}."
        + (f"\nThe first {MOST_CARDS} norms; {hidden} more are in card.json." * (hidden > 0))
    )


_PANELS: tuple[_Panel, ...] = (_response, _slope, _scale, _spectrum, _rounding, _time)
