"""Arms compared: in each facet the arm with the lowest mean loss against every other.

The statistics are those of `normlab.analysis.family`: every pair of arms counts, because the same
losses decide which arm is the lowest.
"""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from normlab.analysis.arms import Arm, Facet
from normlab.analysis.family import family_differences
from normlab.analysis.statistics import LEVEL, Difference, Outcome, mean_or_infinity
from normlab.archive.record import SETTLED_STATES
from normlab.archive.study import Run

# The floor is that of the very windows that are validated; this is far beyond rounding.
FLOOR_TOLERANCE = 0.01  # nats per token

# Nats per token below the unigram loss within which a model has learned little more than that.
LITTLE_LEARNED = 0.02

# Over all validation windows, or over one half of them; as `FinalNumbers` has them.
FinalLoss = Literal["val_loss", "selection_loss", "test_loss"]


@dataclass(frozen=True)
class Comparison:
    """Two arms of one facet, by their final validation losses in nats per token.

    Attributes:
        facet: the settings that both share; empty where nothing but norm and placement varies.
        best: the arm with the lowest mean of the facet.
        other: another arm of the facet.
        difference: best − other, with an interval and a p that hold for all pairs of the study.
        margin: up to which difference the arms count as the same; None where that was not said.
        loss: which final loss is compared.
    """

    facet: str
    best: Arm
    other: Arm
    difference: Difference
    margin: float | None
    loss: FinalLoss

    @property
    def outcome(self) -> Outcome:
        """Whether the best arm ends lower; `higher` is possible where not all seeds are equal."""
        return self.difference.outcome_within(self.margin)


def compare_arms(
    facets: Sequence[Facet], margin: float | None = None, loss: FinalLoss = "val_loss"
) -> list[Comparison]:
    """Every facet's best arm against its others: the facets in their order, the lowest arm first.

    Arms are compared that have a finished run, of whose finished and diverged runs fewer than half
    diverged, of which none is below the floor or INVALID, and that learned the same data. The level
    is shared out over the facets.
    """
    groups = [
        (facet, arms) for facet in facets for arms in comparable_arms(facet, loss) if len(arms) > 1
    ]
    comparisons = []
    for facet, (best, *others) in groups:
        losses = [losses_by_seed(arm, loss) for arm in (best, *others)]
        # The best arm is the first; the intervals hold for the pairs of the others as well.
        pairs = [(0, index) for index in range(1, len(losses))]
        differences = family_differences(losses, pairs, LEVEL / len(groups))
        comparisons += [
            Comparison(facet.title, best, other, difference, margin, loss)
            for other, difference in zip(others, differences.values(), strict=True)
        ]
    return comparisons


def comparable_arms(facet: Facet, loss: FinalLoss) -> list[list[Arm]]:
    """The facet's arms that can be compared, lowest mean first, apart by what they learned."""
    by_data: dict[str, list[Arm]] = defaultdict(list)
    for arm in facet.arms:
        excluded = mostly_diverged(arm) or is_below_floor(arm) or is_invalid(arm)
        if losses_by_seed(arm, loss) and not (excluded or learned_several(arm)):
            by_data[learned_data(arm)].append(arm)

    def mean(arm: Arm) -> float:
        return mean_or_infinity(losses_by_seed(arm, loss).values())

    return [sorted(arms, key=mean) for arms in by_data.values()]


def losses_by_seed(arm: Arm, loss: FinalLoss = "val_loss") -> dict[int, float]:
    """Final validation loss of the arm's finished runs by seed, in nats per token."""
    losses: dict[int, list[float]] = defaultdict(list)
    for run in arm.with_state("finished"):
        value = getattr(run.record.final, loss)
        if value is not None:
            losses[run.record.seed].append(value)
    # Runs of one seed that differ in a logger or a folder are one measurement, not two seeds.
    return {seed: math.fsum(values) / len(values) for seed, values in losses.items()}


def mostly_diverged(arm: Arm) -> bool:
    """Whether of the runs that finished or diverged half or more diverged.

    The survivors then do not stand for the arm.
    """
    diverged, settled = arm.with_state("diverged"), arm.with_state(*SETTLED_STATES)
    return 2 * len(diverged) >= max(1, len(settled))  # an arm without results has not diverged


def is_unlearned(run: Run) -> bool:
    """Whether it finished near the unigram loss, or above it; false where that is not known."""
    record = run.record
    unigram, loss = record.unigram, record.final.val_loss
    if record.state != "finished" or unigram is None or loss is None:
        return False
    return loss > unigram - LITTLE_LEARNED


def is_below_floor(arm: Arm) -> bool:
    """Whether a run ended clearly below the lowest loss that is possible on its data."""
    return any(
        run.record.floor is not None
        and run.record.final.val_loss is not None
        and run.record.final.val_loss < run.record.floor - FLOOR_TOLERANCE
        for run in arm.with_state("finished")
    )


def is_invalid(arm: Arm) -> bool:
    """Whether it was trained without the check for leaks (`allow_leak=true`)."""
    return any(run.record.config.get("allow_leak") for run in arm.runs)


def learned_data(arm: Arm) -> str:
    """What the arm's runs learned: only where it is equal do losses compare."""
    descriptions = set()
    # A run that was stopped before it opened its data says nothing of them.
    opened = [
        run
        for run in arm.runs
        if run.record.data_digest is not None or run.record.state in SETTLED_STATES
    ]
    for run in opened or arm.runs:
        data = run.record.config.get("data")
        # Where a text lies does not matter; the digest tells whether it is the same.
        options = {**data, "path": None} if isinstance(data, dict) else {}
        descriptions.add(json.dumps([run.record.data_digest, options], sort_keys=True, default=str))
    return "\n".join(sorted(descriptions))


def learned_several(arm: Arm) -> bool:
    """Whether the arm's own runs learned different data, as where a text was changed meanwhile."""
    return "\n" in learned_data(arm)  # JSON itself has no line break
