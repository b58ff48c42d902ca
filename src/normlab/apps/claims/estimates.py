"""From a test and what it rests on to one number with its 95 % interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch

from normlab.analysis.arms import group_runs
from normlab.analysis.learning_rates import FEWEST_RATES, RatedArm, analyse_learning_rates
from normlab.analysis.statistics import LEVEL, mean_interval, paired_difference
from normlab.apps.claims.arms import (
    NoBasisError,
    Setting,
    by_seed,
    lowest,
    parsed,
    select,
    settings,
)
from normlab.apps.claims.claim import (
    Diverges,
    Exact,
    Level,
    Lower,
    Parity,
    Ratio,
    Sensitivity,
    Slope,
    Test,
    Value,
)
from normlab.apps.claims.evidence import Evidence
from normlab.apps.claims.proportions import share_difference
from normlab.archive.steadiness import is_steady, speed_variation
from normlab.archive.study import Run


@dataclass(frozen=True)
class Estimate:
    """A number, its interval, what it was taken over, and the seeds; NaN where there is none."""

    value: float
    low: float
    high: float
    basis: str
    seeds: tuple[int, ...] = ()


def estimate(test: Test, evidence: Evidence) -> Estimate:
    """What a test finds.

    Raises:
        NoBasisError: it finds nothing, with the reason.
    """
    found = _estimate(test, evidence)
    if math.isnan(found.value):
        raise NoBasisError("what was measured is not finite")
    return found


@singledispatch
def _estimate(test: Test, evidence: Evidence) -> Estimate:
    raise NotImplementedError(type(test).__name__)


@_estimate.register
def _(test: Lower | Parity, evidence: Evidence) -> Estimate:
    named = _keys(test.a, test.b)
    a, b = (lowest(evidence.runs, arm, named, test.quantity) for arm in (test.a, test.b))
    losses = [by_seed(setting, test.quantity) for setting in (a, b)]
    where = [f"{name} at {one.label}" for name, one in (("a", a), ("b", b)) if one.label]
    return _paired(losses[0], losses[1], ", ".join(where))


@_estimate.register
def _(test: Sensitivity, evidence: Evidence) -> Estimate:
    a, b = (_over_rates(evidence.runs, arm) for arm in (test.a, test.b))
    if a.grid != b.grid:
        raise NoBasisError("the arms do not have the same learning rates")
    return _paired(a.sensitivity, b.sensitivity, f"{len(a.grid)} learning rates")


@_estimate.register
def _(test: Diverges, evidence: Evidence) -> Estimate:
    named = _keys(test.a, test.b)
    a, b = (
        {one.key: one for one in settings(select(evidence.runs, arm), named)}
        for arm in (test.a, test.b)
    )
    pairs = [(a[key], b[key]) for key in a if key in b]
    counts = [(_diverged(one), _diverged(other), one.label) for one, other in pairs]
    counts = [count for count in counts if count[0][1] and count[1][1]]
    if not counts:
        raise NoBasisError("the arms have no setting in common in which runs ended")
    one, other, label = max(counts, key=lambda c: abs(c[0][0] / c[0][1] - c[1][0] / c[1][1]))
    confidence = 1 - LEVEL / len(counts)  # the setting was picked among so many
    if one[0] * other[1] == other[0] * one[1]:  # they differ nowhere
        one, other = _total([c[0] for c in counts]), _total([c[1] for c in counts])
        label, confidence = "all rates together", 1 - LEVEL
    where = f" at {label}" if label else ""
    if label and len(counts) > 1 and confidence > 1 - LEVEL:
        where += f", the one of {len(counts)} where they differ most (Bonferroni)"
    basis = f"{one[0]} of {one[1]} against {other[0]} of {other[1]} diverged{where}"
    seeds = {seed for pair in pairs for setting in pair for seed in setting.runs}
    return Estimate(*share_difference(one, other, confidence), basis, tuple(sorted(seeds)))


@_estimate.register
def _(test: Level, evidence: Evidence) -> Estimate:
    setting = lowest(evidence.runs, test.arm, _keys(test.arm), test.quantity)
    found = by_seed(setting, test.quantity)
    where = f" at {setting.label}" if setting.label else ""
    basis = f"{_count(len(found), 'seed')}{where}"
    return _over([*found.values()], basis, tuple(sorted(found)))


@_estimate.register
def _(test: Slope | Value, evidence: Evidence) -> Estimate:
    values, over = _series(evidence, test.of)
    return _over(values, _count(len(values), over))


@_estimate.register
def _(test: Ratio, evidence: Evidence) -> Estimate:
    values, over = _series(evidence, test.of)
    if min(values) <= 0:
        raise NoBasisError(f"{test.of} holds a ratio that is not above zero")
    if not is_steady(changes := speed_variation(values)):
        raise NoBasisError(
            f"{test.of} varies by {100 * changes:.0f} % over equal parts of the measurement, so "
            f"speeds are not comparable"
            if changes == changes
            else f"{test.of} has {len(values)} {over}s, too few to compare speeds"
        )
    logs = _over([math.log(value) for value in values], _count(len(values), over))
    value, low, high = (math.exp(log) for log in (logs.value, logs.low, logs.high))
    return Estimate(value, low, high, logs.basis)


@_estimate.register
def _(test: Exact, evidence: Evidence) -> Estimate:
    # No interval: an equation that fails once does not hold.
    values, over = _series(evidence, test.of)
    worst = max(values)
    return Estimate(worst, worst, worst, f"the worst of {_count(len(values), over)}")


def _over_rates(runs: Sequence[Run], arm: str) -> RatedArm:
    found = analyse_learning_rates(group_runs(select(runs, arm)))
    if found is None:
        raise NoBasisError(f"sensitivity takes {FEWEST_RATES} learning rates of {arm}")
    if len(found.arms) > 1:
        raise NoBasisError(f"{arm} is {len(found.arms)} arms, which are not one over its rates")
    return found.arms[0]


def _paired(a: dict[int, float], b: dict[int, float], where: str) -> Estimate:
    found = paired_difference(a, b)
    seeds = tuple(sorted(a.keys() & b.keys()))
    if not seeds:
        raise NoBasisError("the arms have no seed in common for which this is known")
    basis = ", ".join(filter(None, [f"{_count(found.pairs, 'pair')} of seeds", where]))
    return Estimate(found.mean, found.mean - found.half, found.mean + found.half, basis, seeds)


def _over(values: Sequence[float], basis: str, seeds: tuple[int, ...] = ()) -> Estimate:
    mean, half = mean_interval(values)
    return Estimate(mean, mean - half, mean + half, basis, seeds)


def _series(evidence: Evidence, name: str) -> tuple[list[float], str]:
    """The values, and the word for what they go over."""
    measured = evidence.measured
    if measured is None or not measured.series.get(name):
        there = ", ".join(measured.series) if measured else ""
        raise NoBasisError(f"{name} was not measured; there are {there or 'no values'}")
    return measured.series[name], measured.over


def _keys(*arms: str) -> set[str]:
    return {key for arm in arms for key in parsed(arm)}


def _diverged(setting: Setting) -> tuple[int, int]:
    """How many runs diverged, of how many that ended."""
    diverged = len(setting.with_state("diverged"))
    return diverged, diverged + len(setting.with_state("finished"))


def _total(counts: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(hits for hits, _ in counts), sum(of for _, of in counts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
