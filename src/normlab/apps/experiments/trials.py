"""An experiment's runs by what it varies: norm, placement, learning rate, depth, warm-up."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

from normlab.analysis.arms import Arm, format_value, group
from normlab.analysis.comparison import losses_by_seed
from normlab.analysis.sentences import measured
from normlab.analysis.statistics import (
    Difference,
    holm,
    mean_interval,
    paired_difference,
    seeds_needed,
)
from normlab.archive.study import Study

# Nats per token above the best guess without context within which a model has learned none.
NO_CONTEXT = 0.05
MOST_ARMS = 12  # in a figure
ONE_SEED = "One seed: no interval, and nothing tells effect from noise; add seed=0,1,2."

_K = TypeVar("_K")


@dataclass(frozen=True)
class Trial:
    """Runs that differ in nothing but their seed.

    Attributes:
        losses: final validation loss by seed of those that finished, nats per token.
        diverged: how many of the `runs` did.
        unigram: the lowest loss without context, or None where the record does not tell.
    """

    arm: Arm
    rate: float
    depth: int
    warmup: float
    losses: Mapping[int, float]
    diverged: int
    runs: int
    unigram: float | None

    @property
    def name(self) -> str:
        """Norm and placement."""
        return self.arm.name

    @property
    def whole(self) -> bool:
        """Whether every run finished."""
        return len(self.arm.with_state("finished")) == self.runs and bool(self.losses)

    @property
    def mean(self) -> float:
        """Mean final loss of the runs that finished; NaN where none did."""
        return mean_interval(list(self.losses.values()))[0]

    @property
    def learned_no_context(self) -> bool:
        """Whether it is hardly better than a guess by frequency."""
        return self.unigram is not None and self.mean > self.unigram - NO_CONTEXT


def trials(study: Study) -> list[Trial]:
    """The study's arms as trials, in the order of its table."""
    return [_trial(arm) for arm in group(study.runs)]


def by(key: Callable[[Trial], _K], some: Iterable[Trial]) -> dict[_K, list[Trial]]:
    """Cells by a key, in the order in which its values come first."""
    found: dict[_K, list[Trial]] = {}
    for trial in some:
        found.setdefault(key(trial), []).append(trial)
    return found


def best(some: Iterable[Trial]) -> Trial | None:
    """The trial with the lowest mean among those all of whose runs finished; None without one."""
    return min((trial for trial in some if trial.whole), key=lambda trial: trial.mean, default=None)


def best_arms(found: Sequence[Trial]) -> tuple[list[Trial], str]:
    """The trials of the arms with the lowest losses, and a line for those that are not shown."""
    arms = by(lambda trial: trial.name, found)
    order = sorted(arms, key=lambda name: one.mean if (one := best(arms[name])) else math.inf)
    shown = set(order[:MOST_ARMS])
    hidden = len(order) - len(shown)
    note = f"\nThe {MOST_ARMS} of {len(order)} arms with the lowest losses; runs.csv holds all."
    return [trial for trial in found if trial.name in shown], note * (hidden > 0)


def differences(some: Sequence[Trial]) -> list[tuple[Trial, Difference, float]]:
    """The first against each other, paired by seed, with Holm's p.

    The first is the lowest of all, so p counts every pair that it was chosen from; see
    `analysis.comparison`.
    """
    pairs = list(combinations(some, 2))
    found = [paired_difference(a.losses, b.losses) for a, b in pairs]
    adjusted = holm([difference.p for difference in found])
    return [
        (b, difference, p)
        for (a, b), difference, p in zip(pairs, found, adjusted, strict=True)
        if a is some[0]
    ]


def loss(trial: Trial) -> str:
    """`2.6989 ± 0.0120`, or without the interval of one seed."""
    return measured(*mean_interval(list(trial.losses.values())))


def not_told(difference: Difference) -> str:
    """`0.0120 ± 0.0300; about 12 pairs would tell`: a − b turned round, as `lower by` is."""
    if not difference.pairs:
        return "no seed in common"
    pairs = seeds_needed(difference.mean, difference.spread)
    more = f"; about {pairs} pairs of seeds would tell" if pairs else ""
    return f"{measured(-difference.mean, difference.half)}{more}"


def rate(value: float) -> str:
    """`lr=3e-3`."""
    return f"lr={format_value(value)}"


def said(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _trial(arm: Arm) -> Trial:
    config: dict[str, Any] = arm.runs[0].record.config

    def number(section: str, key: str) -> Any:
        part = config.get(section)
        return part.get(key, math.nan) if isinstance(part, dict) else math.nan

    return Trial(
        arm=arm,
        rate=float(number("optimizer", "lr")),
        depth=number("model", "depth"),
        warmup=float(number("schedule", "warmup")),
        losses=losses_by_seed(arm),
        diverged=len(arm.with_state("diverged")),
        runs=len(arm.runs),
        unigram=arm.runs[0].record.unigram,
    )
