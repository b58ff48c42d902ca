"""The rules: from a claim and what it rests on to a verdict. Every verdict is from here.

With the 95 % interval I and the claim's margin m:

| claim                | reproduced      | not reproduced          | refuted          |
|----------------------|-----------------|-------------------------|------------------|
| a is lower than b    | I below −m      | I within ± m            | I above m        |
| a diverges, b not    | I above m       | I within ± m            | I below −m       |
| a and b are equal    | I within ± m    | does not exist          | I wholly outside |
| a ratio, a slope     | I in the range  | I within m of no effect | I wholly outside |
| a value, an equation | I in the range  | does not exist          | I wholly outside |

They are tried in the order of the columns. Anything else is "cannot tell".
Before the rule come objections, which leave a result without a verdict: no arm has learned
("vacuous"), no result could be larger than the margin ("out of regime"), or an arm is best at the
end of its grid of learning rates, where it may not be at its best ("cannot tell").
"""

import math
from collections import Counter
from dataclasses import dataclass

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
from normlab.apps.claims.estimates import Estimate, TrainedArm, estimate_effect
from normlab.apps.claims.record import ClaimVerdict, Range, RunCounts, Word
from normlab.apps.claims.runs import ClaimData, NoBasisError, select_runs
from normlab.archive.record import short_number
from normlab.archive.versioned_json import finite_or_none

# An arm has learned if it has come this share of the way from the unigram loss to the floor, or
# where the floor is not known, so many nats per token below the unigram loss.
LEARNED_SHARE = 0.25
LEARNED_NATS = 0.25
# As few learning rates as have ends and a middle.
_FEWEST_RATES = 3
_ENDED_STATES = ("finished", "diverged", "failed")


@dataclass(frozen=True)
class VerdictRanges:
    """Where the interval lies if the claim holds, if it is wrong, and if there is no effect."""

    claimed: Range
    refuted: tuple[Range, ...]
    absent: Range | None = None


def decide_verdict(low: float, high: float, ranges: VerdictRanges) -> Word:
    """The verdict for an interval; NaN is no interval."""
    if math.isnan(low) or math.isnan(high):
        return "cannot tell"
    if ranges.claimed.contains(low, high):
        return "reproduced"
    if ranges.absent is not None and ranges.absent.contains(low, high):
        return "not reproduced"
    if any(outside.contains(low, high) for outside in ranges.refuted):
        return "refuted"
    return "cannot tell"


def verdict_ranges(test: Test) -> VerdictRanges:
    """The ranges of a test, by the table above."""
    match test:
        case Lower() | Sensitivity():
            above = Range(low=test.margin)
            return VerdictRanges(Range(high=-test.margin), (above,), range_around(0.0, test.margin))
        case Diverges():
            below = Range(high=-test.margin)
            return VerdictRanges(Range(low=test.margin), (below,), range_around(0.0, test.margin))
        case Parity():
            return _inside_or_outside(range_around(0.0, test.margin))
        case Level() | Value():
            return _inside_or_outside(Range(test.low, test.high))
        case Slope():
            # A claim that there is no slope has no effect that could be absent.
            claims_effect = abs(test.value) > test.margin
            absent = range_around(0.0, test.margin) if claims_effect else None
            return _inside_or_outside(range_around(test.value, test.margin), absent)
        case Ratio():
            return _inside_or_outside(Range(test.low, test.high), range_around(1.0, test.margin))
        case Exact():
            return _inside_or_outside(Range(high=test.tolerance))


def _inside_or_outside(claimed: Range, absent: Range | None = None) -> VerdictRanges:
    """Refuted wherever nothing of the interval is claimed."""
    outside = []
    if claimed.low is not None:
        outside.append(Range(high=claimed.low))
    if claimed.high is not None:
        outside.append(Range(low=claimed.high))
    return VerdictRanges(claimed, tuple(outside), absent)


def find_objection(test: Test, estimate: Estimate) -> tuple[Word, str] | None:
    """Why a result of trained arms is printed and not judged: the word, and a reason."""
    arms = estimate.arms
    if arms and not any(map(has_learned, arms)):
        lowest = min(arms, key=lambda arm: arm.loss)
        return "vacuous", (
            f"no arm has learned: the lowest loss is {lowest.loss:.4f} ({lowest.name}), and that "
            f"of token frequencies alone {lowest.unigram:.4f}"
        )
    if isinstance(test, Sensitivity):
        # A mean over rates of losses up to the initial one, less the lowest of them.
        largest = max((arm.initial - arm.loss for arm in arms), default=math.nan)
        if largest < test.margin:
            return "out of regime", (
                f"no sensitivity can be larger than {largest:.4f} here, from the loss before "
                f"training to the lowest, and the margin is {test.margin:g}"
            )
    for arm in arms:
        if len(arm.rates) >= _FEWEST_RATES and arm.rate in (arm.rates[0], arm.rates[-1]):
            end = "smallest" if arm.rate == arm.rates[0] else "largest"
            return "cannot tell", (
                f"{arm.name} is best at the {end} learning rate of its grid, "
                f"{short_number(arm.rate)}, so it may not be at its best"
            )
    return None


def has_learned(arm: TrainedArm) -> bool:
    """Whether the arm is clearly below the loss of token frequencies alone; true if not known."""
    if arm.unigram is None:
        return True
    needed = LEARNED_NATS
    if arm.floor is not None:
        needed = LEARNED_SHARE * (arm.unigram - arm.floor)
    return arm.unigram - arm.loss >= needed


def range_around(value: float, margin: float) -> Range:
    """From value − margin to value + margin."""
    return Range(value - margin, value + margin)


def judge_claim(
    name: str, claim: Claim, data: ClaimData, *, date: str, machine: str
) -> ClaimVerdict:
    """What the data say of a claim. Where they say nothing: `cannot tell`, and why.

    `date` and `machine` are of the runs; a measurement has its own.
    """
    ranges = verdict_ranges(claim.test)
    estimate, reason = Estimate(math.nan, math.nan, math.nan, ""), ""
    word: Word = "cannot tell"
    try:
        if data.problem:
            raise NoBasisError(data.problem)
        estimate = estimate_effect(claim.test, data)
    except NoBasisError as error:
        reason = str(error)
    else:
        objection = find_objection(claim.test, estimate)
        word, reason = objection or (decide_verdict(estimate.low, estimate.high, ranges), "")
        if word == "cannot tell" and not reason:
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
        claimed=ranges.claimed,
        absent=ranges.absent,
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
