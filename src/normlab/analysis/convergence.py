"""How fast and how smoothly arms trained: steps to a target loss, and loss spikes.

A run that did not reach the target would have needed more steps than it had: its number of steps is
censored, and a mean over seeds would leave out just the slow ones. So an arm has a median, and arms
are compared by the log-rank test (Mantel 1966), whose p is the exact one of all ways to divide the
runs among the two arms (20,000 random ones where there are more): with few seeds the usual
chi-squared p is too small.

A loss spike is a step whose training loss lies more than `SPIKE_SIGMAS` robust standard deviations
above the median of the `SPIKE_WINDOW` steps before it. Steps in a row are one spike.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from normlab.analysis.arms import Arm, Facet
from normlab.analysis.comparison import is_below_floor, is_invalid, learned_data
from normlab.analysis.curves import data_floors
from normlab.analysis.formatting import format_probability, join_first
from normlab.analysis.statistics import LEVEL
from normlab.analysis.summary import are_speeds_comparable
from normlab.archive import tags
from normlab.archive.record import SETTLED_STATES
from normlab.archive.study import Run

# Where nobody names a target: so many nats per token above the lowest loss that is possible. On the
# synthetic language arms differ mainly in when they find its structure, and then come this near.
ABOVE_FLOOR = 0.1

SPIKE_WINDOW, SPIKE_SIGMAS = 128, 6.0
# Of fewer steps than this there is no count: most of the run would be its own window.
SPIKE_FEWEST_STEPS = 256
_MAD_TO_SIGMA = 1.4826  # of a normal distribution

# Ways to divide the runs among two arms; with more, this many are drawn.
_MOST_DIVISIONS = 20_000


@dataclass(frozen=True)
class ArmConvergence:
    """One arm; steps are optimizer steps, of the first validation at or below the target.

    Attributes:
        arm: its diverged runs are counted, and its finished ones with complete curves.
        runs: how many these are.
        steps: by run; infinite where no validation was at or below the target, or the run diverged.
        seconds: by run, of training without validation; infinite likewise. Empty where the speeds
            of the runs cannot be compared, or a run's time is not known.
        spikes: loss spikes of all runs together; None where a run is too short for a count.
    """

    arm: Arm
    runs: int
    steps: tuple[float, ...]
    seconds: tuple[float, ...]
    spikes: int | None

    @property
    def reached(self) -> int:
        """How many runs reached the target."""
        return sum(map(math.isfinite, self.steps))

    @property
    def median_steps(self) -> float:
        """Median over the runs; infinite where half of them or more did not reach the target."""
        # The higher of two middle values: the mean of a step and infinity is no step.
        return statistics.median_high(self.steps) if self.steps else math.nan

    @property
    def median_seconds(self) -> float:
        """The same in seconds; NaN where speeds cannot be compared."""
        return statistics.median_high(self.seconds) if self.seconds else math.nan


@dataclass(frozen=True)
class Convergence:
    """Steps to the target and spikes of a study.

    Attributes:
        target: in nats per token; None where there is none, and then no arm has steps.
        is_default: whether it is `ABOVE_FLOOR` above the floor, because no target was set.
        arms: in the order of the study's.
        facets: the arms that are compared with each other.
    """

    target: float | None
    is_default: bool
    arms: tuple[ArmConvergence, ...]
    facets: tuple[Facet, ...]


def analyse_convergence(
    arms: Sequence[Arm], facets: Sequence[Facet], target: float | None
) -> Convergence:
    """Steps to the target (nats per token) and spikes, of the runs that finished or diverged.

    Without a target it is `ABOVE_FLOOR` above the floor where all arms share one.
    """
    is_default, floors = target is None, data_floors(arms)
    if target is None and len(floors) == 1 and len({learned_data(arm) for arm in arms}) == 1:
        target = floors[0] + ABOVE_FLOOR
    rows = tuple(_measure_arm(arm, target) for arm in arms)
    return Convergence(target, is_default, rows, tuple(facets))


def _measure_arm(arm: Arm, target: float | None) -> ArmConvergence:
    settled = arm.with_state(*SETTLED_STATES)
    # A diverged run has not reached the target, whatever is missing of its curves.
    runs = [run for run in settled if run.complete or run.record.state == "diverged"]
    steps = [] if target is None else [steps_to_target(run, target) for run in runs]
    seconds: list[float] = []
    times = [time for run in runs if (time := run.record.train_seconds)]
    if steps and len(times) == len(runs) and are_speeds_comparable(runs):
        seconds = [
            step * time / max(run.record.step, 1)
            for run, step, time in zip(runs, steps, times, strict=True)
        ]
    counts = [count_spikes(training_losses(run)) for run in runs]
    known = [count for count in counts if count is not None]
    spikes = sum(known) if counts and len(known) == len(counts) else None
    return ArmConvergence(arm, len(runs), tuple(steps), tuple(seconds), spikes)


def steps_to_target(run: Run, target: float) -> float:
    """The step of the first validation loss at or below `target`; infinite without one.

    A run that diverged has not reached it, however low it once was: what it reached is lost.
    """
    series = run.events.scalars.get(tags.VALIDATION_LOSS)
    if series is None or run.record.state == "diverged":
        return math.inf
    below = np.flatnonzero(series.values <= target)
    return float(series.steps[below[0]]) if below.size else math.inf


def training_losses(run: Run) -> NDArray[np.float64]:
    """Of every step, shape (steps,); empty where a step is missing."""
    series = run.events.scalars.get(tags.TRAIN_LOSS)
    if series is None or not len(series) or (np.diff(series.steps) != 1).any():
        return np.empty(0)
    return series.values


def count_spikes(losses: NDArray[np.float64]) -> int | None:
    """Loss spikes among the losses of all steps, shape (steps,); None for a run that is too short.

    A loss that is not finite is a spike too.
    """
    if len(losses) < SPIKE_FEWEST_STEPS:
        return None
    finite = np.where(np.isfinite(losses), losses, np.nan)  # infinities too are left out of medians
    # (steps − window, window): the losses before each step, without the step itself.
    before = np.lib.stride_tricks.sliding_window_view(finite[:-1], SPIKE_WINDOW)
    median = np.nanmedian(before, axis=1)
    deviation = np.nanmedian(np.abs(before - median[:, None]), axis=1)
    current = losses[SPIKE_WINDOW:]
    with np.errstate(invalid="ignore"):
        is_spike = current - median > SPIKE_SIGMAS * _MAD_TO_SIGMA * deviation
    is_spike |= ~np.isfinite(current)
    begins = is_spike & ~np.concatenate([[False], is_spike[:-1]])
    return int(begins.sum())


def log_rank_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p of the test that two arms need equally many steps.

    Infinite steps are censored at the end.

    The log-rank statistic, observed less expected events of an arm, is the sum of a score of each
    of its runs: 1 for an event, less the hazard (Nelson and Aalen) of all runs summed up to then.
    NaN without runs on both sides.
    """
    if not a or not b:
        return math.nan
    scores = _log_rank_scores(a, b)  # (runs of both arms,)
    # Three seeds wholly before three others: the chi-squared p is 0.025, the exact one 2/20 = 0.1.
    if math.comb(len(scores), len(a)) <= _MOST_DIVISIONS:
        divisions = np.array(list(combinations(range(len(scores)), len(a))))
    else:
        random = np.random.default_rng(0)
        random_divisions = [
            random.permutation(len(scores))[: len(a)] for _ in range(_MOST_DIVISIONS - 1)
        ]
        # The one at hand is one of them, so that p is never 0.
        divisions = np.array([np.arange(len(a)), *random_divisions])
    sums = np.abs(scores[divisions].sum(axis=1))
    # Equal sums differ in their last digits, by the order of their terms.
    return float(np.mean(sums >= sums[0] - 1e-9))


def _log_rank_scores(a: Sequence[float], b: Sequence[float]) -> NDArray[np.float64]:
    steps = np.array([*a, *b])
    hazard = np.zeros(len(steps))
    for event in np.unique(steps[np.isfinite(steps)]):
        hazard[steps >= event] += np.sum(steps == event) / np.sum(steps >= event)
    scores: NDArray[np.float64] = np.isfinite(steps) - hazard
    return scores


def _is_earlier(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether a has more events than the log-rank test expects of it; medians may say otherwise."""
    return float(_log_rank_scores(a, b)[: len(a)].sum()) > 0


def describe_convergence(convergence: Convergence) -> Iterator[str]:
    """Sentences: which arm reached the target when, which is earlier, where losses spiked."""
    target = convergence.target
    ran = [row for row in convergence.arms if row.steps]
    if target is not None and ran:
        name = f"{target:.4f} nats per token"
        if convergence.is_default:
            name += f", {ABOVE_FLOOR:g} above the floor"
        floors = data_floors([row.arm for row in ran])
        if floors and target < floors[0]:  # the lowest: another may be of other data
            yield f"The target of {name} is below the floor, {floors[0]:.4f}: no model reaches it."
        elif not any(row.reached for row in ran):
            yield f"No run reached the target of {name}."
        else:
            yield f"Steps to {name}, the median over seeds: {join_first(_name_steps(ran))}."
            yield from _compare_steps(convergence)
    spiked = [row for row in convergence.arms if row.spikes]
    if spiked:
        words = [
            f"{row.arm.label} {row.spikes} in {row.runs} run{'s'[: row.runs - 1]}"
            for row in sorted(spiked, key=lambda row: -(row.spikes or 0))
        ]
        yield (
            f"Loss spikes, more than {SPIKE_SIGMAS:g} robust standard deviations above the "
            f"{SPIKE_WINDOW} steps before: {join_first(words)}."
        )


def _name_steps(rows: Sequence[ArmConvergence]) -> Iterator[str]:
    for row in sorted(rows, key=lambda row: (row.median_steps, -row.reached)):
        share = f"{row.reached} of {len(row.steps)} runs"
        median = f"{row.median_steps:.0f}" if math.isfinite(row.median_steps) else "not reached"
        yield f"{row.arm.label} {median}" + (f" ({share})" if row.reached < len(row.steps) else "")


def _compare_steps(convergence: Convergence) -> Iterator[str]:
    """The earliest arm of each facet against the others, of the arms whose losses are compared.

    Bonferroni over all pairs and facets, for any pair might be that of the earliest. An arm that
    mostly diverged stays: its runs did not reach the target.
    """
    groups = [
        (facet, rows)
        for facet in convergence.facets
        for rows in _comparable_rows(convergence, facet)
        if len(rows) > 1
    ]
    for facet, rows in groups:
        first, *others = sorted(rows, key=lambda row: (row.median_steps, -row.reached))
        tests = len(groups) * math.comb(len(rows), 2)
        adjusted = [(row, tests * log_rank_p(first.steps, row.steps)) for row in others]
        different = [(row, p) for row, p in adjusted if p < LEVEL]
        at = f"At {facet.title}, " if facet.title else ""
        later = [
            f"{row.arm.name} (p {format_probability(p)})"
            for row, p in different
            if _is_earlier(first.steps, row.steps)
        ]
        if later:
            yield (
                f"{at}{first.arm.name} reaches it in fewer steps than {join_first(later)}, by the "
                f"log-rank test."
            )
        for row, p in different:
            # Of equal medians, also of two that were not reached, the test alone says which.
            if row.median_steps == first.median_steps and _is_earlier(row.steps, first.steps):
                yield (
                    f"{at}{row.arm.name} reaches it in fewer steps than {first.arm.name} "
                    f"(p {format_probability(p)}), by the log-rank test."
                )


def _comparable_rows(convergence: Convergence, facet: Facet) -> Iterable[list[ArmConvergence]]:
    """The facet's arms with steps to the target, apart by what they learned."""
    row_of = {row.arm.label: row for row in convergence.arms}
    by_data: dict[str, list[ArmConvergence]] = defaultdict(list)
    for arm in facet.arms:
        row = row_of[arm.label]
        if row.steps and not (is_invalid(arm) or is_below_floor(arm)):
            by_data[learned_data(arm)].append(row)
    return by_data.values()
