"""Predict, then run: a guess is stored, the study runs, and the guess is scored.

A guess about a difference holds if it lies in the 95 % interval that the analysis computes for all
arms together, or, where that interval leaves out 0, if it has the right sign. The guess is stored
before the study runs, and the last guess before the first result counts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from normlab.analysis.arms import Arm
from normlab.analysis.comparison import losses_by_seed
from normlab.analysis.family import family_differences
from normlab.analysis.result import StudyResult, analyse_study
from normlab.analysis.statistics import LEVEL
from normlab.apps.learn.content import Prediction
from normlab.apps.learn.progress import PredictionProgress, Progress, update_progress
from normlab.apps.learn.quiz import parse_number
from normlab.apps.study_process import run_study_command
from normlab.archive.record import short_number
from normlab.archive.study import read_study
from normlab.errors import ConfigError, NormlabError

OUTPUT_FOLDER = Path("outputs")


@dataclass(frozen=True)
class Score:
    """Whether a guess is right, and why, in words."""

    right: bool
    reason: str


@dataclass(frozen=True)
class Measurement:
    """What the study says about the number that was guessed.

    Attributes:
        value: the number.
        low, high: its 95 % interval; NaN where the seeds are too few for one.
        score_guess: judges a guess.
        sentence: the number in words.
    """

    value: float
    low: float
    high: float
    score_guess: Callable[[float], Score]
    sentence: str


def study_name(prediction: Prediction) -> str:
    """The study of a prediction, `learn-<id>`."""
    return f"learn-{prediction.id}"


def study_arguments(prediction: Prediction) -> list[str]:
    """What `train.py` is given."""
    return ["-m", *prediction.command, f"study={study_name(prediction)}"]


def parse_guess(prediction: Prediction, text: str) -> float:
    """The number that was guessed.

    Raises:
        ConfigError: it is not a number, or not in the prediction's range.
    """
    guess = parse_number(text, "give a guess such as 0.3, -0.05 or 1e-3.")
    if prediction.range and not prediction.range[0] <= guess <= prediction.range[1]:
        low, high = prediction.range
        raise ConfigError(
            f"the guess, {guess:g}, is not allowed; give a number from {low:g} to {high:g}."
        )
    return guess


def store_guess(prediction: Prediction, guess: float) -> bool:
    """Store a guess; False where an earlier guess counts already."""
    is_first = True

    def change(progress: Progress) -> None:
        nonlocal is_first
        entry = progress.predictions.get(prediction.id)
        # A guess after the result is known predicts nothing.
        is_first = entry is None or entry.measured is None
        if is_first:
            progress.predictions[prediction.id] = PredictionProgress(guess)

    update_progress(change)
    return is_first


def store_measurement(
    prediction: Prediction, measurement: Measurement, guess: float
) -> PredictionProgress:
    """Score the stored guess by the measurement, and return what is stored then.

    `guess` is stored where there is none, because the progress was reset while the study ran.
    """

    def change(progress: Progress) -> None:
        entry = progress.predictions.setdefault(prediction.id, PredictionProgress(guess))
        entry.measured = measurement.value
        # The file holds finite numbers only; one seed has no interval.
        entry.low, entry.high = (
            value if math.isfinite(value) else None for value in (measurement.low, measurement.high)
        )
        entry.right = measurement.score_guess(entry.guess).right

    return update_progress(change).predictions[prediction.id]


def run_prediction(prediction: Prediction) -> Measurement:
    """Run the prediction's study, or continue it, and measure its number.

    Raises:
        NormlabError: the study has not ended, or does not have the arms or the number.
    """
    # A run that has its result is skipped, so a study that was stopped goes on where it was.
    code = run_study_command(study_arguments(prediction))
    if code != 0:
        raise NormlabError(
            f"the study of {prediction.id} did not end (code {code}); your guess is stored, and "
            f"`normlab-learn predict {prediction.id}` continues."
        )
    result = analyse_study(read_study(OUTPUT_FOLDER / study_name(prediction)))
    return measure_study(prediction, result)


def measure_study(prediction: Prediction, result: StudyResult) -> Measurement:
    """The number of the prediction's `measure`, from a study's result.

    - `final_loss_difference`: final validation loss of the first arm minus the second, nats.
    - `best_rate`: the learning rate with the lowest loss, of the first arm.
    - `diverged_count`: how many runs diverged, of the arms that are named, or of all.

    Raises:
        NormlabError: the study does not have the arms or the number.
    """
    measure = {
        "final_loss_difference": _measure_difference,
        "best_rate": _measure_best_rate,
        "diverged_count": _measure_diverged,
    }[prediction.measure]
    return measure(prediction, result)


def find_arm(name: str, arms: Sequence[Arm]) -> int:
    """The index of the arm that has all words of a name: `rmsnorm · pre`, `norm=none`, `lr=3e-3`.

    Raises:
        NormlabError: none has, or several have.
    """
    words = _split_words(name)
    matches = [index for index, arm in enumerate(arms) if _arm_has(arm, words)]
    if len(matches) != 1:
        raise NormlabError(
            f"{len(matches)} arms of the study are {name}; its arms are "
            f"{', '.join(arm.label for arm in arms)}."
        )
    return matches[0]


def _split_words(name: str) -> list[str]:
    return name.replace("·", " ").replace(",", " ").split()


def _arm_has(arm: Arm, words: Sequence[str]) -> bool:
    named = {arm.norm, arm.placement, f"norm={arm.norm}", f"placement={arm.placement}"}
    for key, value in arm.settings:
        # Both as it is stored and as tables show it: lr=0.001 and lr=1e-3.
        short = short_number(value) if isinstance(value, float) else value
        named |= {f"{key}={value}", f"{key}={short}"}
    # A key may be written as on the command line: optimizer.lr=3e-3.
    return all(word in named or _last_key(word) in named for word in words)


def _last_key(word: str) -> str:
    """`lr=0.003` for `optimizer.lr=0.003`."""
    key, equals, value = word.partition("=")
    return f"{key.rpartition('.')[2]}{equals}{value}"


def _measure_difference(prediction: Prediction, result: StudyResult) -> Measurement:
    rates, arms = result.rates, list(result.arms)
    if rates is not None:
        # As the report does: each arm at its best rate, on windows that did not choose that rate.
        arms = [rated.best.arm for rated in rates.arms if rated.best]
    compared = "val_loss" if rates is None else rates.compared_loss
    pair = (find_arm(prediction.arms[0], arms), find_arm(prediction.arms[1], arms))
    losses = [losses_by_seed(arm, compared) for arm in arms]
    for index in pair:
        if not losses[index]:
            raise NormlabError(
                f"no run of {arms[index].label} has finished, so there is no loss to compare."
            )
    # Only arms with a loss are a family; their order stays.
    present = [index for index, values in enumerate(losses) if values]
    a, b = (present.index(index) for index in pair)
    difference = family_differences([losses[index] for index in present], [(a, b)])[a, b]
    low, high = difference.mean - difference.half, difference.mean + difference.half

    def score_guess(guess: float) -> Score:
        # A guess of 0 has no sign: it is right inside the interval only.
        has_sign = guess * difference.mean > 0
        if math.isnan(difference.half):
            word = "the sign is right" if has_sign else "the sign is not right"
            return Score(has_sign, f"{word}, and one seed gives no interval")
        if low <= guess <= high:
            reason = "it lies in the interval"
            if low <= 0 <= high:
                reason += ", which contains 0: which of the two is lower is not known"
            return Score(True, reason)
        if difference.p >= LEVEL:
            return Score(False, "it lies outside the interval, which contains 0")
        if has_sign:
            reason = (
                "the guess has the right sign and the interval leaves out 0; the guess itself lies "
                "outside the interval"
            )
        else:
            reason = "it lies outside the interval, and its sign is not right"
        return Score(has_sign, reason)

    names = " minus ".join(arms[index].label for index in pair)
    interval = (
        "one seed gives no interval"
        if math.isnan(difference.half)
        else f"95 % interval {low:+.4f} to {high:+.4f}"
    )
    return Measurement(
        difference.mean,
        low,
        high,
        score_guess,
        f"{names}: {difference.mean:+.4f} nats ({interval})",
    )


def _measure_best_rate(prediction: Prediction, result: StudyResult) -> Measurement:
    rates = result.rates
    if rates is None:
        raise NormlabError(
            f"the study of {prediction.id} has fewer than three learning rates, so none is best."
        )
    arms = [rated.arm for rated in rates.arms]
    index = find_arm(prediction.arms[0], arms) if prediction.arms else 0
    rated = rates.arms[index]
    best = rated.best_rate
    if best is None:
        raise NormlabError(f"no run of {rated.name} has finished, so no rate is best.")
    # A guess between two rates of the grid is of the nearer one, by their ratio.
    low, high = _grid_cell(best, rated.grid)
    grid = ", ".join(map(short_number, rated.grid))
    return Measurement(
        best,
        low,
        high,
        lambda guess: _score_equal(low <= guess <= high, short_number(best)),
        f"best learning rate of {rated.name}: {short_number(best)} of {grid}; a guess from "
        f"{low:.2g} to {high:.2g} counts as this rate",
    )


def _grid_cell(rate: float, grid: Sequence[float]) -> tuple[float, float]:
    """From where to where a rate is the nearest of the grid, by ratio."""
    # At an end of the grid the missing neighbour is as far off, by ratio, as the other one.
    index = list(grid).index(rate)
    below = grid[index - 1] if index > 0 else rate * rate / grid[index + 1]
    above = grid[index + 1] if index + 1 < len(grid) else rate * rate / grid[index - 1]
    return math.sqrt(rate * below), math.sqrt(rate * above)


def _measure_diverged(prediction: Prediction, result: StudyResult) -> Measurement:
    arms = list(result.arms)
    if prediction.arms:
        named = [_split_words(name) for name in prediction.arms]
        arms = [arm for arm in arms if any(_arm_has(arm, words) for words in named)]
    runs = [run for arm in arms for run in arm.runs]
    if not runs:
        raise NormlabError(
            f"no arm of the study is {' or '.join(prediction.arms)}; its arms are "
            f"{', '.join(arm.label for arm in result.arms)}."
        )
    count = sum(run.record.state == "diverged" for run in runs)
    return Measurement(
        float(count),
        float(count),
        float(count),
        lambda guess: _score_equal(guess == count, str(count)),
        f"{count} of {len(runs)} runs diverged",
    )


def _score_equal(right: bool, value: str) -> Score:
    return Score(right, f"it is {value}" if right else f"it is {value}, not your guess")
