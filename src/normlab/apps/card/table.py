"""Identity cards in the terminal: a column a norm, as many beside each other as it holds."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from normlab.analysis.formatting import format_number
from normlab.apps.card.record import Card, Ratio
from normlab.archive.steadiness import NOT_COMPARABLE

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Columns of a terminal: the names of the rows, and a norm.
_NAMES_WIDTH, _NORM_WIDTH = 24, 18
_VERDICT_COLOURS = {"yes": "green", "to eps": "cyan", "at init": "yellow", "no": "dim"}


def print_cards(console: "Console", cards: Sequence[Card]) -> None:
    """Print the cards, and what their words mean; norms that do not fit get further tables."""
    columns = max(1, (console.width - _NAMES_WIDTH) // _NORM_WIDTH)
    for first in range(0, len(cards), columns):
        console.print(_build_table(cards[first : first + columns]))
        console.print()
    leaking = [card.name for card in cards if card.leaks]
    if leaking:
        console.print(
            f"{', '.join(leaking)}: tokens see each other. A causal model would read the future, "
            f"and its losses mean nothing.",
            markup=False,
            style="bold red",
        )
    speed = cards[0].speed
    forward, both = speed.layernorm_milliseconds
    for note in (
        "to eps: holds apart from the effect of eps, which vanishes for large inputs; at init: "
        "until the parameters move; near zero: below 1e-4 of the largest; ∂: largest gradient of a "
        "sum of ± outputs.",
        f"LayerNorm takes {forward:.2f} ms, with backward {both:.2f} ms: fp32, "
        f"{speed.circumstances} of this CPU; quartiles in brackets; {NOT_COMPARABLE}: the times "
        f"vary by 10 % or more over the measurement.",
    ):
        console.print(note, markup=False, style="dim")


def card_rows(card: Card) -> Iterator[tuple[str, str | None]]:
    """The numbers of a card, as names and values; a heading has the value None."""
    yield "learns", None
    yield "numbers", f"{card.parameter_count:,}"
    shapes = {p.name: "×".join(map(str, p.shape)) or "scalar" for p in card.parameters}
    yield "tensors", ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "–"
    yield "output RMS (mean)", None
    for output in card.outputs:
        yield output.input, f"{format_number(output.rms)} ({format_number(output.mean)})"
    yield "invariance (error)", None
    for invariance in card.invariances:
        deviation = format_number(invariance.deviation)
        yield invariance.equation, f"{invariance.verdict} ({deviation})"
    yield "Jacobian at N(0,1)", None
    spectrum = card.spectrum
    largest, smallest = format_number(spectrum.values[0]), format_number(spectrum.values[-1])
    yield "largest singular value", largest
    yield "median, smallest", f"{format_number(spectrum.median)}, {smallest}"
    yield "rank", f"{spectrum.rank:,}"
    yield "near zero", f"{spectrum.near_zero:,}"
    yield "condition of the rest", format_number(spectrum.condition)
    yield "largest output, ∂ input", None
    for extreme in card.extremes:
        sizes = (extreme.output, extreme.largest), (extreme.gradient, extreme.steepest)
        output_size, gradient_size = (
            format_number(size) if kind == "finite" else kind for kind, size in sizes
        )
        yield extreme.input, f"{output_size}, ∂ {gradient_size}"
        if extreme.reach:
            yield "  reaches", extreme.reach
    yield "error in eps: RMS, max", None
    for rounding in card.rounding:
        problem = f" ({rounding.problem})" if rounding.problem else ""
        for name, rms, worst in (
            ("output", rounding.output_rms, rounding.output_max),
            ("∂ input", rounding.gradient_rms, rounding.gradient_max),
        ):
            errors = f"{format_number(rms)}, {format_number(worst)}"
            errors = "–" if rms is None and worst is None else errors
            yield f"{rounding.format} {name}", errors + problem
    yield "autograd", None
    yield "first derivative", card.gradcheck
    yield "second derivative", card.second_gradcheck
    yield "time over LayerNorm's", None
    yield "forward", _format_ratio(card.speed.forward)
    yield "forward and backward", _format_ratio(card.speed.both)


def _build_table(cards: Sequence[Card]) -> "Table":
    from rich import box
    from rich.text import Text

    from normlab.analysis.terminal_tables import FittingTable

    table = FittingTable(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column(f"width {cards[0].width}", no_wrap=True)
    for card in cards:
        table.add_column(Text(card.name), overflow="fold", max_width=_NORM_WIDTH - 2)
    for row in zip(*map(card_rows, cards), strict=True):
        name, first_value = row[0]
        if first_value is None:
            table.add_row(Text(name, style="bold"))
            continue
        # The rows of invariances begin with their verdict.
        values = [value or "" for _, value in row]
        colours = [_VERDICT_COLOURS.get(value.partition(" (")[0], "") for value in values]
        table.add_row(Text(f"  {name}"), *map(Text, values, colours))
    return table


def _format_ratio(ratio: Ratio) -> str:
    if not ratio.is_comparable:
        return NOT_COMPARABLE
    digits = 2 if ratio.high < 10 else 1 if ratio.high < 100 else 0
    return f"{ratio.median:.{digits}f} ({ratio.low:.{digits}f}–{ratio.high:.{digits}f})"
