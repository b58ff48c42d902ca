"""What the trained experiments compare: a study's arms as trials, at their best and in pairs."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from normlab.analysis.arms import Arm, format_value
from normlab.analysis.comparison import losses_by_seed
from normlab.analysis.family import family_differences
from normlab.analysis.formatting import format_interval
from normlab.analysis.learning_rates import OTHER_WINDOWS, has_halves
from normlab.analysis.statistics import LEVEL, Difference, Outcome, mean_interval
from normlab.text import join_words

# A model that ends less than this below the best guess without context has hardly used any context;
# in nats per token.
NO_CONTEXT = 0.05
SINGLE_SEED = "One seed: no interval, so an effect cannot be separated from noise; add seed=0,1,2."


@dataclass(frozen=True)
class Trial:
    """Runs that differ in nothing but their seed.

    Attributes:
        losses: final validation loss by seed of those that finished, nats per token.
        selection, tested: the losses that the best setting is chosen by, and those by which arms
            are compared at it: on the two halves of the validation windows where all runs have
            both, else `losses`.
        diverged: how many of the `runs` did.
        unigram: the lowest loss without context, or None where the record does not have it.
    """

    arm: Arm
    rate: float
    depth: int
    warmup: float
    losses: Mapping[int, float]
    selection: Mapping[int, float]
    tested: Mapping[int, float]
    steps: int
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
        return mean_interval(self.losses.values())[0]

    @property
    def ignores_context(self) -> bool:
        """Whether it is hardly better than a guess by frequency."""
        return self.unigram is not None and self.mean > self.unigram - NO_CONTEXT

    @property
    def windows(self) -> str:
        """On which windows `tested` is, to be put behind "at its best"; empty of all windows."""
        return "" if self.tested is self.selection else f", {OTHER_WINDOWS}"

    @property
    def loss(self) -> str:
        """`2.6989 ± 0.0120`, or without the interval of a single seed."""
        return format_interval(*mean_interval(self.losses.values()))


@dataclass(frozen=True)
class TrialPair:
    """Two trials over equal seeds, a − b; the interval holds for all pairs of their question."""

    a: Trial
    b: Trial
    difference: Difference

    @property
    def outcome(self) -> Outcome:
        """Whether a ends lower than b, higher, or the seeds cannot tell."""
        return self.difference.outcome_within()

    @property
    def gap(self) -> str:
        """`0.0120 ± 0.0300`, of b − a, as in `a is lower by`."""
        return format_interval(-self.difference.mean, self.difference.half)

    @property
    def doubt(self) -> str:
        """Why the seeds cannot tell: `0.0120 ± 0.0300, 0.0500 detectable`."""
        if not self.difference.pairs:
            return "no seed in common"
        if math.isnan(self.difference.half):
            return self.gap
        return f"{self.gap}, {format_interval(self.difference.detectable, math.nan)} detectable"


def read_trials(arms: Sequence[Arm]) -> list[Trial]:
    """The study's arms as trials, in the order of its table."""
    # For all arms or for none: a loss on half of the windows does not compare with one on all.
    halved = all(has_halves(arm.with_state("finished")) for arm in arms)
    trials = []
    for arm in arms:
        record = arm.runs[0].record

        def setting(section: str, key: str, config: dict[str, Any] = record.config) -> Any:
            part = config.get(section)
            return part.get(key, math.nan) if isinstance(part, dict) else math.nan

        losses = losses_by_seed(arm)
        trials.append(
            Trial(
                arm=arm,
                rate=float(setting("optimizer", "lr")),
                depth=setting("model", "depth"),
                warmup=float(setting("schedule", "warmup")),
                losses=losses,
                selection=losses_by_seed(arm, "selection_loss") if halved else losses,
                tested=losses_by_seed(arm, "test_loss") if halved else losses,
                steps=record.last_step or record.step,
                diverged=len(arm.with_state("diverged")),
                runs=len(arm.runs),
                unigram=record.unigram,
            )
        )
    return trials


def group_trials(trials: Iterable[Trial], attribute: str) -> dict[Any, list[Trial]]:
    """Trials by an attribute, as `arm.norm`, in the order in which its values come first."""
    groups: dict[Any, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(attrgetter(attribute)(trial), []).append(trial)
    return groups


def best_trial(trials: Iterable[Trial]) -> Trial | None:
    """The complete trial with the lowest mean of `selection`, its losses those of `tested`.

    None without a complete one.
    """
    complete = [trial for trial in trials if trial.complete]
    if not complete:
        return None
    best = min(complete, key=lambda trial: mean_interval(trial.selection.values())[0])
    # From here on it is shown on the windows that did not choose it.
    return replace(best, losses=best.tested)


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


def compare_pairs(pairs: Sequence[tuple[Trial, Trial]], families: int = 1) -> list[TrialPair]:
    """Each pair with its difference, right for all pairs of these trials together.

    `families` is how many such groups of trials one question has; they share out the level.
    """
    # By identity: a trial holds dicts, so that it has no hash.
    trials = list({id(trial): trial for pair in pairs for trial in pair}.values())
    position = {id(trial): index for index, trial in enumerate(trials)}
    indices = [(position[id(a)], position[id(b)]) for a, b in pairs]
    losses = [trial.losses for trial in trials]
    differences = family_differences(losses, indices, LEVEL / families) if pairs else {}
    return [
        TrialPair(*pair, differences[index]) for pair, index in zip(pairs, indices, strict=True)
    ]


def has_single_seed(trials: Iterable[Trial]) -> bool:
    """Whether no trial has more than one loss."""
    return max((len(trial.losses) for trial in trials), default=0) < 2


def format_steps(trials: Iterable[Trial]) -> str:
    """`500 steps`, or `250 or 500 steps`: how long the trials trained."""
    return f"{' or '.join(map(str, sorted({trial.steps for trial in trials})))} steps"


def format_rate(rate: float) -> str:
    """`lr=3e-3`."""
    return f"lr={format_value(rate)}"


def describe_divergence(trials: Sequence[Trial]) -> Iterator[str]:
    """Where each arm diverges, and who finishes at the highest of those rates."""
    arms = group_trials(trials, "name")
    highest: list[float] = []
    for name, arm in arms.items():
        diverged = sorted((t for t in arm if t.diverged), key=lambda trial: trial.rate)
        if diverged:
            rates = [f"{format_rate(t.rate)} ({t.diverged} of {t.runs})" for t in diverged]
            # Not "Diverged: none at …": one arm is named `none`, and this is the first sentence.
            yield f"Runs of the arm {name} diverge at {join_words(rates)}."
            highest.append(diverged[-1].rate)
    # Once for a rate, also where several arms diverge at it.
    for rate in dict.fromkeys(highest):
        finished = [f"{t.name} at {t.loss}" for t in trials if t.rate == rate and t.complete]
        if finished:
            yield f"At {format_rate(rate)} these finish: {join_words(finished)}."
    if not highest:
        yield f"No run of {join_words(list(arms))} diverged at any rate of the grid."


def describe_ignored_context(trials: Sequence[Trial]) -> Iterator[str]:
    """The arms that have hardly learned more than frequencies, and at which rates."""
    stuck = [trial for trial in trials if trial.ignores_context]
    if stuck:
        arms = [
            f"{name} at {join_words([format_rate(trial.rate) for trial in arm])}"
            for name, arm in group_trials(stuck, "name").items()
        ]
        yield (
            f"Above, or less than {NO_CONTEXT:g} below, the loss of token frequencies alone "
            f"({stuck[0].unigram:.2f}), and so with hardly any use of context: {'; '.join(arms)}."
        )
