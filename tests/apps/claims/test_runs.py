"""What conf/ asks for: every claim's arms are trained by its study, every number is measured."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from claim_evidence import make_arm
from normlab.apps.claims import measurements, step_time
from normlab.apps.claims.claim import RUN_TESTS, Role, load_claims
from normlab.apps.claims.measurements import (
    MEASUREMENTS,
    SIZES,
    MeasurementSize,
    _depth_slopes,
    compare_growth_laws,
    define_measurement,
)
from normlab.apps.claims.regime import check_attainable
from normlab.apps.claims.registry import hash_claim, read_register
from normlab.apps.claims.runs import PlannedStudy, StudyOptions, parse_arm, plan_study, select_runs
from normlab.apps.claims.step_time import build_training_step, time_step_ratio
from normlab.apps.probe.record import ProbedModel, ProbeResult, feedforward_site
from normlab.archive import tags
from normlab.archive.events import Events
from normlab.archive.study import Run
from normlab.config import conf_folder
from normlab.config.run_spec import RunSpec
from normlab.norms import timing
from normlab.study.composition import compose_specs
from normlab.study.plan import SweepRequest

CLAIMS = load_claims()
EXPERIMENTS = sorted({one.experiment for one in CLAIMS.values() if one.experiment})


def check(experiment: str, study: PlannedStudy) -> int:
    """Every arm of the experiment's claims has runs in it; returns how many runs there are."""
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
def text(monkeypatch: pytest.MonkeyPatch) -> None:
    """TinyShakespeare is not needed to compose: a corpus is opened, not read here."""
    monkeypatch.setattr("normlab.study.plan._check_data", lambda specs: {})


@cache
def plan_first_values(experiment: str) -> PlannedStudy:
    """With the first of the values that are swept, which says as much and composes at once."""
    expand_arms = SweepRequest.expand_arms

    def expand_first(request: SweepRequest, arguments: list[str], budget: str) -> tuple:
        arms, overrides = expand_arms(request, arguments, budget)
        return arms, [
            word if word.startswith("schedule.warmup") else word.split(",")[0] for word in overrides
        ]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("normlab.study.plan._check_data", lambda specs: {})
        patched.setattr(SweepRequest, "expand_arms", expand_first)
        return plan_study(experiment, StudyOptions("quick", Path("outputs")))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_arm_of_a_claim_is_in_its_study(experiment: str) -> None:
    assert check(experiment, plan_first_values(experiment)) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("budget", SIZES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_run_of_every_budget_composes(
    experiment: str, budget: str, text: None, tmp_path: Path
) -> None:
    study = plan_study(experiment, StudyOptions(budget, tmp_path))
    assert check(experiment, study) >= 2  # seeds, for an interval


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


@pytest.mark.parametrize("folder", ["résultats", "it's", "back\\slash", "end\\", "a b"])
def test_any_place_reaches_hydra_as_it_is(folder: str) -> None:
    word = StudyOptions("quick", Path(folder)).arguments("x")[-1]
    assert OverridesParser.create().parse_override(word).value() == folder


def test_every_number_that_a_claim_asks_for_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a size that takes a second."""
    monkeypatch.setattr(measurements, "OUTPUT_CHANGE_DEPTHS", (1, 2, 3))
    monkeypatch.setattr(measurements, "STACK_WIDTH", 16)
    monkeypatch.setattr(measurements, "DECAY_DEPTH", 2)
    asked: dict[str, set[str]] = {}
    for one in CLAIMS.values():
        if one.measurement:
            asked.setdefault(one.measurement, set()).add(one.test.of)  # type: ignore[union-attr]
    assert asked.keys() == MEASUREMENTS.keys()
    assert asked.pop("step_time") == {"training step"}  # takes new processes
    for name, wanted in asked.items():
        series = MEASUREMENTS[name].measure(MeasurementSize(seeds=1, depth=4, processes=1))
        assert wanted <= series.keys(), name


def test_the_stack_shows_what_theory_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "STACK_DEPTH", 10)
    series = MEASUREMENTS["linear_stack"].measure(MeasurementSize(seeds=1, depth=8, processes=1))
    assert series["std at layer 1"] == pytest.approx([0.3374], rel=0.02)
    assert series["slope of ln gradient"] == pytest.approx([0.896], rel=0.03)
    assert series["share from the input at layer 8"] == pytest.approx([6e-4], rel=0.5)
    assert series["std with Kaiming"] == pytest.approx([0.826], rel=0.02)
    assert series["error of the printed row"] == pytest.approx([2.60], abs=0.05)
    assert series["slope of ln std beyond layer 8"] == pytest.approx([0.0], abs=0.05)


def probed_stream(start: float, after_blocks: list[float], quantity: str) -> ProbeResult:
    """One model whose stream has this RMS or variance before the first block and after each."""
    sites = {feedforward_site(block): value for block, value in enumerate(after_blocks, 1)}
    values = {quantity: {"embedding": start, **sites}}
    other = tags.STREAM_VARIANCE if quantity == tags.STREAM_RMS else tags.STREAM_RMS
    values[other] = dict.fromkeys(values[quantity], 1.0)
    model = ProbedModel("layernorm", "pre", (), len(after_blocks), 0, 2.0, values)
    return ProbeResult((model,), ())


def test_the_growth_of_a_stream_is_that_of_its_law() -> None:
    blocks = range(1, 9)
    rms = probed_stream(1.0, [math.sqrt(1 + 0.5 * l) for l in blocks], tags.STREAM_RMS)
    assert _depth_slopes(rms, 8)["mean square a block"] == pytest.approx([0.5])
    power = probed_stream(2.0, [2 + 3 * l**1.5 for l in blocks], tags.STREAM_VARIANCE)
    assert _depth_slopes(power, 8)["variance gained"] == pytest.approx([1.5])
    exponential = probed_stream(0.5, [math.exp(0.3 * l) for l in blocks], tags.STREAM_VARIANCE)
    assert _depth_slopes(exponential, 8)["variance"] == pytest.approx([0.3])


def test_a_logarithm_and_a_power_of_depth_are_told_apart() -> None:
    depths = (2, 4, 8, 16, 32)
    noise = (1.02, 0.98, 1.01, 0.99, 1.0)
    logarithm = [(1 + 0.7 * math.log(depth)) * e for depth, e in zip(depths, noise, strict=True)]
    power = [depth**0.45 * e for depth, e in zip(depths, noise, strict=True)]
    assert compare_growth_laws(depths, logarithm) > 1
    assert compare_growth_laws(depths, power) < -1


def test_a_step_of_either_norm_is_timed_beside_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_time, "_WARMUP_STEPS", 1)
    monkeypatch.setattr(step_time, "_BLOCK", 1)
    monkeypatch.setattr(step_time, "_TURNS", 2)
    tiny = ("model.width=16", "model.depth=1", "data.batch_size=2")
    monkeypatch.setattr(step_time, "_OVERRIDES", (*step_time._OVERRIDES, *tiny))
    assert 0.05 < time_step_ratio(seed=0) < 20
    spec = composed_spec("norm=rmsnorm", *tiny)
    take_step = build_training_step(spec)
    module = take_step.__closure__ and next(
        cell.cell_contents
        for cell in take_step.__closure__
        if isinstance(cell.cell_contents, torch.nn.Module)
    )
    before = [parameter.clone() for parameter in module.parameters()]
    take_step()
    assert module.gradient_norm > 0  # clipped as in a run
    changed = [
        not torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True)
    ]
    assert all(changed)


def test_the_ratio_of_step_times_is_layernorms_over_rmsnorms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = {"layernorm": 3.0, "rmsnorm": 2.0}

    def build_step(spec: RunSpec) -> Callable[[], str]:
        return lambda: spec.choices["norm"]

    monkeypatch.setattr(step_time, "build_training_step", build_step)
    monkeypatch.setattr(timing, "median_milliseconds", lambda call, calls: times[call()])
    assert time_step_ratio(seed=0) == 1.5


@pytest.mark.parametrize(
    ("arm", "has_runs"),
    [
        ("norm=rmsnorm placement.qk=false", True),
        ("norm=rmsnorm placement.qk=true", False),
        ("norm=rmsnorm optimizer.lr=0.001", True),
        ("norm=rmsnorm optimizer.lr=1e-3", True),
        ("norm=rmsnorm optimizer.lr=2e-3", False),
        ("norm=rmsnorm optimizer.lr=fast", False),
    ],
)
def test_an_arm_has_the_runs_whose_settings_are_equal_however_written(
    arm: str, has_runs: bool
) -> None:
    runs = make_arm("rmsnorm", [2.0, 2.1], lr=0.001)
    assert select_runs(runs, arm) == (runs if has_runs else [])


def test_every_claim_about_trained_models_states_its_regime() -> None:
    """At standard four of five are judged, and what is not is reached by another budget."""
    trained = {n: c for n, c in CLAIMS.items() if c.experiment and c.role is Role.claim}
    reached = dict.fromkeys(SIZES, 0)
    for name, claim in trained.items():
        assert claim.regime is not None, name
        reach = plan_first_values(str(claim.experiment)).reach
        check_attainable(name, claim, reach, None)
        for budget in SIZES:
            reached[budget] += reach[budget].covers(claim.regime)
    assert reached["standard"] >= 0.8 * len(trained)
    assert reached["full"] == len(trained)


def test_every_claim_of_ours_is_registered_as_it_is() -> None:
    """Whoever changes one, or what its budgets train, registers it again before its runs."""
    register = read_register(conf_folder() / "claim")
    assert register.claims.keys() == CLAIMS.keys()
    for name, claim in CLAIMS.items():
        definitions = (
            plan_first_values(claim.experiment).definitions
            if claim.experiment
            else define_measurement(str(claim.measurement))
        )
        last = register.claims[name][-1]
        assert last.hashes == hash_claim(claim, definitions), (
            f"{name}: scripts/claims.py --register"
        )


def test_studies_of_claims_have_three_lengths_at_standard() -> None:
    """But those of a recipe, which has one."""
    for experiment in EXPERIMENTS:
        lengths = plan_first_values(experiment).reach["standard"].steps
        recipes = {"claims_nanogpt": (2000,), "claims_random": (1000,)}
        assert lengths == recipes.get(experiment, (250, 500, 1000)), experiment


def composed_spec(*overrides: str) -> RunSpec:
    return compose_specs(overrides)[0]
