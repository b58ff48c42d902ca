"""A claim and what it rests on become a word. Every verdict that is printed comes from here."""

import math
from collections import Counter

from normlab.apps.claims.arms import NoBasisError, runs_of
from normlab.apps.claims.claim import ARMS_KINDS, KINDS, Claim, Test
from normlab.apps.claims.estimates import Estimate, estimate
from normlab.apps.claims.evidence import Evidence
from normlab.apps.claims.verdicts import Judged, Range, Runs, Word
from normlab.apps.claims.words import ranges, word
from normlab.archive.study import Run

_STATES = ("finished", "diverged", "failed")


def judge(name: str, claim: Claim, evidence: Evidence, *, date: str, machine: str) -> Judged:
    """What the evidence says of a claim. Where it says nothing: `cannot tell`, and why."""
    claimed, absent = ranges(claim.test)
    found, said, reason = _found(claim.test, evidence, claimed, absent)
    low, high = found.low, found.high
    return Judged(
        name=name,
        statement=claim.statement,
        source=claim.source,
        published=claim.published.text,
        published_value=claim.published.value,
        setup=claim.setup,
        differs=claim.differs,
        kind=kind_of(claim.test),
        unit=claim.unit,
        word=said,
        reason=reason,
        value=_number(found.value),
        low=_number(low),
        high=_number(high),
        claimed=claimed,
        absent=absent,
        basis=found.basis,
        runs=_counted(claim.test, evidence),
        seeds=found.seeds,
        command=evidence.command,
        date=evidence.measured.date if evidence.measured else date,
        machine=evidence.measured.machine if evidence.measured else machine,
    )


def kind_of(test: Test) -> str:
    """The test's kind as a claim's file names it."""
    return next(name for name, kind in KINDS.items() if type(test) is kind)


def _found(
    test: Test, evidence: Evidence, claimed: Range, absent: Range | None
) -> tuple[Estimate, Word, str]:
    """The estimate, the word, and why nothing can be told; the last is empty where something is."""
    try:
        if evidence.problem:
            raise NoBasisError(evidence.problem)
        found = estimate(test, evidence)
    except NoBasisError as none:
        return Estimate(math.nan, math.nan, math.nan, ""), "cannot tell", str(none)
    said = word(found.low, found.high, claimed, absent)
    if said != "cannot tell":
        return found, said, ""
    if math.isnan(found.low):
        return found, said, "one seed has no interval"
    return found, said, "the interval reaches over a border of what is claimed"


def _counted(test: Test, evidence: Evidence) -> Runs:
    """The runs of the arms that the claim compares."""
    if kind_of(test) not in ARMS_KINDS:
        return Runs()
    arms = [str(getattr(test, name)) for name in ("a", "b", "arm") if hasattr(test, name)]
    runs: dict[str, Run] = {}
    for arm in arms:
        try:
            runs |= {run.record.id: run for run in runs_of(evidence.runs, arm)}
        except NoBasisError:
            continue  # the estimate has said so
    states = Counter(run.record.state for run in runs.values())
    ended = {state: states[state] for state in _STATES}  # type: ignore[index]
    return Runs(**ended, missing=len(runs) - sum(ended.values()))


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
