import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from normlab.analysis.statistics import mean_interval, running_mean, smoothing_window

losses = st.floats(min_value=0, max_value=20, allow_nan=False)


@given(st.lists(losses, min_size=2, max_size=12))
def test_the_interval_is_that_of_student(values: list[float]) -> None:
    mean, half = mean_interval(values)
    assert mean == pytest.approx(np.mean(values), abs=1e-12)
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values) or 1e-300
    )
    assert half == pytest.approx((high - low) / 2, rel=1e-6, abs=1e-9)


def test_three_seeds_by_hand() -> None:
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)  # t(0.975, 2) = 4.30265


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    mean, half = mean_interval([1.5])
    assert mean == 1.5
    assert math.isnan(half)
    assert all(map(math.isnan, mean_interval([])))


@given(st.integers(1, 60), st.integers(0, 15), st.floats(-3, 3), st.floats(-3, 3))
def test_smoothing_leaves_a_straight_line_where_it_is(
    count: int, reach: int, slope: float, offset: float
) -> None:
    line = offset + slope * np.arange(count)
    np.testing.assert_allclose(running_mean(line, 2 * reach + 1), line, atol=1e-9)


def test_smoothing_is_the_mean_of_the_window_and_measured_at_the_ends() -> None:
    values = np.random.default_rng(0).normal(size=50)
    smooth = running_mean(values, 7)
    for at in range(3, 47):
        assert smooth[at] == pytest.approx(values[at - 3 : at + 4].mean())
    assert smooth[1] == pytest.approx(values[:3].mean())
    assert (smooth[0], smooth[-1]) == (pytest.approx(values[0]), pytest.approx(values[-1]))


@pytest.mark.parametrize(("count", "window"), [(1, 1), (79, 1), (80, 3), (500, 13), (2000, 51)])
def test_the_window_is_odd_and_about_a_fortieth(count: int, window: int) -> None:
    assert smoothing_window(count) == window
