"""The predictions: they compose, name two arms that their studies have, and their outcomes hold."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from learn_content.learn_pages import LEARN, ROOT, compose_overrides
from normlab.analysis.arms import Arm, group_runs
from normlab.analysis.comparison import losses_by_seed
from normlab.analysis.statistics import paired_difference
from normlab.archive.study import read_study
from normlab.config.run_spec import RunSpec

PREDICTIONS: list[dict[str, Any]] = yaml.safe_load(
    (LEARN / "predictions.yaml").read_text(encoding="utf-8")
)
BY_ID = {prediction["id"]: prediction for prediction in PREDICTIONS}
KEYS = {"id", "lesson", "question", "command", "measure", "arms", "seconds", "explanation"}
MEASURES = ("final_loss_difference", "best_rate", "diverged_count", "norm_output")
# What the explanations say of each, in words that no processor's rounding changes.
OUTCOMES = {
    "no-norm-diverges": 3,
    "rmsnorm-or-layernorm": "cannot tell",
    "gain-or-none": "cannot tell",
    "post-at-a-small-rate": "lower",
    "post-at-a-middle-rate": "higher",
    "best-rate": 4e-3,
    "order-of-casts": 0.0,
}


def arm_words(name: str) -> list[str]:
    return name.replace("·", " ").split()


def names_run(name: str, spec: RunSpec, overrides: list[str]) -> bool:
    """Whether an arm's name fits a run: its norm, its placement, or the end of an override."""
    words = {spec.choices["norm"], spec.choices["placement"]}
    for override in overrides:
        key, _, values = override.partition("=")
        words |= {f"{key.rpartition('.')[2]}={value}" for value in values.split(",")}
    return all(word in words for word in arm_words(name))


def find_arm(name: str, arms: list[Arm]) -> Arm:
    """The one arm whose label has all these words."""
    (arm,) = [arm for arm in arms if set(arm_words(name)) <= set(arm_words(arm.label))]
    return arm


def test_every_lesson_has_a_prediction_and_a_page_that_names_it() -> None:
    assert len(BY_ID) == len(PREDICTIONS) >= 6
    assert {prediction["lesson"] for prediction in PREDICTIONS} == set(range(1, 7))
    for prediction in PREDICTIONS:
        lesson = (LEARN / f"lesson{prediction['lesson']}.md").read_text(encoding="utf-8")
        assert f"normlab-learn predict {prediction['id']}" in lesson


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda prediction: prediction["id"])
def test_a_prediction_composes_into_a_study_with_its_arms(prediction: dict[str, Any]) -> None:
    assert set(prediction) - {"range"} == KEYS
    outcome = OUTCOMES[prediction["id"]]
    if "range" in prediction:
        low, high = prediction["range"]
        assert isinstance(outcome, float | int)
        assert low <= outcome <= high
    assert prediction["measure"] in MEASURES
    assert 0 < prediction["seconds"] <= 60
    specs = compose_overrides(prediction["command"])
    for name in prediction["arms"]:
        assert any(names_run(name, spec, prediction["command"]) for spec in specs), name
    rates = [word.split(",") for word in prediction["command"] if word.startswith("optimizer.lr=")]
    assert (prediction["measure"] == "best_rate") == any(len(values) >= 3 for values in rates)


@pytest.mark.slow
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda prediction: prediction["id"])
def test_the_outcome_is_what_the_explanation_says(
    prediction: dict[str, Any], tmp_path: Path
) -> None:
    command = [sys.executable, str(ROOT / "train.py"), "-m", *prediction["command"], "study=here"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    arms = group_runs(read_study(tmp_path / "outputs" / "here").runs)
    assert measure_outcome(prediction, arms) == OUTCOMES[prediction["id"]]


def measure_outcome(prediction: dict[str, Any], arms: list[Arm]) -> object:
    if prediction["measure"] == "diverged_count":
        named = [find_arm(name, arms) for name in prediction["arms"]]
        return sum(len(arm.with_state("diverged")) for arm in named)
    if prediction["measure"] == "best_rate":
        words = set(arm_words(prediction["arms"][0]))
        rated = [arm for arm in arms if words <= set(arm_words(arm.label))]
        best = min(rated, key=lambda arm: arm.final_losses[0])
        return best.runs[0].record.config["optimizer"]["lr"]
    a, b = (losses_by_seed(find_arm(name, arms)) for name in prediction["arms"])
    if OUTCOMES[prediction["id"]] == 0.0:
        return max(abs(a[seed] - b[seed]) for seed in a)
    return paired_difference(a, b).outcome_within()
