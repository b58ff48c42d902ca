"""Learning-rate studies: sensitivity as published, stability, and each arm at its best rate."""

import math

import pytest
from scipy import stats

from learning_rate_runs import INITIAL, runs_by_rate, study_of_arms
from normlab.analysis.arms import group_runs
from normlab.analysis.learning_rates import LearningRates, RatedArm, analyse_learning_rates
from normlab.analysis.result import analyse_study

U = {1e-3: [2.0, 2.1], 1e-2: [1.5, 1.7], 1e-1: [3.0, None]}


def found(*arms: list) -> LearningRates:
    rates = analyse_learning_rates(group_runs(study_of_arms(*arms).runs))
    assert rates is not None
    return rates


def only(*arms: list) -> RatedArm:
    (arm,) = found(*arms).arms
    return arm


def test_sensitivity_is_the_published_formula_seed_by_seed() -> None:
    arm = only(runs_by_rate(U))
    # Seed 0: mean of 2, 1.5 and 3 less 1.5; seed 1: the diverged run is its loss at init, 4.
    assert arm.sensitivity == pytest.approx({0: 6.5 / 3 - 1.5, 1: 7.8 / 3 - 1.7})
    assert arm.initial == INITIAL


def test_a_loss_above_the_initial_one_counts_as_the_initial_one() -> None:
    arm = only(runs_by_rate({1e-3: [2.0], 1e-2: [1.0], 1e-1: [9.0]}))
    assert arm.sensitivity == pytest.approx({0: (2 + 1 + INITIAL) / 3 - 1})


def test_an_arm_that_never_finishes_is_not_insensitive() -> None:
    arm = only(runs_by_rate({1e-3: [None], 1e-2: [None], 1e-1: [None]}))
    assert arm.sensitivity == {}
    assert (arm.best_rate, arm.largest_stable, arm.tuned) == (None, None, {})
    assert arm.diverged == 3


def test_the_initial_loss_is_that_of_the_seed_at_any_rate() -> None:
    runs = runs_by_rate(U)
    (lost,) = [run for run in runs if run.record.state == "diverged"]
    lost.events.scalars.clear()
    assert only(runs).sensitivity == only(runs_by_rate(U)).sensitivity


def test_without_any_initial_loss_there_is_no_sensitivity_and_that_is_said() -> None:
    rates = found(runs_by_rate(U, initial=None))
    assert rates.arms[0].sensitivity == {}
    assert math.isnan(rates.arms[0].initial)
    assert "LR sensitivity" in " ".join(rates.warnings)
    assert rates.arms[0].best_rate == 1e-2


def test_a_seed_that_lacks_a_rate_is_in_no_sensitivity() -> None:
    rates = found(runs_by_rate({1e-3: [2.0, 2.1], 1e-2: [1.5, 1.7], 1e-1: [3.0]}))
    assert list(rates.arms[0].sensitivity) == [0]
    assert "not in the LR sensitivity" in " ".join(rates.warnings)


def test_points_have_mean_band_and_the_diverged() -> None:
    first, _, last = only(runs_by_rate(U)).points
    assert (first.rate, first.mean, first.band) == (1e-3, pytest.approx(2.05), (2.0, 2.1))
    assert (last.diverged, last.losses, last.capped) == (1, {0: 3.0}, {0: 3.0, 1: INITIAL})


def test_the_largest_stable_rate_has_no_divergence_at_or_below_it() -> None:
    assert only(runs_by_rate(U)).largest_stable == 1e-2
    island = {1e-3: [2.0], 1e-2: [None], 1e-1: [1.9]}
    assert only(runs_by_rate(island)).largest_stable == 1e-3
    assert only(runs_by_rate({1e-3: [None], 1e-2: [1.0], 1e-1: [1.0]})).largest_stable is None


def test_the_best_rate_is_not_chosen_by_survivors() -> None:
    arm = only(
        runs_by_rate({1e-3: [2.0, 2.0, 2.0], 1e-2: [1.9, 1.9, None], 1e-1: [1.0, None, None]})
    )
    assert arm.best_rate == 1e-3  # 1e-2: (1.9 + 1.9 + 4) / 3
    assert arm.tuned == {0: 2.0, 1: 2.0, 2: 2.0}


def test_fewer_than_three_rates_are_no_such_study() -> None:
    study = study_of_arms(runs_by_rate({1e-3: [1.0], 1e-2: [1.0]}))
    assert analyse_learning_rates(group_runs(study.runs)) is None
    two = runs_by_rate({1e-3: [1.0], 1e-2: [1.0]}, "layernorm")
    rates = found(runs_by_rate(U), two)
    assert [arm.name for arm in rates.arms] == ["rmsnorm · pre"]
    assert "layernorm · pre" in rates.warnings[0]


def test_everything_is_over_the_grid_that_all_arms_share() -> None:
    wide = {**U, 1.0: [1.0, 1.0]}
    rates = found(runs_by_rate(wide), runs_by_rate(U, "layernorm"))
    assert rates.grid == (1e-3, 1e-2, 1e-1)
    wider = next(arm for arm in rates.arms if arm.arm.norm == "rmsnorm")
    assert wider.best_rate == 1e-2
    assert len(wider.points) == 4
    assert wider.sensitivity == only(runs_by_rate(U)).sensitivity
    (warning,) = rates.warnings
    assert "rmsnorm · pre has lr=1 besides" in warning


@pytest.mark.parametrize("best", [1e-3, 1e-1])
def test_a_best_rate_at_the_edge_is_a_warning(best: float) -> None:
    losses = {rate: [1.0 if rate == best else 2.0] for rate in U}
    (warning,) = found(runs_by_rate(losses)).warnings
    assert "edge of the grid" in warning
    assert not found(runs_by_rate({1e-3: [2.0], 1e-2: [1.0], 1e-1: [2.0]})).warnings


def test_another_setting_keeps_arms_apart() -> None:
    rates = found(runs_by_rate(U, model={"depth": 4}), runs_by_rate(U, model={"depth": 8}))
    assert [arm.arm.settings for arm in rates.arms] == [(("depth", 4),), (("depth", 8),)]


def test_the_verdict_compares_each_arm_at_its_own_best_rate() -> None:
    low = {1e-3: [2.0, 2.1, 2.2], 1e-2: [1.50, 1.51, 1.52], 1e-1: [2.0, 2.1, 2.2]}
    high = {1e-3: [1.60, 1.6101, 1.62], 1e-2: [9.0, 9.1, 9.2], 1e-1: [None, None, None]}
    said = analyse_study(study_of_arms(runs_by_rate(low), runs_by_rate(high, "none", "any")))
    (one,) = said.comparisons
    assert one.difference.mean == pytest.approx(-0.1, abs=1e-4)
    oracle = stats.ttest_rel(low[1e-2], high[1e-3])
    assert one.difference.p == pytest.approx(oracle.pvalue)
    first, second, third, fourth, fifth = said.sentences
    assert first.startswith("rmsnorm · pre ends lower than none by 0.1000 ± ")
    assert "3 learning rates from 1e-3 to 0.1" in second
    assert "none 1e-3" in second
    assert third.startswith("LR sensitivity, ")
    assert third.index("rmsnorm · pre 0.3933 ± ") < third.index("none 1.5933 ± ")
    assert "0.1 (the end of the grid) for rmsnorm · pre; 1e-2 for none" in fourth
    assert fifth == "Diverged: 3 of 18 runs: none · lr=0.1 (3 of 3, step 7)."
    assert any("edge" in warning for warning in said.warnings)


HALVES = {1e-3: (2.0, 2.0), 1e-2: (1.4, 1.9), 1e-1: (1.6, 1.5)}


def test_the_best_rate_is_chosen_on_other_windows_than_the_arms_are_compared_on() -> None:
    losses = {rate: [sum(halves) / 2] * 2 for rate, halves in HALVES.items()}
    assert only(runs_by_rate(losses)).best_rate == 1e-1  # by the whole
    rates = found(runs_by_rate(losses, halves=HALVES))
    assert rates.halved
    (arm,) = rates.arms
    assert (arm.best_rate, arm.tuned) == (1e-2, {0: 1.9, 1: 1.9})


def test_arms_are_compared_by_the_windows_that_did_not_choose() -> None:
    worse = {rate: (first, second + 0.5) for rate, (first, second) in HALVES.items()}
    losses: dict = {rate: [2.0, 2.0] for rate in HALVES}
    a = runs_by_rate(losses, "layernorm", halves=HALVES)
    b = runs_by_rate(losses, "rmsnorm", halves=worse)
    result = analyse_study(study_of_arms(a, b))
    (comparison,) = result.comparisons
    assert comparison.best.name == "layernorm · pre"
    assert comparison.difference.mean == pytest.approx(-0.5)
    assert "one half of the validation windows" in " ".join(result.sentences)
    alone = [[run for run in runs if run.record.seed == 0] for runs in (a, b)]
    (sentence, *_) = analyse_study(study_of_arms(*alone)).sentences
    assert "at 1.9000 nats per token, 0.5000 below" in sentence


def test_a_run_without_the_halves_has_all_arms_compared_by_the_whole() -> None:
    losses = {rate: [sum(halves) / 2] * 2 for rate, halves in HALVES.items()}
    a = runs_by_rate(losses, "layernorm", halves=HALVES)
    result = analyse_study(study_of_arms(a, runs_by_rate(losses, "rmsnorm")))
    assert result.rates is not None
    assert not result.rates.halved
    assert [arm.best_rate for arm in result.rates.arms] == [1e-1, 1e-1]
    assert "on the same windows" in " ".join(result.sentences)
