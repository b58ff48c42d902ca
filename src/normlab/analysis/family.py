"""Differences between the arms of a study, with intervals that hold for all of them together.

Which arm ends lowest is decided by the same losses that are then tested, and three seeds say little
about a variance. So each difference gets the widest of two intervals, because each of them alone
reports too many differences somewhere (docs/statistics.md has the simulation):

- Tukey's, with each pair's variance moderated towards the others' (Smyth 2004, doi
  10.2202/1544-6115.1027): as far as the arms are equally noisy, each says how noisy all are, and
  one that is much noisier leaves the others' intervals nearly as they are.
- The pair's own t-interval (96 %), which no other arm can make narrower.

With three seeds there is a third, Tukey's with one variance for all pairs of arms (randomized
blocks: a seed is a block). Three runs that are close to each other are no sign of little noise:
where one run in three ends far above the others, they may be of either group.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from normlab.analysis.statistics import LEVEL, Difference, paired_difference, unpaired_difference

Losses = Mapping[int, float]  # final validation loss in nats per token, by seed
Pair = tuple[int, int]  # indices of two arms

# Of the pair's own interval where there are three arms or more. At 0.05, studies of eight arms and
# four seeds, one of them with five times the noise, reported 8.1 % false differences.
OWN_LEVEL = 0.04
# A pair with fewer seeds in common has the interval with one variance too. Without it, studies of
# eight arms and three seeds whose runs end in two groups reported 15 % false differences.
FEWEST_SEEDS_ALONE = 4
# How much of the prior's weight counts. Pairs share arms, so their variances agree more than those
# of independent samples, for which the weight is derived. At 1, studies with three times the noise
# in half of the arms reported 8.1 % false differences, at a half 6.8 %; where all are equally noisy
# the power is the same.
_PRIOR_SHARE = 0.5
_MOST_PRIOR_FREEDOM = 1e4  # degrees of freedom of a prior variance: from here on it counts as known


class Variances(NamedTuple):
    """Variances of the differences within pairs of arms, and their degrees of freedom.

    Attributes:
        variance: shape (..., pairs); leading axes are independent studies.
        freedom: the same shape, or one that broadcasts to it.
    """

    variance: NDArray[np.float64]
    freedom: NDArray[np.float64]


def family_differences(
    arms: Sequence[Losses], pairs: Iterable[Pair], level: float = LEVEL
) -> dict[Pair, Difference]:
    """The differences a − b of some pairs of arms, right for all pairs at once.

    A study without any difference shows one with a probability of about `level`, whichever pairs
    are looked at; where arms are not equally noisy it can be larger (docs/statistics.md). `half`
    and `p` belong together: p < 0.05 where the interval leaves out zero.

    Args:
        arms: at least two, with at least one loss each.
        pairs: which differences are wanted, as (a, b); all pairs count in any case.
        level: 0.05, or a share of it where there are several families.
    """
    # Of all pairs, whichever are wanted: their number and their noise decide the intervals.
    all_pairs = {pair: _difference(arms, *pair) for pair in combinations(range(len(arms)), 2)}
    # Pairs without noise are two names of one function: they say nothing about the others' noise.
    noisy = [pair for pair, d in all_pairs.items() if d.pairs >= 2 and d.spread > 0]
    tukey: dict[Pair, list[tuple[float, float]]] = {}
    if len(arms) > 2 and noisy:
        own = Variances(  # (noisy pairs,)
            np.array([all_pairs[pair].spread ** 2 for pair in noisy]),
            np.array([all_pairs[pair].pairs - 1.0 for pair in noisy]),
        )
        pooled = pool_variances(own, len(arms))
        moderated = moderate_variances(own, pooled.freedom)
        for at, pair in enumerate(noisy):
            tukey[pair] = [(float(moderated.variance[at]), float(moderated.freedom[at]))]
            if all_pairs[pair].pairs < FEWEST_SEEDS_ALONE:
                tukey[pair].append((float(pooled.variance[0]), float(pooled.freedom[0])))
    differences = {}
    for a, b in pairs:
        pair = (min(a, b), max(a, b))
        difference = all_pairs[pair]
        if not difference.pairs:
            # Without common seeds there are no blocks: Welch's test, with Bonferroni's correction.
            tests = float(len(all_pairs))
        else:
            # As if it were one of 1.25 tests: the pair's own interval becomes one of 96 %.
            tests = LEVEL / OWN_LEVEL if len(arms) > 2 else 1.0
        difference = _apply_bonferroni(difference, tests * LEVEL / level)
        if pair in tukey:
            difference = _take_wider_tukey(difference, tukey[pair], len(arms), level)
        if (a, b) != pair:
            difference = replace(difference, mean=-difference.mean)
        differences[a, b] = difference
    return differences


def pool_variances(own: Variances, arms: int) -> Variances:
    """One variance for all pairs of each study, shapes (..., pairs) → (..., 1).

    Where all arms have the same seeds it is twice the residual variance of the two-way analysis of
    arms and seeds, with its (arms − 1) · (seeds − 1) degrees of freedom. Elsewhere the harmonic
    mean of the pairs' degrees of freedom stands for seeds − 1.
    """
    weights = np.broadcast_to(own.freedom, own.variance.shape)
    variance = np.average(own.variance, axis=-1, weights=weights, keepdims=True)
    harmonic = weights.shape[-1] / np.sum(1 / weights, axis=-1, keepdims=True)
    return Variances(variance, harmonic * (arms - 1))


def moderate_variances(own: Variances, most_freedom: NDArray[np.float64]) -> Variances:
    """Each pair's variance moved towards the others', as far as they agree; shapes (..., pairs).

    The logarithms of the variances scatter more than their degrees of freedom explain, by as much
    as the true variances differ; that excess gives the weight of the prior (Smyth 2004, section
    6.2). Pairs share arms and so are not independent: `_PRIOR_SHARE` of that weight counts, and
    `most_freedom`, that of the pooled variance, is the limit.
    """
    from scipy.special import digamma, polygamma

    variance, freedom = own.variance, np.broadcast_to(own.freedom, own.variance.shape)
    # The log of a sample variance has the mean ln σ² + digamma(f/2) − ln(f/2).
    logs = np.log(variance) - digamma(freedom / 2) + np.log(freedom / 2)
    pairs = logs.shape[-1]
    scatter = np.var(logs, axis=-1, keepdims=True) * pairs / max(1, pairs - 1)
    # trigamma(f/2) is the variance of the logs where all true variances are equal.
    excess = scatter - np.mean(polygamma(1, freedom / 2), axis=-1, keepdims=True)
    # Without any excess the prior has nearly endless freedom, and counts as known.
    prior_freedom = np.minimum(2 * _inverse_trigamma(np.maximum(excess, 1e-8)), _MOST_PRIOR_FREEDOM)
    prior = np.exp(
        np.mean(logs, axis=-1, keepdims=True)
        + digamma(prior_freedom / 2)
        - np.log(prior_freedom / 2)
    )
    prior_freedom = _PRIOR_SHARE * prior_freedom
    total = freedom + prior_freedom
    moderated = (prior_freedom * prior + freedom * variance) / total
    return Variances(moderated, np.minimum(total, most_freedom))


def _inverse_trigamma(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The x > 0 whose trigamma is the value, by Newton's method on 1 / trigamma (convex)."""
    from scipy.special import polygamma

    x = 0.5 + 1 / values  # start and step are those of the appendix of Smyth 2004
    for _ in range(30):  # from this start it converges monotonically, in about ten steps
        trigamma = polygamma(1, x)
        x = x + trigamma * (1 - trigamma / values) / polygamma(2, x)
    return x


def _difference(arms: Sequence[Losses], a: int, b: int) -> Difference:
    paired = paired_difference(arms[a], arms[b])
    # One seed in common tells no spread: then all seeds of both, unpaired, say more.
    if paired.pairs >= 2:
        return paired
    unpaired = unpaired_difference(list(arms[a].values()), list(arms[b].values()))
    return paired if paired.pairs and math.isnan(unpaired.p) else unpaired


def _take_wider_tukey(
    difference: Difference, variances: Sequence[tuple[float, float]], arms: int, level: float
) -> Difference:
    """The difference with the widest interval and the largest p, its own or Tukey's.

    Each of several variances, with its degrees of freedom, has an interval and a p of Tukey's.
    """
    from scipy.stats import studentized_range

    widest, largest_p = difference, difference.p
    for variance, freedom in variances:
        error = math.sqrt(variance / difference.pairs)
        half = _tukey_quantile(level, arms, freedom) * error
        if half > widest.half:
            widest = replace(difference, half=half, error=error, freedom=freedom)
        # The studentized range is in errors of one mean; a difference has √2 times that error.
        statistic = math.sqrt(2) * abs(difference.mean) / error
        # Scaled, so that p < 0.05 goes with the interval at `level`, also for a share of it. The
        # largest, as of the widest interval: beyond 0.05 another one than that may be the largest.
        p = float(studentized_range.sf(statistic, arms, freedom)) * LEVEL / level
        largest_p = max(largest_p, min(p, 1.0))
    return replace(widest, p=largest_p)


@lru_cache
def _tukey_quantile(level: float, arms: int, freedom: float) -> float:
    """Of the largest absolute t between any two of the arms; it takes a tenth of a second."""
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(1 - level, arms, freedom)) / math.sqrt(2)


def _apply_bonferroni(difference: Difference, tests: float) -> Difference:
    """The difference as one of several tests, by Bonferroni."""
    if tests == 1 or math.isnan(difference.p):
        return difference
    from scipy.special import stdtrit

    half = float(stdtrit(difference.freedom, 1 - LEVEL / tests / 2)) * difference.error
    return replace(difference, half=half, p=min(1.0, tests * difference.p))
