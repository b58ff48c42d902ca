"""Differences, their correction and the seeds they need, against scipy and tables."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from normlab.analysis.statistics import (
    Difference,
    adjust_by_holm,
    paired_difference,
    paired_test_power,
    seeds_needed,
    unpaired_difference,
)

losses = st.floats(min_value=0, max_value=20, allow_nan=False).map(lambda x: round(x, 6))
pairs = st.lists(st.tuples(losses, losses), min_size=2, max_size=9)

# Final losses of two arms over seeds 0–4; what scipy gives for them is beside each test.
LOW = {0: 1.8811, 1: 1.8746, 2: 1.8902, 3: 1.8790, 4: 1.8855}
HIGH = {0: 1.9030, 1: 1.9058, 2: 1.9074, 3: 1.9011, 4: 1.9040}


@given(pairs)
def test_a_paired_difference_is_that_of_scipy(both: list[tuple[float, float]]) -> None:
    a, b = (dict(enumerate(side)) for side in zip(*both, strict=True))
    found = paired_difference(a, b)
    differences = np.array(list(a.values())) - np.array(list(b.values()))
    assert found.mean == pytest.approx(differences.mean(), abs=1e-12)
    assert found.pairs == len(both)
    if np.ptp(differences) < 1e-9:  # scipy divides by it
        return
    oracle = stats.ttest_rel(list(a.values()), list(b.values()))
    low, high = oracle.confidence_interval(0.95)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-6, abs=1e-15)
    assert found.half == pytest.approx((high - low) / 2, rel=1e-6)


def test_five_seeds_by_hand() -> None:
    found = paired_difference(LOW, HIGH)
    assert found.mean == pytest.approx(-0.022180)
    assert found.p == pytest.approx(8.2152e-4, rel=1e-4)  # t = −9.0630 with 4 degrees of freedom
    assert found.half == pytest.approx(0.0067949, rel=1e-4)
    assert found.outcome == "lower"
    assert paired_difference(HIGH, LOW).outcome == "higher"


def test_pairs_are_equal_seeds_in_whatever_order_and_whatever_else_there_is() -> None:
    backwards = dict(reversed(HIGH.items()))
    assert paired_difference(LOW | {7: 1.0}, backwards | {9: 9.0}) == paired_difference(LOW, HIGH)


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_no_pair(lost: float) -> None:
    a = LOW | {4: lost}
    b = {seed: loss for seed, loss in HIGH.items() if seed != 4}
    assert paired_difference(a, HIGH) == paired_difference(LOW, b)
    assert paired_difference(a, HIGH).pairs == 4


def test_one_pair_has_no_interval_and_none_has_nothing() -> None:
    one = paired_difference({0: 1.5}, {0: 1.75, 1: 2.0})
    assert (one.mean, one.pairs, one.outcome) == (-0.25, 1, "cannot tell")
    assert all(map(math.isnan, (one.half, one.p, one.spread)))
    none = paired_difference({0: 1.5}, {1: 1.75})
    assert none.pairs == 0
    assert all(map(math.isnan, (none.mean, none.half, none.p)))
    assert none.outcome == "cannot tell"


def test_seeds_that_change_nothing_leave_no_doubt() -> None:
    same = paired_difference({0: 1.5, 1: 2.5}, {0: 1.5, 1: 2.5})
    assert (same.mean, same.half, same.p, same.outcome) == (0, 0, 1, "cannot tell")
    shifted = paired_difference({0: 1.5, 1: 2.5}, {0: 1.75, 1: 2.75})
    assert (shifted.mean, shifted.half, shifted.p, shifted.outcome) == (-0.25, 0, 0, "lower")


@given(st.lists(losses, min_size=2, max_size=7), st.lists(losses, min_size=2, max_size=7))
def test_a_difference_over_unequal_seeds_is_welchs(a: list[float], b: list[float]) -> None:
    found = unpaired_difference(a, b)
    assert found.mean == pytest.approx(np.mean(a) - np.mean(b), abs=1e-12)
    assert found.pairs == 0
    if np.ptp(a) + np.ptp(b) < 1e-6:
        return
    oracle = stats.ttest_ind(a, b, equal_var=False)
    low, high = oracle.confidence_interval(0.95)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-6, abs=1e-15)
    assert found.half == pytest.approx((high - low) / 2, rel=1e-6)


def test_unequal_seeds_without_spread_or_without_a_second_one() -> None:
    assert unpaired_difference([1.0, 1.0], [2.0, 2.0]).outcome == "lower"
    assert unpaired_difference([1.0, 1.0], [1.0, 1.0]).outcome == "cannot tell"
    alone = unpaired_difference([1.0, math.nan], [2.0, 3.0])
    assert alone.mean == -1.5
    assert alone.outcome == "cannot tell"
    assert math.isnan(unpaired_difference([], [1.0]).mean)


def test_holm_by_hand() -> None:
    # Sorted 0.01 0.02 0.03 0.04 times 4 3 2 1 is 0.04 0.06 0.06 0.04, and never falls.
    assert adjust_by_holm([0.02, 0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.06, 0.04, 0.06])
    assert adjust_by_holm([0.6, 0.7]) == [1.0, 1.0]
    assert adjust_by_holm([]) == []
    assert adjust_by_holm([0.03]) == [0.03]


def test_a_comparison_without_a_p_is_not_counted() -> None:
    adjusted = adjust_by_holm([0.02, math.nan, 0.03])
    assert (adjusted[0], adjusted[2]) == pytest.approx((0.04, 0.04))
    assert math.isnan(adjusted[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    adjusted = adjust_by_holm(p_values)
    for p, mine in zip(p_values, adjusted, strict=True):
        assert p <= mine <= min(1.0, len(p_values) * p) or math.isclose(p, mine)
    assert sorted(range(len(p_values)), key=lambda at: (p_values[at], at)) == sorted(
        range(len(p_values)), key=lambda at: (adjusted[at], p_values[at], at)
    )


# Cohen's effect sizes 0.2, 0.5, 0.8 and 1: the tables of paired t-tests give these.
@pytest.mark.parametrize(("effect", "needed"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_the_pairs_that_are_needed_are_those_of_the_tables(effect: float, needed: int) -> None:
    assert seeds_needed(effect, 1.0) == needed
    assert seeds_needed(-effect / 100, 0.01) == needed


@given(st.floats(0.05, 8), st.sampled_from([0.5, 0.8, 0.9]))
def test_one_pair_fewer_would_not_do(effect: float, power: float) -> None:
    needed = seeds_needed(effect, 1.0, power)
    assert needed is not None
    assert paired_test_power(effect, 1.0, needed) >= power
    assert needed == 2 or paired_test_power(effect, 1.0, needed - 1) < power


@pytest.mark.parametrize(("effect", "count"), [(0.5, 12), (1.5, 5), (3.0, 2)])
def test_power_is_that_of_the_noncentral_t(effect: float, count: int) -> None:
    critical, shift = stats.t.ppf(0.975, count - 1), effect * math.sqrt(count)
    law = stats.nct(count - 1, shift)
    assert paired_test_power(effect, 1.0, count) == pytest.approx(
        law.sf(critical) + law.cdf(-critical)
    )


def test_where_no_number_of_pairs_is_known() -> None:
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.1, math.nan) is None
    assert seeds_needed(0.001, 1.0) is None
    assert seeds_needed(0.1, 0.0) == 2


def test_an_outcome_needs_the_adjusted_p() -> None:
    found = Difference(-0.02, 0.015, 0.02, 3, 0.006)
    assert found.outcome == "lower"
    assert found.outcome_at(0.06) == "cannot tell"
    assert found.outcome_at(math.nan) == "cannot tell"
