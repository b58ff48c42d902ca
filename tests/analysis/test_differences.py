"""Differences and what a study could have shown, against scipy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from normlab.analysis.statistics import (
    Difference,
    paired_difference,
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
    assert found.outcome_within() == "lower"
    assert paired_difference(HIGH, LOW).outcome_within() == "higher"


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
    assert (one.mean, one.pairs, one.outcome_within()) == (-0.25, 1, "cannot tell")
    assert all(map(math.isnan, (one.half, one.p, one.spread)))
    none = paired_difference({0: 1.5}, {1: 1.75})
    assert none.pairs == 0
    assert all(map(math.isnan, (none.mean, none.half, none.p)))
    assert none.outcome_within() == "cannot tell"


def test_seeds_that_change_nothing_leave_no_doubt() -> None:
    same = paired_difference({0: 1.5, 1: 2.5}, {0: 1.5, 1: 2.5})
    assert (same.mean, same.half, same.p, same.outcome_within()) == (0, 0, 1, "cannot tell")
    shifted = paired_difference({0: 1.5, 1: 2.5}, {0: 1.75, 1: 2.75})
    assert (shifted.mean, shifted.half, shifted.p, shifted.outcome_within()) == (
        -0.25,
        0,
        0,
        "lower",
    )


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
    assert unpaired_difference([1.0, 1.0], [2.0, 2.0]).outcome_within() == "lower"
    assert unpaired_difference([1.0, 1.0], [1.0, 1.0]).outcome_within() == "cannot tell"
    alone = unpaired_difference([1.0, math.nan], [2.0, 3.0])
    assert alone.mean == -1.5
    assert alone.outcome_within() == "cannot tell"
    assert math.isnan(unpaired_difference([], [1.0]).mean)


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_the_detectable_difference_is_found_in_four_of_five_studies(seeds: int) -> None:
    """Over simulated studies of that true difference, with their own detectable difference."""
    random, spread, found = np.random.default_rng(0), 0.3, []
    for _ in range(400):
        losses = random.normal(0, spread, seeds)
        difference = paired_difference(dict(enumerate(losses)), dict.fromkeys(range(seeds), 0.0))
        shifted = losses + difference.detectable
        found.append(
            paired_difference(dict(enumerate(shifted)), dict.fromkeys(range(seeds), 0.0)).p < 0.05
        )
    assert 0.75 < np.mean(found) < 0.85


def test_an_outcome_needs_the_p_and_equality_the_margin() -> None:
    found = Difference(-0.02, 0.015, 0.02, 3, 0.006)
    assert found.outcome_within() == "lower"
    assert found.outcome_within(0.1) == "lower"
    unclear = Difference(-0.002, 0.005, 0.2, 3, 0.006)
    assert unclear.outcome_within() == "cannot tell"
    assert unclear.outcome_within(0.0069) == "cannot tell"
    assert unclear.outcome_within(0.007) == "the same"
    assert Difference(-0.002, math.nan, math.nan, 1, math.nan).outcome_within(1) == "cannot tell"
