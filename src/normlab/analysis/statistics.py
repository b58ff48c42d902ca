"""Means with intervals over seeds, and the running mean behind every loss curve."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# A window of 1/40 of the run calms the noise of single batches and keeps every trend.
_WINDOWS_PER_RUN = 40


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Mean of independent measurements and half the width of its Student-t interval.

    The half width is NaN for one value, where nothing tells the spread; both are NaN for none.
    """
    count = len(values)
    if count == 0:
        return math.nan, math.nan
    mean = math.fsum(values) / count
    if count == 1:
        return mean, math.nan
    from scipy.special import stdtrit

    spread = float(np.std(values, ddof=1))
    quantile = float(stdtrit(count - 1, (1 + confidence) / 2))
    return mean, quantile * spread / math.sqrt(count)


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
