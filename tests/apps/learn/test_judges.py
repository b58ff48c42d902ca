"""Every wrong solution gets the sentence that names its mistake, and every right one passes."""

import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

from normlab.apps.learn.exercises import EXERCISES
from normlab.apps.learn.judges import FILE_JUDGES, MODULE_JUDGES
from normlab.apps.learn.judges.diverging_run import (
    MOST_LOSS,
    compose_run,
    judge_nan_at_step_100,
    judge_run,
)
from normlab.apps.learn.judges.mistake import MistakeError
from normlab.apps.learn.judges.norms import _LAYERNORM, _RMSNORM, _SCALENORM
from normlab.archive.record import FinalNumbers, RunRecord
from right_solutions import RIGHT
from wrong_solutions import WRONG, WRONG_FORMULAS, Wrong

SOLUTIONS = Path(__file__).resolve().parents[3] / "docs" / "learn" / "solutions"
TRAINED = "nan_at_step_100"


def judge_source(exercise: str, source: str) -> None:
    module = ModuleType("solution")
    exec(compile(source, "solution.py", "exec"), module.__dict__)
    MODULE_JUDGES[exercise](module)


def judge_path(path: Path) -> None:
    if path.stem in FILE_JUDGES:
        FILE_JUDGES[path.stem](path)
    else:
        judge_source(path.stem, path.read_text())


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong.exercise}-{wrong.name}")
def test_a_wrong_solution_is_told_its_mistake(wrong: Wrong) -> None:
    with pytest.raises(MistakeError) as raised:
        judge_source(wrong.exercise, wrong.source)
    for word in wrong.words:
        assert word in str(raised.value)
    # A mistake that is named beside the right one is wrong too.
    assert ("; and " in str(raised.value)) == ("; and " in wrong.words)


def test_the_message_on_the_page_of_exercises_is_what_the_judge_says() -> None:
    page = " ".join((SOLUTIONS.parent / "exercises.md").read_text().split())
    wrong = next(wrong for wrong in WRONG if wrong.name == "eps_outside")
    with pytest.raises(MistakeError) as raised:
        judge_source(wrong.exercise, wrong.source)
    assert f"rmsnorm: not right yet: {raised.value!s}" in page


@pytest.mark.parametrize(
    ("exercise", "source"),
    [pytest.param(exercise, source, id=f"{exercise}-{name}") for exercise, name, source in RIGHT],
)
def test_a_right_solution_passes_however_it_is_written(exercise: str, source: str) -> None:
    judge_source(exercise, source)


@pytest.mark.parametrize("name", [name for name in EXERCISES if name != TRAINED])
def test_the_solution_of_the_docs_passes(name: str) -> None:
    judge_path(SOLUTIONS / EXERCISES[name].file_name)


@pytest.mark.parametrize("name", [name for name in EXERCISES if name != TRAINED])
def test_a_skeleton_is_not_right_yet(name: str) -> None:
    with pytest.raises(MistakeError):
        judge_path(EXERCISES[name].skeleton)


def test_there_are_enough_solutions() -> None:
    per_exercise = {name: 0 for name in EXERCISES if name not in FILE_JUDGES}
    for wrong in WRONG:
        per_exercise[wrong.exercise] += 1
    assert min(per_exercise.values()) >= 2
    assert len(WRONG) >= 30
    assert {exercise for exercise, _, _ in RIGHT} == set(MODULE_JUDGES)
    assert {*MODULE_JUDGES, *FILE_JUDGES} == set(EXERCISES)


@pytest.mark.parametrize(
    ("word", "text"),
    [pytest.param(*row, id=name) for name, *row in WRONG_FORMULAS],
)
def test_a_wrong_formula_is_told_its_mistake(word: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "formula.yaml"
    path.write_text(text)
    with pytest.raises(MistakeError) as raised:
        FILE_JUDGES["formula"](path)
    assert word in str(raised.value)


@pytest.mark.parametrize(
    "expression",
    ["x * rsqrt(eps + mean(square(x))) * (offset + 1)", "(x + offset * x) / sqrt(rms(x)**2 + eps)"],
)
def test_a_right_formula_passes_however_it_is_written(expression: str, tmp_path: Path) -> None:
    path = tmp_path / "formula.yaml"
    path.write_text(
        f"_target_: normlab.norms.Formula\nexpression: {expression}\n"
        "parameters: {offset: {init: 0}}\nconstants: {eps: 1e-6}\n"
    )
    FILE_JUDGES["formula"](path)


def test_the_task_of_the_formula_is_right_when_it_is_copied(tmp_path: Path) -> None:
    (task,) = re.findall(r"(?m)^# {5}(.+)$", EXERCISES["formula"].skeleton.read_text())
    path = tmp_path / "formula.yaml"
    path.write_text(
        f"_target_: normlab.norms.Formula\nexpression: {task}\n"
        "parameters: {offset: {init: 0, per: feature}}\n"
    )
    FILE_JUDGES["formula"](path)


def test_the_oracles_of_the_judges_are_torchs_norms() -> None:
    x = torch.randn(3, 5, 16, dtype=torch.float64)
    gain, bias = torch.randn(2, 16, dtype=torch.float64)
    layernorm = torch.nn.functional.layer_norm(x, (16,), gain, bias, 1e-3)
    rmsnorm = torch.nn.functional.rms_norm(x, (16,), gain, 1e-3)
    scalenorm = torch.nn.functional.normalize(x, dim=-1, eps=1e-3) * gain[0]
    torch.testing.assert_close(_LAYERNORM.recipe.apply(x, gain, bias, 1e-3), layernorm)
    torch.testing.assert_close(_RMSNORM.recipe.apply(x, gain, None, 1e-3), rmsnorm)
    torch.testing.assert_close(_SCALENORM.recipe.apply(x, gain[0], None, 1e-3), scalenorm)


# --- The run that diverges ----------------------------------------------------------------------

MENDED = (SOLUTIONS / EXERCISES[TRAINED].file_name).read_text()


def run_record(
    state: str, loss: float | None = None, norm: str = "rmsnorm", placement: str = "pre"
) -> RunRecord:
    record = RunRecord("id", "name", norm, placement, "synthetic", 0, {}, {})
    record.state, record.diverged_step, record.reason = state, 113, "the gradient norm is nan"
    record.final = FinalNumbers(val_loss=loss)
    return record


@pytest.mark.parametrize(
    ("record", "word"),
    [
        (run_record("diverged"), "diverges at step 113"),
        (run_record("failed"), "did not finish"),
        (run_record("finished", 2.079), "2.079 nats"),
        (
            run_record("diverged", norm="none", placement="post"),
            "The first fault remains: norm is none",
        ),
        (
            run_record("finished", 2.072, placement="post"),
            "The second fault remains: with placement: post",
        ),
    ],
)
def test_a_run_that_diverges_or_learns_nothing_is_not_mended(record: RunRecord, word: str) -> None:
    with pytest.raises(MistakeError) as raised:
        judge_run(record)
    assert word in str(raised.value)


def test_a_run_that_learns_is_mended() -> None:
    judge_run(run_record("finished", MOST_LOSS - 0.01))


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ("optimizer.lr: 0.02", "optimizer.lr: 0.001", "it must stay 0.02"),
        ("model.depth: 16", "model.depth: 4", "model.depth is 4"),
        ("trainer.max_steps: 240", "", "max_steps is missing"),
        ("norm: rmsnorm", "norm: rmsnrm", "did you mean norm=rmsnorm"),
        ("norm: rmsnorm", "norm rmsnorm: {", "is not YAML"),
        ("schedule.warmup: 0.05", "schedule.warmupp: 0.05", "warmup"),
        ("norm: rmsnorm", "norm: ../rmsnorm", "is not allowed"),
        ("norm: rmsnorm", "norm: rmsnorm\nhydra.sweep.dir: x", "not a key of a"),
        ("norm: rmsnorm", "norm: {_target_: os.system}", ""),
    ],
)
def test_another_problem_or_a_wrong_key_is_refused_before_training(
    before: str, after: str, word: str, tmp_path: Path
) -> None:
    path = tmp_path / "nan_at_step_100.yaml"
    path.write_text(MENDED.replace(before, after))
    with pytest.raises(MistakeError) as raised:
        compose_run(path, tmp_path)
    assert word in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "The first fault remains: norm is none"),
        (
            {"placement: post": "placement: pre"},
            "The first fault remains: norm is none",
        ),
        (
            {"gradient_clip: null": "gradient_clip: 1.0", "warmup: 0.5": "warmup: 0.05"},
            "The first fault remains: norm is none",
        ),
        (
            {"norm: none": "norm: rmsnorm"},
            "The second fault remains: with placement: post",
        ),
    ],
)
def test_with_one_fault_mended_the_run_shows_the_other(
    changes: dict[str, str], word: str, tmp_path: Path
) -> None:
    text = EXERCISES[TRAINED].skeleton.read_text()
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    path = tmp_path / "nan_at_step_100.yaml"
    path.write_text(text)
    with pytest.raises(MistakeError) as raised:
        judge_nan_at_step_100(path)
    assert word in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm", "simple_rmsnorm"])
def test_the_solution_mends_it_with_any_norm(norm: str, tmp_path: Path) -> None:
    path = tmp_path / "nan_at_step_100.yaml"
    path.write_text(MENDED.replace("norm: rmsnorm", f"norm: {norm}"))
    judge_nan_at_step_100(path)
