"""How numbers, intervals and lists are written, in sentences, tables and figures."""

import math
from collections.abc import Iterable

from normlab.archive.record import short_number


def format_number(value: float | None) -> str:
    """Three digits: `0.500`, `16.7`, `25,123`; `1.2e-5` below 0.001 and from ten million on.

    `–` where there is no number.
    """
    if value is None or math.isnan(value):
        return "–"
    size = abs(float(f"{value:.2e}"))  # as it is rounded: 9.996 is 10.0
    if math.isinf(size):
        return f"{value:.0f}"
    if size < 1e-300:
        return "0"
    if not 1e-3 <= size < 1e7:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    digits = max(0, 2 - math.floor(math.log10(size)))
    return f"{value:,.{digits}f}"


def format_timing(value: float) -> str:
    """A time, a speed or a ratio of two, without digits that are noise: `0.012`, `0.50`, `16.7`."""
    size = abs(value)
    if size >= 10 or value == 0:
        return format_number(value)
    return f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


_MOST_NAMES = 3


def join_first(names: Iterable[str]) -> str:
    """The first of the names, and how many there are besides."""
    listed = list(names)
    if len(listed) <= _MOST_NAMES + 1:  # nobody wants "and 1 more"
        return "; ".join(listed)
    return f"{'; '.join(listed[:_MOST_NAMES])}; and {len(listed) - _MOST_NAMES} more"


def format_interval(value: float, half: float) -> str:
    """`0.0207 ± 0.0064`, without an interval `0.0207`, without a value `–`.

    More digits where four are none.
    """
    if math.isnan(value):
        return "–"
    largest = max((abs(number) for number in (value, half) if math.isfinite(number)), default=0)
    # Four, or as many as leave two digits of the larger number.
    digits = 4 if largest == 0 else max(4, 1 - math.floor(math.log10(largest)))
    text = f"{value:.{digits}f}"
    return text if math.isnan(half) else f"{text} ± {half:.{digits}f}"


def format_probability(p: float) -> str:
    """`= 0.013`, or `< 0.001`."""
    if p < 0.001:
        return "< 0.001"
    return f"= {p:.3f}" if p < 0.0995 else f"= {p:.2f}"  # 0.0996 is 0.10, not 0.100


def format_axis_value(value: float) -> str:
    """`3.14`, and three digits of a value of 100 or more."""
    return f"{value:.2f}" if abs(value) < 100 else short_number(float(f"{value:.3g}"))


def format_steps(steps: Iterable[int]) -> str:
    """`step 40`, or where they differ the first and the last: `steps 120–180`."""
    listed = sorted(steps)
    first, last = listed[0], listed[-1]
    return f"step {first}" if first == last else f"steps {first}–{last}"
