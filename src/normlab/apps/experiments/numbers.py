"""Numbers as these figures and paragraphs write them."""

import math

from normlab.apps.card.record import Number


def plain(value: Number) -> float:
    """A number, NaN where it was not finite."""
    return math.nan if value is None else value


def short(value: float) -> str:
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


def percent(share: float) -> str:
    """A share as a percentage: 0.4 %, 12 %."""
    return f"{100 * share:.1f} %" if abs(share) < 0.1 else f"{100 * share:.0f} %"


def joined(words: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
