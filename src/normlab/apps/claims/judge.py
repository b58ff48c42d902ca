"""The rules: from a claim and what it rests on to a verdict. Every verdict is from here.

With the 95 % interval I and the claim's margin m:

| claim                | reproduced      | not reproduced          | refuted          |
|----------------------|-----------------|-------------------------|------------------|
| a is lower than b    | I below −m      | I within ± m            | I above m        |
| a diverges, b not    | I above m       | I within ± m            | I below −m       |
| a and b are equal    | I within ± m    | does not exist          | I wholly outside |
| a ratio, a slope     | I in the range  | I within m of no effect | I wholly outside |
| a value, an equation | I in the range  | does not exist          | I wholly outside |

They are tried in the order of the columns. Anything else is "cannot tell", or "not measured" where
there is neither a run that ended nor a value.
Before the rule come objections, which leave a result without a verdict: runs shorter or smaller
than those that the claim is about ("out of regime"), no arm that has learned ("vacuous"), one that
should have and has not, or a margin that no result could reach ("out of regime"), and an arm that
is best at the end of its grid of learning rates, where it may not be at its best ("cannot tell").

A claim is judged at every length of its runs; its verdict is that of the longest in regime.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from normlab.apps.claims.claim import (
    Claim,
    Diverges,
    Exact,
    Level,
    Lower,
    Parity,
    Ratio,
    Regime,
    Sensitivity,
    Slope,
    Test,
    Value,
)
from normlab.apps.claims.estimates import Estimate, TrainedArm, estimate_effect
from normlab.apps.claims.record import ClaimVerdict, HorizonVerdict, Range, RunCounts, Verdict
from normlab.apps.claims.regime import BudgetReach, describe_limits, describe_shortfall
from normlab.apps.claims.run_archive import describe_origin
from normlab.apps.claims.runs import ClaimData, NoEstimateError, select_runs
from normlab.archive.record import State, short_number
from normlab.archive.study import Run
from normlab.archive.versioned_json import finite_or_none
from normlab.text import join_words

# Go up whenever `estimates` or this module would judge the same runs otherwise: the first for all
# tests, the others for tests of one kind.
RULES_VERSION = 2
RULES_VERSION_OF_KIND = {"sensitivity": 3}
# An arm has learned if it has come this share of the way from the unigram loss to the floor, or
# where the floor is not known, so many nats per token below the unigram loss.
# Before this rule claims were judged where all arms had ended at 1.98 to 2.00, with a unigram loss
# of 2.08 and a floor of 1.60.
LEARNED_SHARE = 0.25
LEARNED_NATS = 0.25
_ENDED_STATES: tuple[State, ...] = ("finished", "diverged", "failed")


@dataclass(frozen=True)
class VerdictRanges:
    """Where the interval lies if the claim holds, if it is wrong, and if there is no effect."""

    claimed: Range
    refuted: tuple[Range, ...]
    absent: Range | None = None


def decide_verdict(low: float, high: float, ranges: VerdictRanges) -> Verdict:
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
            # Beyond the margin, not beyond 0: −0.0008 ± 0.0002 at a margin of 0.02 is no effect.
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


def find_objection(
    test: Test, estimate: Estimate, regime: Regime | None = None
) -> tuple[Verdict, str] | None:
    """Why a result of trained arms is printed and not judged: the verdict, and a reason.

    Without a regime it is enough that one arm has learned.
    """
    arms = estimate.arms
    unlearned = [arm for arm in arms if not has_learned(arm)]
    if arms and len(unlearned) == len(arms):
        lowest = min(arms, key=lambda arm: arm.loss)
        return "vacuous", (
            f"no arm has learned: the lowest loss is {lowest.loss:.4f} ({lowest.name}), and that "
            f"of token frequencies alone {lowest.unigram:.4f}"
        )
    if unlearned and regime:
        first = unlearned[0]
        return "out of regime", (
            f"the claim is about arms that learn, and {first.name} has not: its loss is "
            f"{first.loss:.4f}, and that of token frequencies alone {first.unigram:.4f}"
        )
    # Else "not reproduced" would be the only possible outcome: after 150 steps no arm could have a
    # sensitivity to the learning rate above the margin of 0.05.
    if estimate.largest < getattr(test, "margin", 0.0):
        return "out of regime", _describe_largest(test, estimate.largest)
    for arm in arms:
        if len(arm.rates) > 1 and arm.rate in (arm.rates[0], arm.rates[-1]):
            end = "smallest" if arm.rate == arm.rates[0] else "largest"
            return "cannot tell", (
                f"{arm.name} is best at the {end} learning rate of its grid, "
                f"{short_number(arm.rate)}, so it may not be at its best"
            )
    # An arm whose runs diverge at every rate has a sensitivity, and no best loss.
    if isinstance(test, Sensitivity) and len(arms) == 2 and abs(estimate.value) > test.margin:
        return _object_to_learning_less(test, estimate)
    return None


def _object_to_learning_less(test: Sensitivity, estimate: Estimate) -> tuple[Verdict, str] | None:
    """The objection that the less sensitive arm is so because it learns less; None if it does not.

    Sensitivity is the mean loss over the rates less the loss at the best: of two arms with the same
    losses at all rates but one, the arm that is lower at that one is the more sensitive.
    """
    less, more = estimate.arms if estimate.value < 0 else reversed(estimate.arms)
    if less.loss - more.loss <= test.margin:
        return None
    return "cannot tell", (
        f"{less.name} is less sensitive, but at its best rate its loss is {less.loss:.4f}, above "
        f"{more.loss:.4f} of {more.name}, and what learns less has less to lose at other rates"
    )


def _describe_largest(test: Test, largest: float) -> str:
    margin = getattr(test, "margin", 0.0)
    if isinstance(test, Sensitivity):
        return (
            f"no sensitivity can be larger than {_format_below(largest, margin, 4)} here, from the "
            f"loss before training to the lowest, and the margin is {margin:g}"
        )
    return (
        f"even if every run of one arm diverged and none of the other, the 95 % interval would "
        f"begin at {_format_below(largest, margin, 2)}, below the margin {margin:g}; more seeds, "
        f"or fewer learning rates, are needed"
    )


def _format_below(value: float, limit: float, decimals: int) -> str:
    """With so many decimals, or as many more as it takes to read as less than the limit."""
    texts = (f"{value:.{count}f}" for count in range(decimals, 17))
    return next((text for text in texts if float(text) < limit), repr(value))


def has_learned(arm: TrainedArm) -> bool:
    """Whether the arm is clearly below the loss of token frequencies alone; true if not known."""
    if arm.unigram is None:
        return True
    needed = LEARNED_NATS if arm.floor is None else LEARNED_SHARE * (arm.unigram - arm.floor)
    return arm.unigram - arm.loss >= needed


def range_around(value: float, margin: float) -> Range:
    """From value − margin to value + margin."""
    return Range(value - margin, value + margin)


def judge_claim(
    name: str, claim: Claim, data: ClaimData, *, date: str, machine: str
) -> ClaimVerdict:
    """What the data say of a claim. Where they say nothing: `cannot tell`, or `not measured`.

    `date` and `machine` are of the runs where these have none; a measurement has its own.
    """
    ended, device = describe_origin(data.runs)
    compared = _runs_of_arms(claim, data)
    ranges = verdict_ranges(claim.test)
    horizons = judge_lengths(claim, data, ranges)
    if not _is_measured(claim, data):
        horizons = [
            replace(horizon, word="not measured") if horizon.word == "cannot tell" else horizon
            for horizon in horizons
        ]
    # Longer runs are nearer to those that were published.
    in_regime = [horizon for horizon in horizons if horizon.word != "out of regime"]
    last = (in_regime or horizons)[-1]
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
        word=last.word,
        reason=last.reason,
        value=last.value,
        low=last.low,
        high=last.high,
        claimed=ranges.claimed,
        absent=ranges.absent,
        basis=last.basis,
        runs=_count_runs(compared),
        seeds=last.seeds,
        command=data.command,
        date=data.measurement.date if data.measurement else data.date or ended or date,
        machine=data.measurement.machine if data.measurement else data.machine or device or machine,
        horizons=tuple(horizon for horizon in horizons if horizon.steps),
        regime=describe_regime(claim),
        role=claim.role.value,
        trained=_describe_trained(compared),
    )


def _is_measured(claim: Claim, data: ClaimData) -> bool:
    """Whether there is anything of what the claim looks at: its values, or a run that ended."""
    if data.measurement is not None:
        return bool(data.measurement.series.get(getattr(claim.test, "of", "")))
    return any(run.record.state in _ENDED_STATES for run in _runs_of_arms(claim, data))


def judge_lengths(claim: Claim, data: ClaimData, ranges: VerdictRanges) -> list[HorizonVerdict]:
    """The verdict at every length of the runs that the claim compares, by increasing length.

    One of length 0 where nothing is trained, or there are no such runs.
    """
    lengths = sorted({run.record.last_step or 0 for run in _runs_of_arms(claim, data)})
    if len(lengths) < 2:
        return [_judge_effect(claim, data, ranges, lengths[0] if lengths else 0)]
    by_length: dict[int | None, list[Run]] = defaultdict(list)
    for run in data.runs:
        by_length[run.record.last_step].append(run)
    # A run that has not ended may belong to any length, and leaves none of them with a verdict.
    unknown = by_length[None]
    return [
        _judge_effect(claim, replace(data, runs=(*by_length[steps], *unknown)), ranges, steps)
        for steps in lengths
    ]


def _judge_effect(
    claim: Claim, data: ClaimData, ranges: VerdictRanges, steps: int
) -> HorizonVerdict:
    """What data of one length say."""
    estimate, reason = Estimate(math.nan, math.nan, math.nan, ""), ""
    word: Verdict = "cannot tell"
    try:
        if data.problem:
            raise NoEstimateError(data.problem)
        estimate = estimate_effect(claim.test, data)
    except NoEstimateError as error:
        reason = str(error)
    else:
        objection = find_objection(claim.test, estimate, claim.regime)
        word, reason = objection or (decide_verdict(estimate.low, estimate.high, ranges), "")
        if word == "cannot tell" and not reason:
            reason = (
                "one seed has no interval"
                if math.isnan(estimate.low)
                else "the interval reaches over a border of what is claimed"
            )
    # Last, in the place of any other verdict: the value stays, to be printed.
    if shortfall := _find_shortfall(claim, data, steps):
        word, reason = "out of regime", shortfall
    return HorizonVerdict(
        word=word,
        value=finite_or_none(estimate.value),
        low=finite_or_none(estimate.low),
        high=finite_or_none(estimate.high),
        steps=steps,
        reason=reason,
        basis=estimate.basis,
        seeds=estimate.seeds,
    )


def _find_shortfall(claim: Claim, data: ClaimData, steps: int) -> str | None:
    """Why these runs are shorter or smaller than those of the regime; None where they are not."""
    if claim.regime is None or not steps:
        return None
    models = [run.record.config["model"] for run in _runs_of_arms(claim, data)]
    size = BudgetReach(
        (steps,),
        min(int(model["depth"]) for model in models),
        min(int(model["width"]) for model in models),
    )
    return describe_shortfall(claim.regime, size, data.reach)


def describe_regime(claim: Claim) -> str:
    """`runs of at least 1000 steps, where both arms have learned (2309.14322)`.

    Empty without a regime.
    """
    if claim.regime is None:
        return ""
    compares_arms = isinstance(claim.test, Lower | Parity | Sensitivity)
    learned = ", where both arms have learned" if compares_arms else ""
    return f"{describe_limits(claim.regime)}{learned} ({claim.regime.source})"


def _describe_trained(runs: Sequence[Run]) -> str:
    """`4 blocks of width 64 for 250, 500 and 1000 steps`; empty without runs."""
    models = [run.record.config["model"] for run in runs]
    if not models:
        return ""
    depths, widths, steps = (
        join_words(list(map(str, sorted(set(values)))))
        for values in (
            [int(model["depth"]) for model in models],
            [int(model["width"]) for model in models],
            [run.record.last_step for run in runs if run.record.last_step],
        )
    )
    return f"{depths} blocks of width {widths}" + (f" for {steps} steps" if steps else "")


def _runs_of_arms(claim: Claim, data: ClaimData) -> list[Run]:
    """The runs of the arms that the claim compares; a run of two arms once."""
    runs: dict[str, Run] = {}
    for arm in claim.arms:
        try:
            runs |= {run.record.id: run for run in select_runs(data.runs, arm)}
        except NoEstimateError:
            continue  # the verdict's reason says so
    return list(runs.values())


def _count_runs(runs: Sequence[Run]) -> RunCounts:
    """The runs by state; what has not ended is missing."""
    counts = Counter(run.record.state for run in runs)
    ended = {state: counts[state] for state in _ENDED_STATES}
    return RunCounts(**ended, missing=counts.total() - sum(ended.values()))
