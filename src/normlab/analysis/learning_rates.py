"""A study over learning rates: the loss by rate, how sensitive to it an arm is, its best rate.

All numbers are over the grid of rates that the arms share. LR sensitivity is that of arXiv
2309.14322: the mean over the grid of min(loss, initial loss) − the lowest of them, where a run that
diverged counts as its initial loss: the validation loss at step 0 of the same arm and seed.

An arm's best rate is chosen by its losses on one half of the validation windows, and the arms are
then compared by those on the other half: the lowest of several losses is too low by chance on the
very windows by which it was chosen. Runs that were recorded without the halves have one loss for
both.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from normlab.analysis.arms import Arm, merge_arms, name_arms
from normlab.analysis.comparison import (
    FinalLoss,
    is_unlearned,
    losses_by_seed,
    mostly_diverged,
)
from normlab.analysis.formatting import join_first
from normlab.analysis.statistics import mean_interval, mean_or_infinity
from normlab.archive import tags
from normlab.archive.record import SETTLED_STATES, short_number
from normlab.archive.study import Run

FEWEST_RATES = 3

# What is said of losses on the half of the validation windows that did not choose a setting.
OTHER_WINDOWS = "on the windows that did not choose it"
STABLE_UP_TO = "stable up to: no run diverged there or below, and every run learned there"

_RATE_NAMES = ("lr", "optimizer.lr")  # the setting as `group_runs` names it


@dataclass(frozen=True)
class RatePoint:
    """An arm at one learning rate; losses are final validation losses in nats per token.

    Attributes:
        rate: the learning rate.
        arm: the runs at this rate.
        capped: by seed, min(loss, initial loss), the initial loss for a run that diverged; without
            the seeds whose initial loss is not known.
        ranking: as `capped`, by the losses that the best rate is chosen by.
        tested: by seed, the losses that arms are compared by.
    """

    rate: float
    arm: Arm
    capped: Mapping[int, float]
    ranking: Mapping[int, float]
    tested: Mapping[int, float]

    @cached_property
    def losses(self) -> Mapping[int, float]:
        """By seed, of the runs that finished."""
        return losses_by_seed(self.arm)

    @property
    def diverged(self) -> int:
        """How many runs diverged."""
        return len(self.arm.with_state("diverged"))

    @property
    def unlearned(self) -> int:
        """How many runs finished and learned nothing, or hardly anything."""
        return sum(map(is_unlearned, self.arm.runs))

    @property
    def ranking_loss(self) -> float:
        """What the best rate is chosen by: the mean of `ranking`, or of `losses` without any."""
        return mean_interval((self.ranking or self.losses).values())[0]


@dataclass(frozen=True)
class RatedArm:
    """An arm over learning rates, which are no part of its settings.

    Attributes:
        arm: all its runs.
        points: every rate that has a result, ascending.
        grid: the rates that all arms of the study share, ascending.
        initial: mean validation loss at initialization, in nats per token, or NaN.
    """

    arm: Arm
    points: tuple[RatePoint, ...]
    grid: tuple[float, ...]
    initial: float

    @property
    def name(self) -> str:
        """What distinguishes the arm."""
        return self.arm.label

    @property
    def shared(self) -> list[RatePoint]:
        """The points on the shared grid."""
        return [point for point in self.points if point.rate in self.grid]

    @property
    def diverged(self) -> int:
        """How many runs diverged, over all rates."""
        return sum(point.diverged for point in self.points)

    @property
    def sensitivity(self) -> dict[int, float]:
        """LR sensitivity by seed, in nats per token: of seeds with a result at every rate.

        A seed of which no run finished has none: an arm that never trains is not insensitive. Over
        one rate alone there is none.
        """
        if len(self.shared) < 2:
            return {}
        by_seed = {}
        for seed in sorted({seed for point in self.shared for seed in point.losses}):
            losses = [point.capped.get(seed, math.nan) for point in self.shared]
            if not any(map(math.isnan, losses)):
                by_seed[seed] = math.fsum(losses) / len(losses) - min(losses)
        return by_seed

    @property
    def largest_stable(self) -> float | None:
        """The largest rate of the grid at which every run learned, and none diverged up to it.

        None if there is no such rate. An arm that learned at a rate, and nothing at a larger one,
        is not stable beyond, whether it diverged there or not; one that learned nothing at a rate
        below may only have been too slow.
        """
        stable = None
        for point in self.shared:
            if point.diverged or (stable is not None and point.unlearned):
                break
            if not point.unlearned:
                stable = point.rate
        return stable

    @property
    def best(self) -> RatePoint | None:
        """The rate of the grid with the lowest mean of the capped losses, or None.

        A run that diverged counts as its initial loss, so no rate is best by its survivors; one of
        which half or more diverged is not chosen at all.
        """
        candidates = [
            point for point in self.shared if point.losses and not mostly_diverged(point.arm)
        ]
        return min(candidates, key=lambda point: point.ranking_loss, default=None)

    @property
    def best_rate(self) -> float | None:
        """The learning rate of `best`."""
        return self.best.rate if self.best else None

    @property
    def tuned(self) -> dict[int, float]:
        """The final validation loss that arms are compared by, at the best rate, by seed."""
        return dict(self.best.tested) if self.best else {}

    @property
    def tuned_mean(self) -> float:
        """Mean of `tuned`; infinite without any, to stand last."""
        return mean_or_infinity(self.tuned.values())


@dataclass(frozen=True)
class LearningRates:
    """A study over learning rates.

    Attributes:
        arms: in the order of `group_runs`, those with three rates or more.
        grid: the rates that all of them share, ascending.
        halved: whether rates are chosen on one half of the validation windows, and arms compared on
            the other.
        warnings: what weakens the comparison: other grids, a best rate at the grid's edge.
    """

    arms: tuple[RatedArm, ...]
    grid: tuple[float, ...]
    halved: bool
    warnings: tuple[str, ...]

    @property
    def ranked(self) -> list[RatedArm]:
        """The arms, lowest mean loss at its best rate first, those without a best rate last."""
        return sorted(self.arms, key=lambda rated: rated.tuned_mean)

    @property
    def compared_loss(self) -> FinalLoss:
        """The loss by which arms are compared at their best rates."""
        return "test_loss" if self.halved else "val_loss"


def analyse_learning_rates(study_arms: Sequence[Arm]) -> LearningRates | None:
    """A study's arms over its learning rates; None where none has three of them or more."""
    by_rate = [(arm, _runs_by_rate(arm)) for arm in _merge_rates(study_arms)]
    rated = [(arm, runs_at) for arm, runs_at in by_rate if len(runs_at) >= FEWEST_RATES]
    if not rated:
        return None
    # Of all arms or of none: a loss over half of the windows does not compare with one over all.
    halved = all(has_halves(arm.with_state("finished")) for arm, _ in rated)
    grid = tuple(sorted(set.intersection(*(set(runs_at) for _, runs_at in rated))))
    rated_arms = []
    for arm, runs_at in rated:
        initial = _initial_losses(arm)
        points = tuple(
            _rate_point(rate, replace(arm, runs=tuple(runs_at[rate])), initial, halved)
            for rate in sorted(runs_at)
        )
        mean = mean_interval(initial.values())[0]
        rated_arms.append(RatedArm(arm, points, grid, mean))
    few = [arm.label for arm, runs_at in by_rate if len(runs_at) < FEWEST_RATES]
    return LearningRates(tuple(rated_arms), grid, halved, tuple(_rate_warnings(rated_arms, few)))


def has_halves(runs: Iterable[Run]) -> bool:
    """Whether the loss on either half of the validation windows is known of all these runs.

    Runs without a final validation loss have no loss to compare, and do not count.
    """
    finals = [final for run in runs if (final := run.record.final).val_loss is not None]
    return all(None not in (final.selection_loss, final.test_loss) for final in finals)


def _merge_rates(arms: Sequence[Arm]) -> list[Arm]:
    """The arms without their learning rate: those that differ in nothing else are one."""
    without_rate = [
        replace(arm, settings=tuple(s for s in arm.settings if s[0] not in _RATE_NAMES))
        for arm in arms
    ]
    return name_arms(merge_arms(without_rate))


def _runs_by_rate(arm: Arm) -> dict[float, list[Run]]:
    by_rate: dict[float, list[Run]] = defaultdict(list)
    for run in arm.with_state(*SETTLED_STATES):
        if (rate := learning_rate(run)) is not None:
            by_rate[rate].append(run)
    return by_rate


def learning_rate(run: Run) -> float | None:
    """The run's peak learning rate; None where its record has none."""
    optimizer = run.record.config.get("optimizer")
    rate = optimizer.get("lr") if isinstance(optimizer, dict) else None
    return float(rate) if isinstance(rate, int | float) else None


def _rate_point(rate: float, arm: Arm, initial: Mapping[int, float], halved: bool) -> RatePoint:
    losses, lost = losses_by_seed(arm), arm.with_state("diverged")

    def cap(losses: Mapping[int, float]) -> dict[int, float]:
        # A run that diverged becomes its initial loss below.
        reached = {**losses, **{run.record.seed: math.inf for run in lost}}
        return {seed: min(loss, initial[seed]) for seed, loss in reached.items() if seed in initial}

    chosen_by = losses_by_seed(arm, "selection_loss") if halved else losses
    tested = losses_by_seed(arm, "test_loss") if halved else losses
    return RatePoint(rate, arm, cap(losses), cap(chosen_by), tested)


def _initial_losses(arm: Arm) -> dict[int, float]:
    """Validation loss at step 0 by seed; it does not depend on the rate, so any run tells it."""
    losses: dict[int, float] = {}
    for run in arm.runs:
        series = run.events.scalars.get(tags.VALIDATION_LOSS)
        if series and series.steps[0] == 0 and math.isfinite(series.values[0]):
            losses.setdefault(run.record.seed, float(series.values[0]))
    return losses


def _rate_warnings(arms: Sequence[RatedArm], few: Sequence[str]) -> Iterator[str]:
    """What weakens the comparison of these arms; `few` are labels of arms with too few rates."""
    if few:
        yield (
            f"Fewer than {FEWEST_RATES} learning rates, therefore not compared: {join_first(few)}."
        )
    extra = [
        f"{rated.name} has lr={','.join(map(short_number, beyond))} besides"
        for rated in arms
        if (beyond := [point.rate for point in rated.points if point.rate not in rated.grid])
    ]
    if extra:
        yield (
            f"The arms do not share one grid of learning rates; sensitivity and best rates are "
            f"over the {len(arms[0].grid)} that all have: {join_first(extra)}."
        )
    if len(arms[0].grid) == 1:
        yield "The arms share one learning rate alone, so that there is no LR sensitivity."
    edges = [
        f"{rated.name} at lr={short_number(rate)}"
        for rated in arms
        if (rate := rated.best_rate) is not None and rate in (rated.grid[0], rated.grid[-1])
    ]
    if edges:
        yield (
            f"The best rate is at the edge of the grid, so a better one may lie beyond; widen it "
            f"with optimizer.lr=…: {join_first(edges)}."
        )
    lacking = [
        rated.name
        for rated in arms
        if len(rated.shared) > 1
        and {seed for point in rated.shared for seed in point.losses} - rated.sensitivity.keys()
    ]
    if lacking:
        yield (
            f"Seeds without a result at every rate, or without a validation loss at step 0, are "
            f"not in the LR sensitivity: {join_first(lacking)}."
        )
