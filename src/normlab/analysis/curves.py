"""What the panels draw, as numbers: curves over seeds, limits, and how runs ended."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from normlab.analysis.arms import Arm
from normlab.analysis.formatting import format_steps
from normlab.analysis.statistics import running_mean, smoothing_window
from normlab.archive import tags
from normlab.archive.events import Series
from normlab.archive.record import SETTLED_STATES
from normlab.archive.study import Run

# How many times the later range of a loss its first fall may take before it is cut.
MOST_FALL = 2.5

_UNFINISHED = ("running", "interrupted")

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A loss over optimizer steps, over the seeds of an arm; all arrays have shape (n,).

    Attributes:
        steps: the steps that all runs have.
        mean, low, high: mean, lowest and highest over the runs, smoothed if that was asked for.
        raw: the mean, not smoothed.
        runs: how many runs are in it.
    """

    steps: NDArray[np.int64]
    mean: _Floats
    low: _Floats
    high: _Floats
    raw: _Floats
    runs: int


def mean_curve(runs: Sequence[Run], tag: str, *, smooth: bool = False) -> Curve | None:
    """The curve over these runs' finite values; None where no run has any."""
    series = [finite for run in runs if (finite := finite_series(run, tag))]
    if not series:
        return None
    # Only the steps that all seeds have: a mean over fewer would jump where one ends.
    steps = reduce(np.intersect1d, [of_run.steps for of_run in series])
    if not steps.size:
        return None
    # (runs, steps)
    raw = np.stack([of_run.values[np.isin(of_run.steps, steps)] for of_run in series])
    window = smoothing_window(len(steps)) if smooth else 1
    smoothed = np.stack([running_mean(values, window) for values in raw])
    # The last windows are small and therefore noisy; only a divergence is worth seeing there.
    steady = all(run.record.state != "diverged" for run in runs)
    end = len(steps) - window // 2 if steady else len(steps)
    smoothed, raw, steps = smoothed[:, :end], raw[:, :end], steps[:end]
    return Curve(
        steps, smoothed.mean(0), smoothed.min(0), smoothed.max(0), raw.mean(0), runs=len(series)
    )


def is_smoothed(runs: Sequence[Run], tag: str) -> bool:
    """Whether the running mean of some run's curve is over more than a point."""
    return any(
        smoothing_window(len(series)) > 1 for run in runs if (series := finite_series(run, tag))
    )


def piecewise_curve(
    run: Run, tag: str, *, smooth: bool
) -> tuple[list[tuple[NDArray[np.int64], _Floats]], list[tuple[int, float]]]:
    """The run's finite values, broken where steps are missing.

    Returns:
        Steps and values of each piece, arrays of one shape (n,), where `smooth` with a running mean
        that reaches across no hole; step and value of the points beside which steps are missing.
    """
    series = finite_series(run, tag)
    if not series:
        return [], []
    window = smoothing_window(len(series)) if smooth else 1
    interval = _step_interval(run, tag)
    holes = np.empty(0, np.int64)  # the points before which steps are missing, as indices
    if not run.complete and interval is not None:
        holes = np.flatnonzero(np.diff(series.steps) > interval) + 1
    pieces = [
        (steps, running_mean(values, window))
        for steps, values in zip(
            np.split(series.steps, holes), np.split(series.values, holes), strict=True
        )
    ]
    if run.record.state != "diverged":  # as in `mean_curve`
        steps, values = pieces[-1]
        end = max(1, len(steps) - window // 2)
        pieces[-1] = steps[:end], values[:end]
    ends = pieces if _lacks_its_end(run, tag, series) else pieces[:-1]
    marks = [(int(steps[-1]), float(values[-1])) for steps, values in ends]
    if not run.complete and series.steps[0] > 0:  # what is missing is the beginning
        marks.insert(0, (int(series.steps[0]), float(series.values[0])))
    return pieces, marks


def _step_interval(run: Run, tag: str) -> int | None:
    """Optimizer steps from one point to the next; None where the record does not tell."""
    if tag == tags.TRAIN_LOSS:
        return 1
    trainer = run.record.config.get("trainer")
    interval = trainer.get("val_every") if isinstance(trainer, dict) else None
    return interval if isinstance(interval, int) else None


def _lacks_its_end(run: Run, tag: str, series: Series) -> bool:
    record, last = run.record, int(series.steps[-1])
    if run.complete or record.state in _UNFINISHED:
        return ends_early(run)
    end = record.end_step
    if tag == tags.VALIDATION_LOSS and record.state == "finished":
        return last < end  # the last weights are always validated
    interval = _step_interval(run, tag)
    return interval is None or last + interval < end


def finite_series(run: Run, tag: str) -> Series | None:
    """The run's series up to its first value that is not finite; None where that is nothing.

    A loss ends at the step at which the run diverged.
    """
    series = run.events.scalars.get(tag)
    if series and run.record.state == "diverged" and tag in (tags.TRAIN_LOSS, tags.VALIDATION_LOSS):
        # Losses are read in groups, so some steps have followed before the divergence was seen.
        end = int(np.searchsorted(series.steps, run.record.end_step, side="right"))
        series = Series(series.steps[:end], series.values[:end])
    return (series and series.until_divergence()) or None  # an empty Series is false


def averaged_runs(arm: Arm) -> list[Run]:
    """The runs whose mean stands for the arm: the finished ones, or else the unfinished ones.

    A curve that is not whole is in no mean: what is lost of it may be its worst part.
    """
    finished, unfinished = arm.with_state("finished"), arm.with_state(*_UNFINISHED)
    return [run for run in finished if run.complete] or [run for run in unfinished if run.complete]


def ends_early(run: Run) -> bool:
    """Whether the run's curves do not show the whole run, so that their end means nothing."""
    return not run.complete or run.record.state in _UNFINISHED


def single_runs(arm: Arm) -> list[Run]:
    """The runs drawn one by one: a mean over seeds that ended early is a mean of nothing."""
    in_the_mean = averaged_runs(arm)
    return [run for run in arm.runs if run not in in_the_mean]


def data_floors(arms: Iterable[Arm]) -> list[float]:
    """The distinct floors of the arms' data, in nats per token, where they are known."""
    records = [run.record for arm in arms for run in arm.runs]
    return sorted({record.floor for record in records if record.floor is not None})


def loss_limits(arms: Sequence[Arm]) -> tuple[float, float]:
    """Limits of the loss axis, in nats per token, for every panel of a figure.

    From below the floor to above the highest smoothed loss of the runs that did not diverge; a loss
    at initialization more than twice the usual one does not count, nor what rises beyond that, for
    it would press the others flat. Nor does the fall in the first tenth of the runs where it is
    more than MOST_FALL times the later range. The panels say what they cut.
    """
    series_of_runs = [
        (run, series)
        for arm in arms
        for run in arm.runs
        for tag in (tags.TRAIN_LOSS, tags.VALIDATION_LOSS)
        if (series := finite_series(run, tag))
    ]
    if not series_of_runs:
        return 0.0, 1.0
    smoothed = [
        running_mean(losses.values, smoothing_window(len(losses))) for _, losses in series_of_runs
    ]
    floors = data_floors(arms)
    lowest = min([float(values.min()) for values in smoothed] + floors)
    # Two values a run, its first training and its first validation loss.
    initial = np.array([series.values[0] for _, series in series_of_runs])
    most = 2 * np.median(initial)
    first = float(initial[initial <= most].max())
    last = max(int(series.steps[-1]) for _, series in series_of_runs)
    # The floor is shown also where losses lie below it, as those of a model that leaks.
    peaks, later_peaks = [first, *floors], [lowest, *floors]
    for (run, series), values in zip(series_of_runs, smoothed, strict=True):
        later = values[np.searchsorted(series.steps, last / 10) :]
        if run.record.state == "diverged":
            later_peaks += later[:1].tolist()
            continue
        peaks += values[values <= most].tolist()
        later_peaks += later[later <= most].tolist()
    top = max(peaks)
    if top - lowest > MOST_FALL * (max(later_peaks) - lowest) > 0:
        top = max(later_peaks)
    span = max(top - lowest, 1e-3)
    return lowest - 0.12 * span, top + 0.06 * span


def describe_ending(arm: Arm) -> str:
    """How the arm's runs ended, where not all finished: `2 of 3 diverged, at steps 120–180`."""
    total = len(arm.runs)
    runs_by_ending: dict[str, list[Run]] = {}
    if diverged := arm.with_state("diverged"):
        when = format_steps(run.record.end_step for run in diverged)
        runs_by_ending[f"diverged at {when}"] = diverged
    for state in ("failed", "interrupted"):
        runs_by_ending[state] = arm.with_state(state)
    runs_by_ending["still running"] = arm.with_state("running")
    incomplete = [run for run in arm.with_state(*SETTLED_STATES) if not run.complete]
    runs_by_ending[f"curve{'s' * (total > 1)} incomplete"] = incomplete
    parts = []
    for ending, runs in runs_by_ending.items():
        if runs:
            count = "all" if len(runs) == total else f"{len(runs)} of {total}"
            parts.append(ending if total == 1 else f"{count} {ending}")
    return "; ".join(parts)


def name_with_ending(name: str, arm: Arm) -> str:
    """The name, and how the arm's runs ended where not all finished."""
    outcome = describe_ending(arm)
    return f"{name} ({outcome})" if outcome else name


def last_finite_loss(run: Run) -> tuple[int, float] | None:
    """The last step with a finite training loss, and that loss; None where it is not known."""
    series = finite_series(run, tags.TRAIN_LOSS)
    if run.record.state != "diverged" or not run.complete or series is None:
        return None
    return int(series.steps[-1]), float(series.values[-1])
