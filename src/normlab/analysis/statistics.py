"""Means, medians and differences with their spread; the running mean behind every loss curve."""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from normlab.analysis.formatting import format_timing


@dataclass(frozen=True)
class Spread:
    """A number measured `count` times: the median, and the quartiles around it."""

    median: float
    low: float
    high: float
    count: int = 1

    def __str__(self) -> str:
        if self.count == 1:
            return format_timing(self.median)
        median, low, high = map(format_timing, (self.median, self.low, self.high))
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
    # "exclusive", the default, has quartiles of two values that lie outside of both.
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

Outcome = Literal["lower", "higher", "the same", "cannot tell"]


@dataclass(frozen=True)
class Difference:
    """How much lower or higher one arm is than another, a − b.

    Attributes:
        mean: mean difference; NaN where nothing can be compared.
        half: half the width of its 95 % interval; NaN where nothing tells the spread.
        p: two-sided p of the test that there is no difference; NaN likewise. It is below 0.05
            where the interval leaves out zero.
        pairs: how many seeds both have; 0 for a difference over unequal seeds.
        spread: standard deviation of the differences of single pairs; NaN likewise.
        error: standard error of the mean that the interval is made with.
        freedom: the degrees of freedom of that error.
    """

    mean: float
    half: float
    p: float
    pairs: int
    spread: float
    error: float = math.nan
    freedom: float = math.nan

    def outcome_within(self, margin: float | None = None) -> Outcome:
        """What the interval says of a against b; "the same" where it lies within ± `margin`."""
        if self.p < LEVEL:  # false for a NaN
            return "lower" if self.mean < 0 else "higher"
        if margin is not None and abs(self.mean) + self.half <= margin:
            return "the same"
        return "cannot tell"

    @property
    def detectable(self) -> float:
        """The smallest true difference that such a study reports in 4 of 5 cases; NaN likewise.

        It follows from the noise and the number of seeds alone, not from the difference that was
        observed: a power computed from that repeats the p-value (Hoenig and Heisey 2001, doi
        10.1198/000313001300339897).
        """
        from scipy.special import stdtrit

        return self.half + float(stdtrit(self.freedom, 0.8)) * self.error


def mean_interval(values: Collection[float]) -> tuple[float, float]:
    """Mean of independent measurements and half the width of its 95 % Student-t interval.

    The half width is NaN for one value, where the spread is unknown; both are NaN for none.
    """
    count = len(values)
    if count == 0:
        return math.nan, math.nan
    mean = math.fsum(values) / count
    if count == 1:
        return mean, math.nan
    # Imported where it is used: a command that is refused does without scipy. scipy.stats has the
    # same quantiles, and takes three times as long to import.
    from scipy.special import stdtrit

    spread = _sample_deviation(values, mean)
    quantile = float(stdtrit(count - 1, 1 - LEVEL / 2))
    return mean, quantile * spread / math.sqrt(count)


def mean_or_infinity(values: Collection[float]) -> float:
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
    pairs = len(differences)
    mean, half = mean_interval(differences)
    if pairs < 2:
        return Difference(mean, math.nan, math.nan, pairs, math.nan)
    spread = _sample_deviation(differences, mean)
    error = spread / math.sqrt(pairs)
    p = _two_sided_p(mean, error, pairs - 1)
    return Difference(mean, half, p, pairs, spread, error, pairs - 1)


def unpaired_difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """The difference of means over unequal seeds, mean a − mean b, with Welch's t-test.

    The variances may differ. With fewer than two finite values on a side there is only the mean.
    """
    sides = [[value for value in side if math.isfinite(value)] for side in (a, b)]
    mean = mean_interval(sides[0])[0] - mean_interval(sides[1])[0]
    if min(map(len, sides)) < 2:
        return Difference(mean, math.nan, math.nan, 0, math.nan)
    from scipy.special import stdtrit

    variances = [float(np.var(side, ddof=1)) for side in sides]
    parts = [variance / len(side) for variance, side in zip(variances, sides, strict=True)]
    error = math.sqrt(sum(parts))
    if error == 0:
        freedom = min(map(len, sides)) - 1.0  # the fewest that the formula below can give
        return Difference(mean, 0.0, _two_sided_p(mean, 0.0, 1), 0, math.nan, 0.0, freedom)
    shares = [part / sum(parts) for part in parts]
    # Welch and Satterthwaite's degrees of freedom.
    freedom = 1 / sum(s * s / (len(side) - 1) for s, side in zip(shares, sides, strict=True))
    half = float(stdtrit(freedom, 1 - LEVEL / 2)) * error
    p = _two_sided_p(mean, error, freedom)
    return Difference(mean, half, p, 0, math.sqrt(sum(variances)), error, freedom)


def _sample_deviation(values: Collection[float], mean: float) -> float:
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
    # (n,): how far each window reaches, to both sides alike.
    half = np.minimum(np.minimum(index, index[::-1]), window // 2)
    # Sums up to every point: the sum of a window is the difference of two, however wide it is.
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    means: NDArray[np.float64] = (sums[index + half + 1] - sums[index - half]) / (2 * half + 1)
    return means
