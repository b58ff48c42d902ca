"""The study in numbers: a summary of every arm, and whether its speeds can be compared.

For that see `archive.steadiness`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from normlab.analysis.arms import Arm
from normlab.analysis.curves import data_floors
from normlab.analysis.statistics import mean_interval
from normlab.archive import tags
from normlab.archive.steadiness import PARTS, coefficient_of_variation, is_steady
from normlab.archive.study import Run

SPEED_NOTE = (
    "Speeds are compared where they vary by less than 10 % (coefficient of variation) over ten "
    "equal parts of a run."
)


def speeds_of_parts(run: Run) -> list[float]:
    """Training speed in each of `PARTS` equal parts of the run's steps, relative to each other.

    Empty where the events hold fewer measurements than parts.
    """
    series = run.events.scalars.get(tags.TOKENS_PER_SECOND)
    if series is None or len(series) < PARTS or not (series.values > 0).all():
        return []
    steps = np.diff(series.steps, prepend=-1)  # of which each measurement is the mean
    done = np.concatenate([[0.0], np.cumsum(steps)])
    seconds = np.concatenate([[0.0], np.cumsum(steps / series.values)])
    # The times at the ends of the parts, which may lie between two measurements.
    borders = np.interp(np.linspace(0, done[-1], PARTS + 1), done, seconds)
    return [float(speed) for speed in done[-1] / PARTS / np.diff(borders)]


def are_speeds_comparable(runs: Sequence[Run]) -> bool:
    """Whether the speeds of these runs are steady: each alone, and all together."""
    parts = [speeds_of_parts(run) for run in runs if run.record.tokens_per_second is not None]
    speeds = [speed for of_run in parts for speed in of_run]
    return bool(parts) and all(
        is_steady(coefficient_of_variation(values)) for values in (*parts, speeds)
    )


@dataclass(frozen=True)
class ArmSummary:
    """One arm over its seeds. Losses in nats per token, means over the finished runs.

    Attributes:
        best_val, final_val: mean and half width of its 95 % t-interval; NaN where unknown.
        tokens_per_second: mean over all runs that measured it, or NaN.
        speed_comparable: whether that may be compared with other arms.
        parameters: of one run of the arm.
        floor: the best loss any model can reach, where it is known.
        gap: mean best validation loss over the floor, or NaN.
    """

    arm: Arm
    best_val: tuple[float, float]
    final_val: tuple[float, float]
    tokens_per_second: float
    speed_comparable: bool
    parameters: int | None
    floor: float | None
    gap: float


def summarise_arms(arms: Sequence[Arm]) -> list[ArmSummary]:
    """One summary an arm: lowest mean best validation loss first, arms without one last."""
    summaries = [_summarise_arm(arm) for arm in arms]
    return sorted(
        summaries, key=lambda summary: (math.isnan(summary.best_val[0]), summary.best_val[0])
    )


def _summarise_arm(arm: Arm) -> ArmSummary:
    parameters = [run.record.parameters for run in arm.runs]
    speeds = [speed for run in arm.runs if (speed := run.record.tokens_per_second) is not None]
    best = mean_interval(arm.best_losses)
    floor = next(iter(data_floors([arm])), None)
    return ArmSummary(
        arm=arm,
        best_val=best,
        final_val=mean_interval(arm.final_losses),
        tokens_per_second=mean_interval(speeds)[0],
        speed_comparable=are_speeds_comparable(arm.runs),
        parameters=next((count for count in parameters if count is not None), None),
        floor=floor,
        gap=math.nan if floor is None else best[0] - floor,
    )
