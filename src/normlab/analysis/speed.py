"""The speed of runs and arms, where it can be compared: see `archive.steadiness`.

`runs.csv` holds the speeds as they were measured.
"""

import math
from collections.abc import Sequence

import numpy as np

from normlab.analysis.arms import Arm
from normlab.analysis.cells import Cell, number
from normlab.archive import tags
from normlab.archive.steadiness import NOT_COMPARABLE, PARTS, coefficient_of_variation, is_steady
from normlab.archive.study import Run

NOTE = (
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
    borders = np.interp(np.linspace(0, done[-1], PARTS + 1), done, seconds)
    return [float(one) for one in done[-1] / PARTS / np.diff(borders)]


def comparable(runs: Sequence[Run]) -> bool:
    """Whether the speeds of these runs are steady: each alone, and all together."""
    parts = [speeds_of_parts(run) for run in runs if run.record.tokens_per_second is not None]
    every = [speed for of_run in parts for speed in of_run]
    return bool(parts) and all(
        is_steady(coefficient_of_variation(some)) for some in (*parts, every)
    )


def mean_speed(arm: Arm) -> float:
    """Mean tokens a second over the arm's runs, NaN where none was measured."""
    known = [one for run in arm.runs if (one := run.record.tokens_per_second) is not None]
    return math.fsum(known) / len(known) if known else math.nan


def speed_words(tokens_per_second: float, is_comparable: bool) -> str:
    """`45,000`, `not comparable`, or nothing where it is not known."""
    if math.isnan(tokens_per_second):
        return ""
    return f"{tokens_per_second:,.0f}" if is_comparable else NOT_COMPARABLE


def speed_cell(tokens_per_second: float | None, is_comparable: bool) -> Cell:
    """The same as a cell of a report."""
    if tokens_per_second is None or math.isnan(tokens_per_second) or is_comparable:
        return number(tokens_per_second, ",.0f")
    return Cell(NOT_COMPARABLE, math.nan)
