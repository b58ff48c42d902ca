"""What the trained experiments compare: a study's arms as trials, at their best and in pairs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normlab.analysis.arms import Arm, format_value
from normlab.analysis.comparison import losses_by_seed
from normlab.analysis.formatting import format_interval
from normlab.analysis.statistics import (
    Difference,
    Outcome,
    adjust_by_holm,
    mean_interval,
    paired_difference,
    seeds_needed,
)

# Nats per token above the best guess without context within which a model has learned none.
NO_CONTEXT = 0.05
SINGLE_SEED = "One seed: no interval, and nothing tells effect from noise; add seed=0,1,2."


@dataclass(frozen=True)
class Trial:
    """Runs that differ in nothing but their seed.

    Attributes:
        losses: final validation loss by seed of those that finished, nats per token.
        diverged: how many of the `runs` did.
        unigram: the lowest loss without context, or None where the record does not have it.
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
    def complete(self) -> bool:
        """Whether every run finished."""
        return len(self.arm.with_state("finished")) == self.runs and bool(self.losses)

    @property
    def mean(self) -> float:
        """Mean final loss of the runs that finished; NaN where none did."""
        return mean_interval(list(self.losses.values()))[0]

    @property
    def ignores_context(self) -> bool:
        """Whether it is hardly better than a guess by frequency."""
        return self.unigram is not None and self.mean > self.unigram - NO_CONTEXT

    @property
    def loss(self) -> str:
        """`2.6989 ± 0.0120`, or without the interval of a single seed."""
        return format_interval(*mean_interval(list(self.losses.values())))


@dataclass(frozen=True)
class TrialPair:
    """Two trials over equal seeds, a − b; p is Holm's over all pairs of their question."""

    a: Trial
    b: Trial
    difference: Difference
    p: float

    @property
    def outcome(self) -> Outcome:
        """Whether a ends lower than b, higher, or the seeds cannot tell."""
        return self.difference.outcome_at(self.p)

    @property
    def gap(self) -> str:
        """`0.0120 ± 0.0300`, of b − a, as in `a is lower by`."""
        return format_interval(-self.difference.mean, self.difference.half)

    @property
    def doubt(self) -> str:
        """Why the seeds cannot tell: `0.0120 ± 0.0300; about 12 pairs of seeds would tell`."""
        if not self.difference.pairs:
            return "no seed in common"
        pairs = seeds_needed(self.difference.mean, self.difference.spread)
        return f"{self.gap}; about {pairs} pairs of seeds would tell" if pairs else self.gap


def read_trials(arms: Sequence[Arm]) -> list[Trial]:
    """The study's arms as trials, in the order of its table."""
    trials = []
    for arm in arms:
        record = arm.runs[0].record

        def setting(section: str, key: str, config: dict[str, Any] = record.config) -> Any:
            part = config.get(section)
            return part.get(key, math.nan) if isinstance(part, dict) else math.nan

        trials.append(
            Trial(
                arm=arm,
                rate=float(setting("optimizer", "lr")),
                depth=setting("model", "depth"),
                warmup=float(setting("schedule", "warmup")),
                losses=losses_by_seed(arm),
                diverged=len(arm.with_state("diverged")),
                runs=len(arm.runs),
                unigram=record.unigram,
            )
        )
    return trials


def group_trials(trials: Iterable[Trial], attribute: str) -> dict[Any, list[Trial]]:
    """Trials by an attribute, in the order in which its values come first."""
    groups: dict[Any, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(getattr(trial, attribute), []).append(trial)
    return groups


def best_trial(trials: Iterable[Trial]) -> Trial | None:
    """The trial with the lowest mean among the complete ones; None without one."""
    return min(
        (trial for trial in trials if trial.complete), key=lambda trial: trial.mean, default=None
    )


def best_trial_of_arms(trials: Iterable[Trial]) -> list[Trial]:
    """Each arm at its best setting, the lowest loss first; without arms that never finish."""
    tuned = [best for arm in group_trials(trials, "name").values() if (best := best_trial(arm))]
    return sorted(tuned, key=lambda trial: trial.mean)


def best_shared_rate(trials: Sequence[Trial]) -> float | None:
    """The rate with the lowest mean over all arms, of those at which every arm finishes.

    None where there is no such rate.
    """
    arms = len(group_trials(trials, "name"))
    means = {
        rate: sum(trial.mean for trial in group) / arms
        for rate, group in group_trials(trials, "rate").items()
        if len(group) == arms and all(trial.complete for trial in group)
    }
    return min(means, key=lambda rate: means[rate], default=None)


def compare_pairs(pairs: Sequence[tuple[Trial, Trial]]) -> list[TrialPair]:
    """Each pair with its paired difference, and Holm's p over all of them."""
    differences = [paired_difference(a.losses, b.losses) for a, b in pairs]
    adjusted = adjust_by_holm([difference.p for difference in differences])
    return [
        TrialPair(*pair, difference, p)
        for pair, difference, p in zip(pairs, differences, adjusted, strict=True)
    ]


def has_single_seed(trials: Iterable[Trial]) -> bool:
    """Whether no trial has more than one loss."""
    return max((len(trial.losses) for trial in trials), default=0) < 2


def format_rate(rate: float) -> str:
    """`lr=3e-3`."""
    return f"lr={format_value(rate)}"
