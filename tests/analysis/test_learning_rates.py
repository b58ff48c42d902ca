"""Learning-rate studies: sensitivity as published, stability, and each arm at its best rate."""

import math

import pytest
from scipy import stats

from learning_rate_runs import INITIAL, runs_by_rate, study_of_arms
from normlab.analysis.arms import group_runs
from normlab.analysis.learning_rates import LearningRates, RatedArm, analyse_learning_rates
from normlab.analysis.report_tables import figure_tables
from normlab.analysis.result import analyse_study
from normlab.archive.record import FinalNumbers, short_number

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


def test_points_have_losses_by_seed_and_the_diverged() -> None:
    first, _, last = only(runs_by_rate(U)).points
    assert first.rate == 1e-3
    assert first.losses == {0: 2.0, 1: 2.1}
    assert (last.diverged, last.losses, last.capped) == (1, {0: 3.0}, {0: 3.0, 1: INITIAL})


def test_the_largest_stable_rate_has_no_divergence_at_or_below_it() -> None:
    assert only(runs_by_rate(U)).largest_stable == 1e-2
    island = {1e-3: [2.0], 1e-2: [None], 1e-1: [1.9]}
    assert only(runs_by_rate(island)).largest_stable == 1e-3
    assert only(runs_by_rate({1e-3: [None], 1e-2: [1.0], 1e-1: [1.0]})).largest_stable is None


UNIGRAM = 3.0


@pytest.mark.parametrize(
    ("losses", "largest"),
    [
        ({1e-3: [2.0], 1e-2: [2.98], 1e-1: [3.5]}, 1e-2),  # 0.02 below is enough
        ({1e-3: [2.0], 1e-2: [2.99], 1e-1: [2.0]}, 1e-3),  # not stable again beyond
        ({1e-3: [2.0], 1e-2: [2.0, 3.0], 1e-1: [2.0]}, 1e-3),  # of two seeds one
        ({1e-3: [3.0], 1e-2: [2.0], 1e-1: [3.0]}, 1e-2),  # the smallest was only too slow
        ({1e-3: [3.0], 1e-2: [None], 1e-1: [2.0]}, None),
        ({1e-3: [3.0], 1e-2: [3.0], 1e-1: [3.0]}, None),
    ],
)
def test_a_rate_at_which_nothing_is_learned_is_not_stable(
    losses: dict[float, list[float | None]], largest: float | None
) -> None:
    runs = runs_by_rate(losses)
    for run in runs:
        run.record.unigram = UNIGRAM
    assert only(runs).largest_stable == largest
    words = "none of the grid" if largest is None else short_number(largest)
    result = analyse_study(study_of_arms(runs))
    (sentence,) = [line for line in result.sentences if line.startswith("Largest stable")]
    assert sentence.endswith(f"below the unigram loss): {words} for every arm.")


def test_the_report_counts_by_rate_what_learned_nothing() -> None:
    runs = runs_by_rate({1e-3: [2.0, 2.0], 1e-2: [None, 3.0], 1e-1: [None, None]})
    for run in runs:
        run.record.unigram = UNIGRAM
    _, by_rate = figure_tables(analyse_study(study_of_arms(runs)))["learning_rate"]
    assert [cell.text for cell in by_rate.rows[0][1:]] == [
        "2.0000 ± 0.0000",
        "3.0000, 1 of 2 diverged, 1 of 2 learned nothing",
        "2 of 2 diverged",
    ]


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


def test_over_one_shared_rate_there_is_no_sensitivity_and_that_is_said() -> None:
    wide = {1e-3: [2.0, 2.1], 1e-2: [1.9, 2.0], 1e-1: [1.5, 1.6]}
    narrow = {1e-1: [2.0, 2.1], 2e-1: [1.9, 2.0], 3e-1: [1.9, 2.1]}
    rates = found(runs_by_rate(wide), runs_by_rate(narrow, "layernorm"))
    assert rates.grid == (1e-1,)
    assert [rated.sensitivity for rated in rates.arms] == [{}, {}]
    warnings = " ".join(rates.warnings)
    assert "The arms share one learning rate alone, so that there is no LR sensitivity." in warnings
    assert "are not in the LR sensitivity" not in warnings


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


def test_seeds_that_lack_a_rate_are_no_group_of_their_own() -> None:
    losses = {1e-3: [2.0] * 4, 1e-2: [1.5] * 4, 1e-1: [None, None, 3.0, 3.0]}
    result = analyse_study(study_of_arms(runs_by_rate(losses), runs_by_rate(losses, "layernorm")))
    assert not any("two groups" in warning for warning in result.warnings)
    losses[1e-2] = [1.5, 1.5, 1.8, 1.8]
    (warning,) = [
        warning
        for warning in analyse_study(study_of_arms(runs_by_rate(losses))).warnings
        if "two groups" in warning
    ]
    assert "rmsnorm · pre (2 at 1.5000, 2 at 1.8000)" in warning


def test_an_arm_has_learned_nothing_where_it_has_not_at_its_best_rate() -> None:
    def unlearned(unigram: float) -> list[str]:
        runs = runs_by_rate({1e-3: [2.0], 1e-2: [1.5], 1e-1: [3.0]})
        for run in runs:
            run.record.unigram = unigram
        sentences = analyse_study(study_of_arms(runs)).sentences
        return [sentence for sentence in sentences if sentence.startswith("Less than")]

    assert unlearned(3.0) == []
    assert "rmsnorm · pre (1 of 1 runs)" in unlearned(1.5)[0]


def test_why_arms_over_learning_rates_are_not_compared_is_said() -> None:
    def first_sentence(*arms: list) -> str:
        return analyse_study(study_of_arms(*arms)).sentences[0]

    other = {rate * 3: losses for rate, losses in U.items()}
    lost: dict = {rate: [None, None, 1.5] for rate in U}
    for arms in (
        (runs_by_rate(U), runs_by_rate(other, "layernorm")),
        (runs_by_rate(lost), runs_by_rate(lost, "layernorm")),
    ):
        assert first_sentence(*arms).startswith("No learning rate is shared by all arms with fewer")
    sentence = first_sentence(runs_by_rate(U), runs_by_rate(lost, "layernorm"))
    assert "the other arms are excluded (see the sentences below)" in sentence
    halved: dict = {rate: [sum(halves) / 2] * 2 for rate, halves in HALVES.items()}
    sentence = first_sentence(runs_by_rate(halved, halves=HALVES))
    assert sentence == (
        "rmsnorm · pre ends at 1.9000 ± 0.0000 nats per token (2 seeds); no other arm has "
        "finished, so there is nothing to compare it with."
    )


def test_a_run_without_a_loss_or_an_arm_of_few_rates_does_not_decide_on_the_windows() -> None:
    losses: dict = {rate: [sum(halves) / 2] * 2 for rate, halves in HALVES.items()}
    runs = runs_by_rate(losses, halves=HALVES)
    runs[0].record.final = FinalNumbers()
    assert found(runs).halved
    few = runs_by_rate({1e-3: [2.0]}, "layernorm")
    assert found(runs_by_rate(losses, halves=HALVES), few).halved


def test_an_arm_without_a_best_rate_is_not_named_with_a_best_loss() -> None:
    lost = {1e-3: [2.0, None], 1e-2: [None, 2.0], 1e-1: [2.0, None]}
    assert only(runs_by_rate(lost)).sensitivity
    result = analyse_study(study_of_arms(runs_by_rate(lost, "layernorm"), runs_by_rate(U)))
    (sentence,) = [line for line in result.sentences if line.startswith("LR sensitivity")]
    assert "rmsnorm · pre" in sentence
    assert "inf" not in sentence


def test_seeds_that_are_missing_at_the_compared_rates_are_a_warning() -> None:
    """One seed at a rate that widened the grid: the others have it at other rates only."""
    a = runs_by_rate({3e-4: [1.0], 1e-3: [1.05, 1.4, 1.4], 3e-3: [1.2, 1.25, 1.3], 1e-2: [2, 2, 2]})
    b = runs_by_rate(
        {3e-4: [1.4, 1.4, 1.4], 1e-3: [1.1, 1.5, 1.5], 3e-3: [1.3, 1.3, 1.4], 1e-2: [2, 2, 2]},
        "layernorm",
    )
    warnings = analyse_study(study_of_arms(a, b)).warnings
    assert any("Only one seed finished" in warning and "rmsnorm" in warning for warning in warnings)
    assert any("lacks seed=1,2" in warning for warning in warnings)
