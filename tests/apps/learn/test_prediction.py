"""A guess is stored before the study runs, and scored against the interval of the analysis."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from command_calls import Call
from learning_rate_runs import runs_by_rate, study_of_arms
from normlab.analysis.result import analyse_study
from normlab.apps.learn import prediction as module
from normlab.apps.learn.completion import trains_without_norm
from normlab.apps.learn.content import Prediction, find_prediction, read_predictions
from normlab.apps.learn.prediction import measure_study, store_guess, study_arguments
from normlab.apps.learn.progress import read_progress, reset_progress
from normlab.archive.study import Run, Study
from normlab.errors import NormlabError
from tiny_run import TINY

DIFFERENCE = Prediction("d", 1, "?", (), "final_loss_difference", "why", ("none", "rmsnorm · pre"))
RATE = replace(DIFFERENCE, measure="best_rate", arms=("rmsnorm pre",))
COUNT = replace(DIFFERENCE, measure="diverged_count", arms=())


def two_arms(none: list[float | None], rmsnorm: list[float | None]) -> Study:
    return study_of_arms(
        runs_by_rate({1e-3: none}, norm="none", placement="any"),
        runs_by_rate({1e-3: rmsnorm}),
    )


def by_rate(losses: dict[float, list[float | None]]) -> list[Run]:
    return runs_by_rate(losses)


def test_a_difference_is_the_first_arm_minus_the_second_with_the_interval_of_the_analysis() -> None:
    result = analyse_study(two_arms([2.0, 2.1, 2.3], [1.5, 1.7, 1.8]))
    measured = measure_study(DIFFERENCE, result)
    assert measured.value == pytest.approx((0.5 + 0.4 + 0.5) / 3)
    (comparison,) = result.comparisons  # the best arm, rmsnorm, minus the other
    assert measured.value == pytest.approx(-comparison.difference.mean)
    assert measured.high - measured.low == pytest.approx(2 * comparison.difference.half)
    reverse = measure_study(replace(DIFFERENCE, arms=("rmsnorm", "none")), result)
    assert reverse.value == pytest.approx(-measured.value)


@pytest.mark.parametrize(
    ("guess", "right"), [(0.45, True), (5.0, True), (0.001, True), (-0.1, False), (0.0, False)]
)
def test_a_guess_holds_in_the_interval_or_with_the_sign_of_a_clear_difference(
    guess: float, right: bool
) -> None:
    measured = measure_study(DIFFERENCE, analyse_study(two_arms([2.0, 2.1, 2.3], [1.5, 1.7, 1.8])))
    assert measured.low > 0
    score = measured.score_guess(guess)
    assert score.right is right
    inside = measured.low <= guess <= measured.high
    assert score.reason.startswith(
        "it lies in" if inside else "the guess has the right sign" if right else "it lies outside"
    )


@pytest.mark.parametrize(("guess", "right"), [(0.05, True), (-0.3, True), (9.0, False)])
def test_without_a_clear_difference_only_the_interval_counts(guess: float, right: bool) -> None:
    measured = measure_study(DIFFERENCE, analyse_study(two_arms([1.9, 1.6, 2.0], [1.6, 1.8, 1.7])))
    assert measured.low < 0 < measured.high
    assert measured.score_guess(guess).right is right


def test_one_seed_has_no_interval_and_the_sign_decides() -> None:
    measured = measure_study(DIFFERENCE, analyse_study(two_arms([2.0], [1.5])))
    assert math.isnan(measured.low)
    assert "one seed gives no interval" in measured.sentence
    assert measured.score_guess(3.0).right
    assert not measured.score_guess(-0.5).right


def test_the_best_rate_is_right_where_the_guess_is_nearest_to_it() -> None:
    losses: dict[float, list[float | None]] = {1e-3: [2.0], 1e-2: [1.5], 1e-1: [None]}
    measured = measure_study(RATE, analyse_study(study_of_arms(by_rate(losses))))
    assert measured.value == 1e-2
    assert measured.score_guess(1e-2).right
    assert measured.score_guess(4e-3).right
    assert not measured.score_guess(3e-3).right
    assert not measured.score_guess(1e-1).right


def test_an_arm_is_named_by_the_key_of_the_command_line_too() -> None:
    losses: dict[float, list[float | None]] = {1e-3: [2.0], 1e-2: [1.5], 1e-1: [None]}
    arms = study_of_arms(by_rate(losses))
    result = analyse_study(arms)
    count = replace(COUNT, arms=("optimizer.lr=0.1",))
    assert measure_study(count, result).sentence == "1 of 1 runs diverged"
    count = replace(COUNT, arms=("optimizer.lr=1e-2", "lr=0.1"))
    assert measure_study(count, result).sentence == "1 of 2 runs diverged"


def test_diverged_runs_are_counted_over_the_arms_that_are_named() -> None:
    result = analyse_study(two_arms([None, None, 2.0], [1.5, None, 1.7]))
    assert measure_study(COUNT, result).value == 3
    assert measure_study(replace(COUNT, arms=("norm=none",)), result).value == 2
    assert not measure_study(COUNT, result).score_guess(2.9).right
    assert measure_study(COUNT, result).score_guess(3.0).right


@pytest.mark.parametrize(
    ("prediction", "word"),
    [
        (replace(DIFFERENCE, arms=("none", "layernorm")), "its arms are"),
        (replace(DIFFERENCE, arms=("none", "rmsnorm lr=3e-3")), "0 arms"),
        (replace(COUNT, arms=("dyt",)), "no arm of the study is dyt"),
        (RATE, "fewer than three learning rates"),
    ],
)
def test_what_the_study_does_not_have_is_a_sentence(prediction: Prediction, word: str) -> None:
    with pytest.raises(NormlabError, match=word):
        measure_study(prediction, analyse_study(two_arms([2.0, 2.1], [1.5, 1.6])))


def test_an_arm_without_a_finished_run_is_a_sentence() -> None:
    with pytest.raises(NormlabError, match="no run of none has finished"):
        measure_study(DIFFERENCE, analyse_study(two_arms([None, None], [1.5, 1.6])))


@pytest.mark.parametrize(
    ("command", "arms", "without"),
    [
        (("norm=none,rmsnorm",), (), True),
        (("norm=rmsnorm",), (), False),
        (("experiment=norm_comparison",), ("none", "rmsnorm"), True),
        (("norm=simple_none",), ("post", "pre"), False),
    ],
)
def test_a_prediction_is_about_no_norm_where_one_of_its_arms_has_none(
    command: tuple[str, ...], arms: tuple[str, ...], without: bool
) -> None:
    assert trains_without_norm(replace(DIFFERENCE, command=command, arms=arms)) is without


def test_the_study_of_a_prediction_has_its_name(learn_content: Path) -> None:
    first = read_predictions()[0]
    assert study_arguments(first) == [
        *("-m", "norm=none,rmsnorm", "seed=0,1", "study=learn-none-against-rmsnorm")
    ]


# --- The command --------------------------------------------------------------------------------


def test_ctrl_c_during_the_study_keeps_the_guess_and_says_what_comes_next(
    learn: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[float] = []

    def interrupted(arguments: list[str]) -> int:
        stored.append(read_progress().predictions["none-against-rmsnorm"].guess)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_study_command", interrupted)
    code, out, err = learn("predict", "none-against-rmsnorm", "--guess", "0.25")
    assert (code, err) == (130, "")
    assert out.endswith(
        "\nStopped, and nothing is lost: your guess, 0.25, is stored; `normlab-learn predict "
        "none-against-rmsnorm` asks for a guess and runs the rest of the study.\n"
    )
    assert stored == [0.25]
    assert read_progress().predictions["none-against-rmsnorm"].right is None


def test_ctrl_c_at_the_guess_says_that_none_is_stored(
    learn: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting:
        def readline(self) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Interrupting())
    code, out, err = learn("predict")
    assert (code, err) == (130, "")
    assert out.endswith(
        "your guess: \nStopped, and nothing is lost: no guess is stored yet; "
        "`normlab-learn predict none-against-rmsnorm` asks for a guess and runs the rest of the "
        "study.\n"
    )
    assert read_progress().predictions == {}


def test_a_study_that_does_not_end_keeps_the_guess(
    learn: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "run_study_command", lambda _: 2)
    code, _, err = learn("predict", "--guess", "0.25")
    assert code == 1
    assert "your guess is stored" in err
    assert read_progress().predictions["none-against-rmsnorm"].guess == 0.25


@pytest.mark.parametrize("guess", ["x", "nan", "inf", "1e999", "--1", " "])
def test_a_guess_that_is_no_number_is_refused_and_nothing_runs(
    guess: str, learn: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(module, "run_study_command")
    code, _, err = learn("predict", f"--guess={guess}")
    assert code == 2
    assert "is not a number" in err
    assert read_progress().predictions == {}


def test_a_typed_guess_is_asked_for_again_until_it_is_a_number(
    learn: Call, type_lines: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "run_study_command", lambda _: 1)
    type_lines("much\n0.5\n")
    _, out, _ = learn("predict")
    assert "much is not a number" in out
    assert "Your guess, 0.5, is stored" in out
    type_lines("")
    code, _, err = learn("predict")
    assert (code, "--guess X" in err) == (2, True)


def test_a_prediction_that_does_not_exist_is_a_sentence_with_the_nearest(learn: Call) -> None:
    code, _, err = learn("predict", "how-many-diverg", "--guess", "1")
    assert code == 2
    assert "did you mean how-many-diverge?" in err


def test_only_the_first_guess_counts(
    learn_content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prediction = find_prediction("how-many-diverge")
    assert store_guess(prediction, 1.0)
    assert store_guess(prediction, 2.0)  # there is no result yet
    measured = module.Measurement(2.0, 2.0, 2.0, lambda guess: module.Score(guess == 2, ""), "")
    assert module.store_measurement(prediction, measured, 2.0).right
    assert not store_guess(prediction, 5.0)
    assert read_progress().predictions["how-many-diverge"].guess == 2.0


def test_a_second_guess_is_answered_with_one_true_sentence(
    learn: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = module.Measurement(2.0, 2.0, 2.0, lambda guess: module.Score(True, "yes"), "m")
    monkeypatch.setattr(module, "run_prediction", lambda _: measured)
    assert "Your guess, 1, is stored" in learn("predict", "how-many-diverge", "--guess", "1")[1]
    out = learn("predict", "how-many-diverge", "--guess", "2")[1]
    assert "your guess from then counts, and the new one is not stored" in out
    assert "Runs that have ended are not trained again" in out
    assert "is stored" not in out
    assert "guess     1 is right: yes" in out


def test_a_reset_while_the_study_runs_loses_no_result(
    learn: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(prediction: Prediction) -> module.Measurement:
        reset_progress()
        return module.Measurement(2.0, 2.0, 2.0, lambda _: module.Score(True, "yes"), "the number")

    monkeypatch.setattr(module, "run_prediction", run)
    code, out, err = learn("predict", "how-many-diverge", "--guess", "1")
    assert (code, err) == (0, "")
    assert "measured  the number\nguess     1 is right: yes" in out
    stored = read_progress().predictions["how-many-diverge"]
    assert (stored.guess, stored.measured) == (1.0, 2.0)


@pytest.mark.parametrize("guess", ["17", "-1"])
def test_a_guess_outside_the_range_is_refused_with_the_range(
    guess: str, learn: Call, learn_content: Path, type_lines: Callable[[str], None]
) -> None:
    path = learn_content / "predictions.yaml"
    path.write_text(path.read_text().replace("arms: []", "arms: []\n  range: [0, 6]"))
    code, _, err = learn("predict", "how-many-diverge", f"--guess={guess}")
    assert code == 2
    assert f"the guess, {guess}, is not allowed; give a number from 0 to 6." in err
    type_lines(f"{guess}\n")
    assert "give a number from 0 to 6." in learn("predict", "how-many-diverge")[1]
    assert read_progress().predictions == {}


@pytest.mark.slow
def test_a_prediction_runs_its_study_and_is_scored(learn: Call, learn_content: Path) -> None:
    path = learn_content / "predictions.yaml"
    overrides = ", ".join(f'"{word}"' for word in TINY)
    path.write_text(
        path.read_text().replace('"norm=none,rmsnorm"', f'"norm=none,rmsnorm", {overrides}')
    )
    code, out, err = learn("predict", "none-against-rmsnorm", "--guess", "-50")
    assert code == 0, err
    assert "none minus rmsnorm" in out
    assert "95 % interval" in out
    assert "guess     -50 is not right: it lies outside the interval" in out
    assert out.rstrip().endswith("The explanation that comes afterwards.")
    entry = read_progress().predictions["none-against-rmsnorm"]
    assert entry.measured is not None
    assert entry.right is False
    assert len(list(Path("outputs/learn-none-against-rmsnorm").glob("*/run.json"))) == 4
    # Again: nothing is trained, and the earlier guess counts.
    code, out, _ = learn("predict", "none-against-rmsnorm", "--guess", "0")
    assert "your guess from then counts" in out
    assert read_progress().predictions["none-against-rmsnorm"].guess == -50
