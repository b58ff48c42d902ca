"""The figure of identity cards: six panels, one colour a norm."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from normlab.analysis import sheet
from normlab.analysis.style import DOTTED, GREY, INK, figure_style, norm_colours
from normlab.apps.card.record import Card, Ratio
from normlab.archive.steadiness import NOT_COMPARABLE

NAME = "card"
MOST_CARDS = 12

_HEIGHT, _HEIGHT_PER_CARD = 4.9, 0.26  # inches: of the panels, and more for every further card
_SMALLEST_VALUE = 1e-8  # smaller singular values are drawn here
_NOTHING_COMPARABLE = (
    "No time is comparable: each varies\nby 10 % or more over the\nmeasurement, as on a machine\n"
    "that does other work."
)


def draw_cards(cards: Sequence[Card], folder: Path) -> list[Path]:
    """Write `card.png` and `card.svg` into the folder; returns their paths. Raises OSError."""
    with figure_style():
        return sheet.save_figure(build_figure(cards), folder, NAME)


def card_colours(cards: Sequence[Card]) -> dict[str, str]:
    """A colour by card: that of the norm, unless it is there twice with other arguments."""
    norms = {card.name: card.name.split()[0] for card in cards}
    if len(set(norms.values())) < len(norms):
        return norm_colours([card.name for card in cards])
    by_norm = norm_colours(list(norms.values()))
    return {name: by_norm[norm] for name, norm in norms.items()}


def build_figure(cards: Sequence[Card]) -> Figure:
    """All panels, under one legend and over a note, of the first MOST_CARDS norms."""
    hidden = len(cards) - MOST_CARDS
    cards = cards[:MOST_CARDS]
    by_name = card_colours(cards)
    colours = [by_name[card.name] for card in cards]
    handles = [Line2D([], [], color=colour, lw=2.5) for colour in colours]
    legend: sheet.Legend = ([*handles], [card.name for card in cards])
    title = f"Identity card{'s' if len(cards) > 1 else ''} at width {cards[0].width}"
    height = _HEIGHT + _HEIGHT_PER_CARD * (len(cards) - 1)
    figure, body = sheet.create_sheet(title, _write_note(cards, hidden), legend, height)
    response, slope, scale, spectrum, rounding, speed = body.subplots(2, 3).ravel()

    response.set_title("One feature's response")
    response.set_ylabel("its output")
    slope.set_title("… and its slope")
    slope.set_ylabel("∂ output / ∂ input")
    scale.set_title("RMS out against RMS in")
    scale.set(xscale="log", yscale="log", xlabel="input RMS", ylabel="output RMS")
    for card, colour in zip(cards, colours, strict=True):
        curves = card.curves
        # As floats: None, which is not finite, leaves a gap.
        response.plot(curves.feature, np.array(curves.response, float), color=colour)
        slope.plot(curves.feature, np.array(curves.slope, float), color=colour)
        # A logarithm has no zero, which a gap shows.
        sizes = np.array(curves.rms_out, float)
        scale.plot(curves.rms_in, np.where(sizes > 0, sizes, np.nan), color=colour)
    low, high = slope.get_ylim()
    slope.set_ylim(min(low, -0.05 * high), 1.05 * high)
    for axes in (response, slope):
        axes.set_xlabel("input, others N(0, 1)")
        axes.set_xticks([-6, -3, 0, 3, 6])
        axes.margins(x=0.02)
    scale.set_xticks([1e-6, 1e-3, 1e0, 1e3, 1e6])
    scale.minorticks_off()

    _draw_spectra(spectrum, cards, colours)
    _draw_rounding(rounding, cards, colours)
    _draw_times(speed, cards, colours)
    return figure


def _draw_spectra(axes: Axes, cards: Sequence[Card], colours: Sequence[str]) -> None:
    axes.set_title("Jacobian")
    axes.set(yscale="log", xlabel="singular values, falling", ylabel="size at N(0, 1)")
    # Equal curves lie on each other: the first is wide, each further one narrower.
    widths = np.linspace(1.4 + min(3.0, 1.4 * (len(cards) - 1)), 1.4, len(cards))
    for row, (card, colour) in enumerate(zip(cards, colours, strict=True)):
        values = np.maximum(card.spectrum.values, _SMALLEST_VALUE)
        x = np.linspace(0, 1, len(values))
        near_zero = list(range(len(values) - card.spectrum.near_zero, len(values)))
        axes.plot(
            x, values, "o-", color=colour, markevery=near_zero, ms=3 + widths[row], lw=widths[row],
            clip_on=False,
        )  # fmt: skip
    axes.set_xticks([0, 0.5, 1], ["first", "half", "last"])
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 1e-3), max(high, 10))
    axes.minorticks_off()


def _draw_rounding(axes: Axes, cards: Sequence[Card], colours: Sequence[str]) -> None:
    axes.set_title("Error in half precision")
    axes.set(yscale="log", ylabel="relative, in eps")
    for row, (card, colour) in enumerate(zip(cards, colours, strict=True)):
        shift = 0.5 * ((row + 0.5) / len(cards) - 0.5)
        bf16, fp16 = card.rounding
        pairs = [
            pair
            for rounding in (bf16, fp16)
            for pair in (
                (rounding.output_rms, rounding.output_max),
                (rounding.gradient_rms, rounding.gradient_max),
            )
        ]
        for column, (rms, largest) in enumerate(pairs):
            # A logarithmic axis has no 0; None is a format that the norm fails in.
            if rms and largest:
                x = column + shift
                axes.plot([x, x], [rms, largest], color=colour, lw=1.2)
                axes.plot([x], [rms], "o", color=colour, ms=4.5)
                axes.plot([x], [largest], "_", color=colour, ms=6, mew=1.4)
    axes.axhline(0.5, color=GREY, lw=1.0, ls=DOTTED, zorder=1)
    axes.set_xticks(range(4), ["bf16\nout", "bf16\n∂ in", "fp16\nout", "fp16\n∂ in"])
    axes.set_xlim(-0.5, 3.5)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.1), max(high, 3))
    axes.minorticks_off()
    axes.grid(visible=False, axis="x")


def _draw_times(axes: Axes, cards: Sequence[Card], colours: Sequence[str]) -> None:
    axes.set_title("Time over LayerNorm's")
    if not any(_comparable_times(cards)):
        axes.set_axis_off()
        axes.text(0, 1, _NOTHING_COMPARABLE, transform=axes.transAxes, va="top", fontsize=8)
        return
    axes.set_xlabel("× LayerNorm")
    for row, (card, colour) in enumerate(zip(cards, colours, strict=True)):
        for shift, ratio, alpha in ((-0.19, card.speed.forward, 0.45), (0.19, card.speed.both, 1)):
            _draw_bar(axes, row + shift, ratio, colour, alpha)
    axes.axvline(1, color=GREY, lw=1.0, ls=DOTTED, zorder=3)
    # Downwards: the first card is at the top.
    axes.set_ylim(len(cards) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_xlim(right=1.18 * max(1.0, axes.dataLim.x1))
    axes.grid(visible=False, axis="y")


def _draw_bar(axes: Axes, y: float, ratio: Ratio, colour: str, alpha: float) -> None:
    if not ratio.is_comparable:
        axes.plot([0], [y], "o", color=colour, alpha=alpha, ms=5, clip_on=False)
        label = axes.annotate(NOT_COMPARABLE, (0, y), (6, 0), textcoords="offset points")
        label.set(va="center", fontsize=7.5, color=GREY)
        return
    axes.barh(y, ratio.median, height=0.34, color=colour, alpha=alpha)
    axes.plot([ratio.low, ratio.high], [y, y], color=INK, lw=1.0)
    end = (max(ratio.high, ratio.median), y)
    label = axes.annotate(f"{ratio.median:.2g}", end, (4, 0), textcoords="offset points")
    label.set(va="center", fontsize=7.5)


def _comparable_times(cards: Sequence[Card]) -> list[bool]:
    """Of every card forward, then with backward."""
    ratios = [ratio for card in cards for ratio in (card.speed.forward, card.speed.both)]
    return [ratio.is_comparable for ratio in ratios]


def _write_note(cards: Sequence[Card], hidden: int) -> str:
    speed, comparable = cards[0].speed, _comparable_times(cards)
    pale = "pale forward, full with backward; " if any(comparable) else ""
    varying = f"; {NOT_COMPARABLE}: varies by 10 % or more over the measurement"
    note = (
        "Parameters as they start. Jacobian: dots are values under 1e-4 of the largest, directions "
        "that the norm removes (those below 1e-8 drawn there).\n"
        "Error: the dot is the RMS, the tick the largest; dotted: exact, rounded once.\n"
        f"Time: {pale}fp32 {speed.circumstances}, median and quartiles"
        f"{varying if any(comparable) and not all(comparable) else ''}."
    )
    if hidden > 0:
        note += f"\nThe first {MOST_CARDS} norms; {hidden} more are in card.json."
    return note
