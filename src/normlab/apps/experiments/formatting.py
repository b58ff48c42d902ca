"""Numbers and lists as the figures and paragraphs of experiments write them."""

import math
from collections.abc import Sequence


def format_short(value: float) -> str:
    """Three figures or two; what is far from 1 by its power of ten."""
    if math.isnan(value):
        return "not finite"
    size = abs(value)
    if size == 0 or 0.1 <= size < 10:
        return f"{value:.2f}"
    if 0.001 <= size < 0.1:
        return f"{value:#.3g}"
    if 10 <= size < 10_000:
        return f"{value:,.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def format_percent(share: float) -> str:
    """A share as a percentage: 0.4 %, 12 %."""
    return f"{100 * share:.1f} %" if abs(share) < 0.1 else f"{100 * share:.0f} %"


def join_words(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
