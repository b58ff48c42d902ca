"""What conf/ asks for: every claim's arms are trained by its study, every number is measured."""

from pathlib import Path

import pytest

from normlab.apps.claims import measurements
from normlab.apps.claims.claim import RUN_TESTS, load_claims
from normlab.apps.claims.measurements import MEASUREMENTS, SIZES, MeasurementSize
from normlab.apps.claims.runs import StudyOptions, parse_arm, plan_study, select_runs
from normlab.archive.events import Events
from normlab.archive.study import Run
from normlab.study.plan import SweepRequest

CLAIMS = load_claims()
EXPERIMENTS = sorted({one.experiment for one in CLAIMS.values() if one.experiment})


def check(experiment: str, options: StudyOptions) -> int:
    """Every arm of the experiment's claims has runs in it; returns how many runs there are."""
    study = plan_study(experiment, options)
    assert study.problem == ""
    runs = [Run(study.folder, record, Events()) for record in study.records.values()]
    for name, claim in CLAIMS.items():
        if claim.experiment == experiment:
            assert type(claim.test) in RUN_TESTS.values()
            for arm in claim.arms:
                assert select_runs(runs, arm), (name, arm)
                assert parse_arm(arm)
    return len(runs)


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TinyShakespeare is not needed to compose: a corpus is opened, not read here."""
    monkeypatch.setattr("normlab.study.plan._check_data", lambda specs: {})


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_arm_of_a_claim_is_in_its_study(
    experiment: str, text: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the first of the values that are swept, which says as much and composes at once."""
    whole = SweepRequest.expand_arms

    def first(self: SweepRequest, given: list[str], budget: str) -> tuple:
        arms, overrides = whole(self, given, budget)
        return arms, [
            word if word.startswith("schedule.warmup") else word.split(",")[0] for word in overrides
        ]

    monkeypatch.setattr(SweepRequest, "expand_arms", first)
    assert check(experiment, StudyOptions("quick", tmp_path)) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("budget", SIZES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_run_of_every_budget_composes(
    experiment: str, budget: str, text: None, tmp_path: Path
) -> None:
    assert check(experiment, StudyOptions(budget, tmp_path)) >= 2  # seeds, for an interval


def test_text_that_is_not_there_is_why_a_study_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORMLAB_DATA", str(tmp_path))
    (tmp_path / "tinyshakespeare.txt").write_text("not it")
    (tmp_path / "input.txt").write_text("not it")
    study = plan_study("claims_nanogpt", StudyOptions("quick", tmp_path))
    assert study.problem
    assert not study.records


def test_a_place_with_spaces_is_quoted_for_hydra_and_for_the_shell() -> None:
    options = StudyOptions("quick", Path("my runs/claims"))
    assert options.arguments("x")[-1] == "output_dir='my runs/claims'"
    assert options.command("x").endswith("""'output_dir='"'"'my runs/claims'"'"''""")
    assert (
        StudyOptions("quick", Path("outputs/claims")).arguments("x")[-1]
        == "output_dir=outputs/claims"
    )


def test_every_number_that_a_claim_asks_for_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a size that takes a second; the timing needs a compiler, its names are enough."""
    monkeypatch.setattr(measurements, "OUTPUT_CHANGE_DEPTHS", (1, 2))
    monkeypatch.setattr(measurements, "STACK_WIDTH", 16)
    monkeypatch.setattr(measurements, "DECAY_DEPTH", 2)
    asked: dict[str, set[str]] = {}
    for one in CLAIMS.values():
        if one.measurement:
            asked.setdefault(one.measurement, set()).add(one.test.of)  # type: ignore[union-attr]
    assert asked.keys() == MEASUREMENTS.keys()
    assert asked.pop("norm_time") == {"fused", "torch", "composite", "compiled"}
    for name, wanted in asked.items():
        series = MEASUREMENTS[name].measure(MeasurementSize(seeds=1, depth=4, rounds=1))
        assert wanted <= series.keys(), name


def test_the_stack_shows_what_theory_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "STACK_DEPTH", 10)
    series = MEASUREMENTS["linear_stack"].measure(MeasurementSize(seeds=1, depth=8, rounds=1))
    assert series["std at layer 1"] == pytest.approx([0.3374], rel=0.02)
    assert series["slope of ln gradient"] == pytest.approx([0.896], rel=0.03)
    assert series["share from the input at layer 8"] == pytest.approx([6e-4], rel=0.5)
