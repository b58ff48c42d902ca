"""Identity cards as a table: a column a norm, side by side, as many as the terminal holds."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from normlab.apps.card.record import Card, Extreme, Number, Output, Ratio, Rounding
from normlab.archive.steadiness import NOT_COMPARABLE, is_steady

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# Columns of a terminal: the names of the rows, and a norm.
_NAMES, _COLUMN = 24, 18

_COLOURS = {"yes": "green", "to eps": "cyan", "at init": "yellow", "no": "dim"}


def show(console: "Console", cards: Sequence[Card]) -> None:
    """Print the cards, and what their words mean; more norms than fit stand in further tables."""
    together = max(1, (console.width - _NAMES) // _COLUMN)
    for at in range(0, len(cards), together):
        console.print(_table(cards[at : at + together]))
        console.print()
    leaking = [card.name for card in cards if card.leaks]
    if leaking:
        console.print(
            f"{', '.join(leaking)}: tokens see each other. A causal model would read the future, "
            f"and its losses mean nothing.",
            markup=False,
            style="bold red",
        )
    for note in _notes(cards[0]):
        console.print(note, markup=False, style="dim")


def rows(card: Card) -> Iterator[tuple[str, str | None]]:
    """What the card says, as names and values; a heading has the value None."""
    yield "learns", None
    yield "numbers", f"{card.total:,}"
    yield "tensors", ", ".join(f"{one.name} {_shape(one.shape)}" for one in card.parameters) or "–"
    yield "output RMS (mean)", None
    yield from ((one.input, _output(one)) for one in card.outputs)
    yield "holds (fails by)", None
    for one in card.invariances:
        yield one.equation, f"{one.verdict} ({_short(one.deviation)})"
    yield "Jacobian at N(0,1)", None
    spectrum = card.spectrum
    yield "largest singular value", _short(spectrum.values[0])
    yield "median, smallest", f"{_short(spectrum.median)}, {_short(spectrum.values[-1])}"
    yield "rank", f"{spectrum.rank:,}"
    yield "near zero", f"{spectrum.near_zero:,}"
    yield "condition of the rest", _short(spectrum.condition)
    yield "largest output, ∂ input", None
    for extreme in card.extremes:
        yield extreme.input, _extreme(extreme)
        if extreme.reach:
            yield "  reaches", extreme.reach
    yield "error in eps: RMS, max", None
    for rounding in card.rounding:
        yield from _rounding(rounding)
    yield "autograd", None
    yield "first derivative", card.gradcheck
    yield "second derivative", card.second_gradcheck
    yield "time over LayerNorm's", None
    yield "forward", _ratio(card.speed.forward)
    yield "forward and backward", _ratio(card.speed.both)


def _table(cards: Sequence[Card]) -> "Table":
    from rich import box
    from rich.text import Text

    from normlab.analysis.fitting_table import FittingTable

    table = FittingTable(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column(f"width {cards[0].width}", no_wrap=True)
    for card in cards:
        table.add_column(Text(card.name), overflow="fold", max_width=_COLUMN - 2)
    for line in zip(*map(rows, cards), strict=True):
        name = line[0][0]
        if line[0][1] is None:
            table.add_row(Text(name, style="bold"))
        else:
            table.add_row(Text(f"  {name}"), *(_coloured(Text(value or "")) for _, value in line))
    return table


def _coloured(text: "Text") -> "Text":
    for word, colour in _COLOURS.items():
        if text.plain.startswith(f"{word} ("):
            text.stylize(colour)
    return text


def _notes(card: Card) -> Iterator[str]:
    yield (
        "to eps: but for an eps, which larger inputs outgrow; at init: until the parameters move; "
        "near zero: below 1e-4 of the largest; ∂: steepest slope of a sum of ± outputs."
    )
    forward, both = card.speed.layernorm_milliseconds
    threads = "1 thread" if card.speed.threads == 1 else f"{card.speed.threads} threads"
    yield (
        f"LayerNorm takes {forward:.2f} ms, with backward {both:.2f} ms: fp32, "
        f"{'×'.join(map(str, card.speed.shape))}, {threads} of this CPU; quartiles in brackets; "
        f"{NOT_COMPARABLE}: the times vary by 10 % or more over the measurement."
    )


def _output(one: Output) -> str:
    return f"{_short(one.rms)} ({_short(one.mean)})"


def _extreme(one: Extreme) -> str:
    output = _short(one.largest) if one.output == "finite" else one.output
    gradient = _short(one.steepest) if one.gradient == "finite" else one.gradient
    return f"{output}, ∂ {gradient}"


def _rounding(one: Rounding) -> Iterator[tuple[str, str]]:
    for name, pair in (
        ("output", (one.output_rms, one.output_max)),
        ("∂ input", (one.gradient_rms, one.gradient_max)),
    ):
        numbers = "–" if pair == (None, None) else ", ".join(map(_short, pair))
        yield f"{one.format} {name}", f"{numbers} ({one.problem})" if one.problem else numbers


def _ratio(ratio: Ratio) -> str:
    if ratio.variation is not None and not is_steady(ratio.variation):
        return NOT_COMPARABLE
    digits = 2 if ratio.high < 10 else 1 if ratio.high < 100 else 0
    median, low, high = (f"{one:.{digits}f}" for one in (ratio.median, ratio.low, ratio.high))
    return f"{median} ({low}–{high})"


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _short(value: Number) -> str:
    """Three figures, or where they are out of reach the order of magnitude."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    near = 1e-3 <= abs(value) < 1e4
    text = f"{value:#.3g}".rstrip(".") if near else f"{value:.0e}".replace("e+", "e")
    return re.sub(r"e(-?)0", r"e\1", text)
