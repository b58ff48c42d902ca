"""Medians, ratios and their spread, against numbers worked out by hand and by numpy."""

import math

import numpy as np
import pytest

from normlab.analysis.formatting import format_number, format_timing
from normlab.analysis.statistics import Spread, quartile_spread, ratio_spread


def test_the_spread_is_the_median_and_the_quartiles() -> None:
    assert quartile_spread([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0, 5)


def test_quartiles_are_numpys() -> None:
    values = [3.1, 0.2, 7.7, 4.0, 4.1, 9.3]
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    found = quartile_spread(values)
    assert (found.low, found.median, found.high) == pytest.approx((low, median, high))


def test_one_value_has_no_width_and_none_no_spread() -> None:
    assert quartile_spread([2.5]) == Spread(2.5, 2.5, 2.5, 1)
    with pytest.raises(ValueError, match="without values"):
        quartile_spread([])


def test_one_slow_round_does_not_move_the_median() -> None:
    assert quartile_spread([10.0, 10.0, 10.0, 10.0, 900.0]).median == 10.0


def test_a_ratio_pairs_what_was_measured_in_the_same_round() -> None:
    # The machine was three times slower in the second round; the ratio is 2 in every one.
    assert ratio_spread([2.0, 6.0, 4.0], [1.0, 3.0, 2.0]) == Spread(2.0, 2.0, 2.0, 3)
    # Which is not the ratio of the medians.
    assert ratio_spread([4.0, 1.0, 2.0], [1.0, 2.0, 4.0]).median == 0.5


def test_a_ratio_needs_a_partner_for_every_value() -> None:
    with pytest.raises(ValueError, match=r"longer|shorter"):
        ratio_spread([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (1e-310, "0"),
        (1.234e-5, "1.2e-5"),
        (2e-5, "2e-5"),
        (0.01234, "0.0123"),
        (-2.5, "-2.50"),
        (0.5, "0.500"),
        (9.996, "10.0"),
        (16.74, "16.7"),
        (25123, "25,123"),
        (2.56e7, "2.6e7"),
        (-math.inf, "-inf"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_numbers_are_short(value: float | None, said: str) -> None:
    assert format_number(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (0.01234, "0.012"),
        (-2.5, "-2.50"),
        (0.5, "0.50"),
        (16.74, "16.7"),
        (25123, "25,123"),
    ],
)
def test_times_and_ratios_are_rounded(value: float, said: str) -> None:
    assert format_timing(value) == said


def test_a_spread_says_its_quartiles_unless_it_has_none() -> None:
    assert str(quartile_spread([1.0, 2.0, 3.0])) == "2.00 (1.50–2.50)"
    assert str(quartile_spread([2.0])) == "2.00"
