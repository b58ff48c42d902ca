"""Medians and ratios with their spread; nothing here knows what was measured."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """A number measured `count` times: the median, and the quartiles around it."""

    median: float
    low: float
    high: float
    count: int = 1

    def __str__(self) -> str:
        if self.count == 1:
            return short(self.median)
        return f"{short(self.median)} ({short(self.low)}–{short(self.high)})"


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles, interpolated between the values; one value is its own quartiles.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("there is no spread without values")
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high, len(values))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """The spread of numerator over denominator, each pair from the same round.

    Raises:
        ValueError: there is not one denominator for each numerator, or there are none.
    """
    return spread([over / under for over, under in zip(numerators, denominators, strict=True)])


def short(value: float) -> str:
    """A number as a table shows it: three digits, and no more behind the point than they need."""
    if value == 0:
        return "0"
    if value < 0:
        return f"-{short(-value)}"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
