"""Differences of all arms together, against least squares, closed forms and simulated studies."""

import math
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import polygamma

from normlab.analysis.family import (
    OWN_LEVEL,
    Variances,
    family_differences,
    moderate_variances,
    pool_variances,
)
from normlab.analysis.statistics import LEVEL, paired_difference

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "bench"))
from simulate_studies import draw_losses, report_differences


def _draw_arms(arms: int, seeds: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(0, scale, (arms, seeds)) + 2 * random.standard_normal(seeds)


def _by_seed(losses: np.ndarray) -> list[dict[int, float]]:
    return [dict(enumerate(row)) for row in losses.tolist()]


def _pair_variances(losses: np.ndarray) -> Variances:
    pairs = combinations(range(len(losses)), 2)
    variances = [np.var(losses[a] - losses[b], ddof=1) for a, b in pairs]
    return Variances(np.array(variances), np.array(losses.shape[1] - 1.0))


def test_the_pooled_variance_is_twice_the_residual_of_arms_and_seeds() -> None:
    losses = _draw_arms(4, 5)
    rows, columns = np.indices(losses.shape)
    design = np.concatenate(
        [np.eye(4)[rows.ravel()], np.eye(5)[columns.ravel()][:, 1:]], axis=1
    )  # least squares with a column an arm and a column a seed
    residual = np.linalg.lstsq(design, losses.ravel(), rcond=None)[1][0] / (20 - 4 - 4)

    pooled = pool_variances(_pair_variances(losses), arms=4)

    assert pooled.variance[0] == pytest.approx(2 * residual)
    assert pooled.freedom[0] == pytest.approx(12)


def test_unequal_seeds_weigh_by_their_freedom_in_the_pooled_variance() -> None:
    """(2·1 + 4·2 + 4·3) / 10; the harmonic mean of 2, 4 and 4 is 3, times three arms less one."""
    own = Variances(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 4.0]))
    pooled = pool_variances(own, arms=3)
    assert pooled.variance.tolist() == pytest.approx([2.2])
    assert pooled.freedom.tolist() == pytest.approx([6.0])


def test_two_arms_are_compared_by_the_paired_t_test() -> None:
    losses = _draw_arms(2, 4)
    difference = family_differences(_by_seed(losses), [(0, 1)])[0, 1]
    expected = stats.ttest_rel(losses[0], losses[1])
    assert difference.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert difference.mean - difference.half == pytest.approx(interval.low)
    assert difference.mean + difference.half == pytest.approx(interval.high)


@pytest.mark.parametrize("seeds", [3, 4])
def test_the_widest_interval_and_the_largest_p_count(seeds: int) -> None:
    """Of the pair's own and Tukey's, moderated; with three seeds the pooled one too."""
    for seed in range(2):
        losses = _draw_arms(4, seeds, seed)
        own = _pair_variances(losses)
        pooled = pool_variances(own, 4)
        moderated = moderate_variances(own, pooled.freedom)
        pairs = list(combinations(range(4), 2))
        found = family_differences(_by_seed(losses), pairs)
        for at, pair in enumerate(pairs):
            error = math.sqrt(own.variance[at] / seeds)
            halves = [stats.t.ppf(1 - OWN_LEVEL / 2, seeds - 1) * error]
            ps = [2 * stats.t.sf(abs(found[pair].mean) / error, seeds - 1) * LEVEL / OWN_LEVEL]
            for variance, freedom in (
                (moderated.variance[at], moderated.freedom[at]),
                (pooled.variance[0], pooled.freedom[0]),
            )[: 1 if seeds == 4 else 2]:
                half_error = math.sqrt(variance / seeds / 2)
                halves.append(stats.studentized_range.ppf(1 - LEVEL, 4, freedom) * half_error)
                ps.append(
                    stats.studentized_range.sf(abs(found[pair].mean) / half_error, 4, freedom)
                )
            assert found[pair].half == pytest.approx(max(halves))
            assert found[pair].p == pytest.approx(min(max(ps), 1.0), abs=1e-9)


def test_of_four_families_each_has_a_quarter_of_the_level() -> None:
    arms = _draw_arms(3, 5)
    own = _pair_variances(arms)
    pooled = pool_variances(own, 3)
    moderated = moderate_variances(own, pooled.freedom)
    wider = set()
    for at, pair in enumerate(combinations(range(3), 2)):
        difference = family_differences(_by_seed(arms), [pair], LEVEL / 4)[pair]
        error = math.sqrt(own.variance[at] / 5)
        own_t = stats.t.ppf(1 - OWN_LEVEL / 4 / 2, 4) * error
        own_p = LEVEL / OWN_LEVEL * 4 * 2 * stats.t.sf(abs(difference.mean) / error, 4)
        intervals = [(own_t, own_p)]
        error = math.sqrt(moderated.variance[at] / 5 / 2)
        freedom = moderated.freedom[at]
        half = stats.studentized_range.ppf(1 - LEVEL / 4, 3, freedom) * error
        p = 4 * stats.studentized_range.sf(abs(difference.mean) / error, 3, freedom)
        intervals.append((half, p))
        halves, ps = zip(*intervals, strict=True)
        assert difference.half == pytest.approx(max(halves))
        assert difference.p == pytest.approx(min(1, max(ps)))
        wider.add(halves.index(max(halves)) > 0)
    assert True in wider  # Tukey's interval is among those that count


def test_p_is_below_the_level_where_the_interval_leaves_out_zero() -> None:
    outcomes = set()
    for seed in range(25):
        losses = _draw_arms(3, 4, seed)
        losses[0] -= 2.5
        for difference in family_differences(_by_seed(losses), [(0, 1), (0, 2), (2, 1)]).values():
            excluded = abs(difference.mean) > difference.half
            assert (difference.p < LEVEL) is excluded
            outcomes.add(excluded)
    assert outcomes == {True, False}


def test_a_difference_changes_its_sign_with_the_order_of_the_pair() -> None:
    arms = _by_seed(_draw_arms(3, 5))
    found = family_differences(arms, [(0, 2), (2, 0)])
    assert found[0, 2].mean == -found[2, 0].mean == paired_difference(arms[0], arms[2]).mean
    assert found[0, 2].p == found[2, 0].p


def test_moderation_follows_how_far_the_variances_agree() -> None:
    """With equal true variances the prior takes over; with very unlike ones each keeps its own."""
    random, freedom = np.random.default_rng(1), np.array(8.0)
    chi = random.chisquare(8, 2000) / 8
    equal = moderate_variances(Variances(3 * chi, freedom), np.array([math.inf]))
    assert equal.variance == pytest.approx(np.full(2000, 3.0), rel=0.2)
    assert equal.freedom.min() > 100
    unlike = np.exp(random.normal(0, 4, 2000)) * chi
    own = moderate_variances(Variances(unlike, freedom), np.array([math.inf]))
    assert np.median(np.abs(own.variance / unlike - 1)) < 0.1
    assert own.freedom.max() < 9


def test_moderation_recovers_the_prior_that_variances_were_drawn_from() -> None:
    """Smyth's model: true variances s0² d0 / χ²(d0)."""
    random, prior_freedom, prior = np.random.default_rng(2), 6.0, 0.5
    true = prior * prior_freedom / random.chisquare(prior_freedom, 50_000)
    sample = true * random.chisquare(4, 50_000) / 4
    moderated = moderate_variances(Variances(sample, np.array(4.0)), np.array([math.inf]))
    counted = prior_freedom / 2  # half the prior's weight
    assert moderated.freedom[0] - 4 == pytest.approx(counted, rel=0.05)
    expected = (counted * prior + 4 * sample) / (counted + 4)
    assert moderated.variance == pytest.approx(expected, rel=0.03)


def test_a_noisy_arm_leaves_the_intervals_of_the_others_nearly_as_they_are() -> None:
    """Post-LN in which one run of five learns nothing, beside arms that are equal to 0.01."""
    random = np.random.default_rng(6)
    quiet = random.normal([[2.0], [2.1], [2.2]], 0.01, (3, 5))
    noisy = np.array([2.3, 3.3, 2.32, 2.31, 2.29])
    alone = family_differences(_by_seed(quiet), [(0, 1)])[0, 1]
    beside = family_differences(_by_seed(np.vstack([quiet, noisy])), [(0, 1), (0, 3)])
    assert beside[0, 1].half < 3 * alone.half
    assert beside[0, 1].outcome_within() == "lower"
    assert beside[0, 3].outcome_within() == "cannot tell"


def test_equal_arms_say_nothing_about_the_noise_of_others() -> None:
    losses = _draw_arms(3, 5)
    with_copy = [*_by_seed(losses), dict(enumerate(losses[0].tolist()))]
    found = family_differences(with_copy, [(0, 3), (0, 1)])
    assert (found[0, 3].mean, found[0, 3].half, found[0, 3].p) == (0, 0, 1)
    assert found[0, 1].half > 0


def test_unequal_seeds_fall_back_to_welch_with_every_pair_counted() -> None:
    random = np.random.default_rng(3)
    arms = [
        {seed + 10 * arm: float(x) for seed, x in enumerate(random.normal(arm, 1, 4))}
        for arm in range(3)
    ]
    found = family_differences(arms, [(0, 1)])[0, 1]
    welch = stats.ttest_ind(list(arms[0].values()), list(arms[1].values()), equal_var=False)
    assert found.p == pytest.approx(min(1, 3 * welch.pvalue))


def test_one_common_seed_of_several_falls_back_to_welch() -> None:
    arms = [{0: 1.0, 1: 1.3, 2: 1.1}, {2: 1.9, 3: 2.2, 4: 2.0}]
    difference = family_differences(arms, [(0, 1)])[0, 1]
    welch = stats.ttest_ind(list(arms[0].values()), list(arms[1].values()), equal_var=False)
    assert difference.pairs == 0
    assert difference.p == pytest.approx(welch.pvalue)


def test_one_seed_has_a_mean_and_nothing_else() -> None:
    found = family_differences([{0: 1.0}, {0: 2.0}, {0: 4.0}], [(0, 1)])[0, 1]
    assert found.mean == -1
    assert math.isnan(found.half)
    assert math.isnan(found.p)


def test_the_simulation_decides_as_studies_are_decided() -> None:
    random = np.random.default_rng(4)
    for studies, arms, seeds in ((12, 2, 3), (6, 3, 4), (3, 5, 5)):
        pairs = list(combinations(range(arms), 2))
        losses = draw_losses(random, lambda _, normal: normal, (studies, arms, seeds))
        losses[:, 0] -= 1.5
        reported = report_differences(losses)[0]
        assert 0 < reported.mean() < 1
        for study, expected in zip(losses, reported, strict=True):
            found = family_differences(_by_seed(study), pairs)
            assert [found[pair].p < LEVEL for pair in pairs] == expected.tolist()


@pytest.mark.parametrize("arms", [2, 4, 8])
def test_few_studies_without_a_difference_report_one(arms: int) -> None:
    losses = draw_losses(np.random.default_rng(5), lambda _, normal: normal, (4000, arms, 5))
    reported, lowest = report_differences(losses)
    false = (reported & lowest).any(-1).mean()
    assert 0.02 < false < 0.06  # 0.05 ± three standard errors above


def test_the_inverse_of_trigamma_is_exact_over_fourteen_decades() -> None:
    from normlab.analysis.family import _inverse_trigamma

    values = np.geomspace(1e-8, 1e6, 60)
    assert polygamma(1, _inverse_trigamma(values)) == pytest.approx(values, rel=1e-9)


def test_unequal_seeds_without_spread_have_an_interval_of_no_width() -> None:
    arms = [{0: 1.0, 1: 1.0}, {2: 1.5, 3: 1.5}, {4: 1.2, 5: 1.3}]
    difference = family_differences(arms, [(0, 1)])[0, 1]
    assert (difference.mean, difference.half, difference.p) == (-0.5, 0.0, 0.0)
    assert difference.detectable == 0.0
    assert difference.outcome_within() == "lower"
