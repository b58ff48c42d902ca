"""Shares of runs that diverged, with intervals that hold for a handful of runs."""

import math


def wilson(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share: 3 of 3 is 0.44 to 1, 0 of 3 is 0 to 0.56."""
    from scipy.special import ndtri

    z = float(ndtri((1 + confidence) / 2))
    share, weight = hits / of, z * z / of
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / of + weight / (4 * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def share_difference(
    a: tuple[int, int], b: tuple[int, int], confidence: float = 0.95
) -> tuple[float, float, float]:
    """Share a − share b and its interval, each share as (hits, of).

    Newcombe's hybrid of two Wilson intervals (Statistics in Medicine 17, 1998, method 10), which
    needs no large numbers.
    """
    one, other = a[0] / a[1], b[0] / b[1]
    (a_low, a_high), (b_low, b_high) = wilson(*a, confidence), wilson(*b, confidence)
    below = math.hypot(one - a_low, b_high - other)
    above = math.hypot(a_high - one, other - b_low)
    difference = one - other
    return difference, max(-1.0, difference - below), min(1.0, difference + above)
