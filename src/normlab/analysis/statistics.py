"""Means, medians and differences with their spread; the running mean behind every loss curve."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from normlab.analysis.formatting import format_three_digits


@dataclass(frozen=True)
class Spread:
    """A number measured `count` times: the median, and the quartiles around it."""

    median: float
    low: float
    high: float
    count: int = 1

    def __str__(self) -> str:
        if self.count == 1:
            return format_three_digits(self.median)
        median, low, high = map(format_three_digits, (self.median, self.low, self.high))
        return f"{median} ({low}–{high})"


def quartile_spread(values: Sequence[float]) -> Spread:
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


def ratio_spread(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """The spread of numerator over denominator, each pair from the same round.

    Raises:
        ValueError: there is not one denominator for each numerator, or there are none.
    """
    return quartile_spread(
        [over / under for over, under in zip(numerators, denominators, strict=True)]
    )


# A window of 1/40 of the run calms the noise of single batches and keeps every trend.
_WINDOWS_PER_RUN = 40

LEVEL = 0.05  # how often a difference may be reported where there is none
MOST_PAIRS = 10_000  # nobody trains more

Outcome = Literal["lower", "higher", "cannot tell"]


@dataclass(frozen=True)
class Difference:
    """How much lower or higher one arm is than another, a − b.

    Attributes:
        mean: mean difference; NaN where nothing can be compared.
        half: half the width of its 95 % t-interval; NaN where the spread is unknown.
        p: two-sided p of the t-test that there is no difference; NaN likewise.
        pairs: how many seeds both have; 0 for a difference over unequal seeds.
        spread: standard deviation of the differences of single pairs; NaN likewise.
    """

    mean: float
    half: float
    p: float
    pairs: int
    spread: float

    @property
    def outcome(self) -> Outcome:
        """What the test says of a against b when this is the only comparison made."""
        return self.outcome_at(self.p)

    def outcome_at(self, p: float) -> Outcome:
        """What it says when `p` is adjusted for the other comparisons; see `holm`."""
        if not p < LEVEL:  # nor if it is NaN
            return "cannot tell"
        return "lower" if self.mean < 0 else "higher"


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Mean of independent measurements and half the width of its Student-t interval.

    The half width is NaN for one value, where the spread is unknown; both are NaN for none.
    """
    count = len(values)
    if count == 0:
        return math.nan, math.nan
    mean = math.fsum(values) / count
    if count == 1:
        return mean, math.nan
    from scipy.special import stdtrit

    spread = _sample_deviation(values, mean)
    quantile = float(stdtrit(count - 1, (1 + confidence) / 2))
    return mean, quantile * spread / math.sqrt(count)


def mean_or_infinity(values: Sequence[float]) -> float:
    """The mean, and infinity where there is none: that is the last of a ranking."""
    mean = math.fsum(values) / len(values) if values else math.nan
    return math.inf if math.isnan(mean) else mean


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Difference:
    """The difference a − b over equal seeds, with a paired t-test.

    A pair counts if both its values are finite. One pair has neither interval nor p, no pair not
    even a mean. Pairs that all differ by the same amount have an interval of no width: p is 0, or
    1 where that amount is zero, for then a and b are the same.
    """
    both = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
    differences = [difference for difference in both if math.isfinite(difference)]
    mean, half = mean_interval(differences)
    if len(differences) < 2:
        return Difference(mean, math.nan, math.nan, len(differences), math.nan)
    spread = _sample_deviation(differences, mean)
    error = spread / math.sqrt(len(differences))
    p = _two_sided_p(mean, error, len(differences) - 1)
    return Difference(mean, half, p, len(differences), spread)


def unpaired_difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """The difference of means over unequal seeds, mean a − mean b, with Welch's t-test.

    The variances may differ. With fewer than two finite values on a side there is only the mean.
    """
    sides = [[value for value in side if math.isfinite(value)] for side in (a, b)]
    mean = mean_interval(sides[0])[0] - mean_interval(sides[1])[0]
    if min(map(len, sides)) < 2:
        return Difference(mean, math.nan, math.nan, 0, math.nan)
    from scipy.special import stdtrit

    parts = [float(np.var(side, ddof=1)) / len(side) for side in sides]
    error = math.sqrt(sum(parts))
    if error == 0:
        return Difference(mean, 0.0, _two_sided_p(mean, 0.0, 1), 0, 0.0)
    shares = [part / sum(parts) for part in parts]
    # Welch and Satterthwaite's degrees of freedom.
    freedom = 1 / sum(s * s / (len(side) - 1) for s, side in zip(shares, sides, strict=True))
    half = float(stdtrit(freedom, 1 - LEVEL / 2)) * error
    spread = math.sqrt(sum(float(np.var(side, ddof=1)) for side in sides))
    return Difference(mean, half, _two_sided_p(mean, error, freedom), 0, spread)


def adjust_by_holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: below 0.05, the difference is told.

    Of all comparisons together, one in twenty studies without any difference reports one. A NaN was
    no test: it stays NaN and is not counted.
    """
    adjusted = [math.nan] * len(p_values)
    ascending = sorted((p, at) for at, p in enumerate(p_values) if not math.isnan(p))
    highest = 0.0
    for rank, (p, at) in enumerate(ascending):
        highest = max(highest, min(1.0, (len(ascending) - rank) * p))
        adjusted[at] = highest
    return adjusted


def seeds_needed(
    effect: float, spread: float, power: float = 0.8, level: float = LEVEL
) -> int | None:
    """How many pairs of seeds tell a difference of size `effect` with this probability.

    Exact for the two-sided paired t-test, by the noncentral t distribution; `spread` is the
    standard deviation of the differences of single pairs. None where no number up to 10,000 does,
    or the spread is not known. A spread measured on two or three pairs is itself uncertain by a
    factor of two, so the answer is an order of magnitude and no appointment.
    """
    if not (math.isfinite(effect) and math.isfinite(spread)) or effect == 0:
        return None
    if spread == 0 or paired_test_power(effect, spread, 2, level) >= power:
        return 2
    too_few, enough = 2, 4
    while paired_test_power(effect, spread, enough, level) < power:
        too_few, enough = enough, 2 * enough
        if too_few >= MOST_PAIRS:
            return None
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if paired_test_power(effect, spread, middle, level) < power:
            too_few = middle
        else:
            enough = middle
    return enough if enough <= MOST_PAIRS else None


def paired_test_power(effect: float, spread: float, pairs: int, level: float = LEVEL) -> float:
    """The probability that a paired t-test over so many pairs tells this effect; `spread` > 0."""
    from scipy.special import nctdtr, stdtrit

    critical = float(stdtrit(pairs - 1, 1 - level / 2))
    shift = abs(effect) / spread * math.sqrt(pairs)
    tails = nctdtr(pairs - 1, shift, [-critical, critical])
    below, up_to = np.nan_to_num(tails).tolist()  # scipy's NaN: a tail too small for its series
    return float(below + 1 - up_to)


def _sample_deviation(values: Sequence[float], mean: float) -> float:
    """Standard deviation of a sample; of a few numbers, many times faster than numpy's."""
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _two_sided_p(mean: float, error: float, freedom: float) -> float:
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(mean) / error))


def smoothing_window(count: int) -> int:
    """Points in the running mean over a curve of `count` points: odd, about a fortieth of it."""
    return max(1, count // _WINDOWS_PER_RUN) // 2 * 2 + 1


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Centred running mean of a curve, shape (n,) → (n,); `window` is odd.

    Near the ends the window shrinks evenly on both sides, so a straight line stays the same line:
    the curve is never shifted in time, and its first and last point are the measured ones.
    """
    index = np.arange(len(values))
    half = np.minimum(np.minimum(index, index[::-1]), window // 2)
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    means: NDArray[np.float64] = (sums[index + half + 1] - sums[index - half]) / (2 * half + 1)
    return means
