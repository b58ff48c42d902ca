"""The rules: from a claim and what it rests on to one of four verdicts. Every verdict is from here.

| verdict        | the 95 % interval lies wholly                                     |
|----------------|-------------------------------------------------------------------|
| reproduced     | where the claim says: on its side, or within its margin           |
| not reproduced | where there is no effect, if the claim is one of an effect        |
| refuted        | where the claim says that it does not lie                         |
| cannot tell    | in none of these, or there is no interval                         |

They are tried in this order. "No effect" is less than a margin that the claim's file states: the
numbers would have shown a larger one.
"""

import math
from collections import Counter

from normlab.apps.claims.claim import (
    Claim,
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
from normlab.apps.claims.estimates import Estimate, estimate_effect
from normlab.apps.claims.record import ClaimVerdict, Range, RunCounts, Word
from normlab.apps.claims.runs import ClaimData, NoBasisError, select_runs
from normlab.archive.versioned_json import finite_or_none

# The claimed side of zero does not hold zero itself.
_ABOVE_ZERO = 5e-324
_ENDED_STATES = ("finished", "diverged", "failed")


def decide_verdict(low: float, high: float, claimed: Range, absent: Range | None) -> Word:
    """The verdict for an interval; NaN is no interval."""
    if math.isnan(low) or math.isnan(high):
        return "cannot tell"
    if claimed.contains(low, high):
        return "reproduced"
    if absent is not None and absent.contains(low, high):
        return "not reproduced"
    return "refuted" if claimed.excludes(low, high) else "cannot tell"


def verdict_ranges(test: Test) -> tuple[Range, Range | None]:
    """Where the interval of a test lies if the claim holds, and if there is no effect."""
    match test:
        case Lower() | Sensitivity():
            return Range(high=-_ABOVE_ZERO), range_around(0.0, test.margin)
        case Diverges():
            return Range(low=_ABOVE_ZERO), range_around(0.0, test.margin)
        case Parity():
            return range_around(0.0, test.margin), None
        case Level() | Value():
            return Range(test.low, test.high), None
        case Slope():
            # A claim that there is no slope has no effect that could be absent.
            claims_effect = abs(test.value) > test.margin
            absent = range_around(0.0, test.margin) if claims_effect else None
            return range_around(test.value, test.margin), absent
        case Ratio():
            return Range(test.low, test.high), range_around(1.0, test.margin)
        case Exact():
            return Range(high=test.tolerance), None


def range_around(value: float, margin: float) -> Range:
    """From value − margin to value + margin."""
    return Range(value - margin, value + margin)


def judge_claim(
    name: str, claim: Claim, data: ClaimData, *, date: str, machine: str
) -> ClaimVerdict:
    """What the data say of a claim. Where they say nothing: `cannot tell`, and why.

    `date` and `machine` are of the runs; a measurement has its own.
    """
    claimed, absent = verdict_ranges(claim.test)
    estimate, reason = Estimate(math.nan, math.nan, math.nan, ""), ""
    word: Word = "cannot tell"
    try:
        if data.problem:
            raise NoBasisError(data.problem)
        estimate = estimate_effect(claim.test, data)
    except NoBasisError as error:
        reason = str(error)
    else:
        word = decide_verdict(estimate.low, estimate.high, claimed, absent)
        if word == "cannot tell":
            reason = (
                "one seed has no interval"
                if math.isnan(estimate.low)
                else "the interval reaches over a border of what is claimed"
            )
    return ClaimVerdict(
        name=name,
        statement=claim.statement,
        source=claim.source,
        published=claim.published.text,
        published_value=claim.published.value,
        setup=claim.setup,
        differs=claim.differs,
        kind=claim.kind,
        unit=claim.unit,
        word=word,
        reason=reason,
        value=finite_or_none(estimate.value),
        low=finite_or_none(estimate.low),
        high=finite_or_none(estimate.high),
        claimed=claimed,
        absent=absent,
        basis=estimate.basis,
        runs=_count_runs(claim, data),
        seeds=estimate.seeds,
        command=data.command,
        date=data.measurement.date if data.measurement else date,
        machine=data.measurement.machine if data.measurement else machine,
    )


def _count_runs(claim: Claim, data: ClaimData) -> RunCounts:
    """The runs of the arms that the claim compares, by state; a run of two arms counts once."""
    states: dict[str, str] = {}
    for arm in claim.arms:
        try:
            runs = select_runs(data.runs, arm)
        except NoBasisError:
            continue  # the verdict's reason says so
        states |= {run.record.id: run.record.state for run in runs}
    counts = Counter(states.values())
    ended = {state: counts[state] for state in _ENDED_STATES}
    return RunCounts(**ended, missing=len(states) - sum(ended.values()))
