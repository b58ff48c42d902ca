"""What theory says of Linear and ReLU, against values worked out elsewhere and by integration."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from normlab.apps.experiments.signal_theory import (
    _remaining_difference,
    expected_gradient,
    expected_signal,
    rms_floor,
)

WIDTH = 512
# PyTorch's nn.Linear: U(±1/√n) for weights and biases, both of variance 1/3n.
PYTORCH_WEIGHT = 1 / 3
STACK = (PYTORCH_WEIGHT, PYTORCH_WEIGHT / WIDTH)


def test_the_standard_deviations_of_the_first_eight_layers() -> None:
    found = [layer.std for layer in expected_signal(8, *STACK)[1:]]
    listed = [0.3374, 0.1385, 0.0585, 0.0281, 0.0186, 0.0164, 0.0160, 0.0159]
    assert found == pytest.approx(listed, abs=1.01e-4)


def test_the_biases_hold_up_a_floor_that_knows_no_depth() -> None:
    eight, eighty = (expected_signal(depth, *STACK)[-1] for depth in (8, 80))
    assert eighty.rms == pytest.approx(rms_floor(WIDTH)) == pytest.approx(1 / math.sqrt(5 * 512))
    assert eight.rms == pytest.approx(rms_floor(WIDTH), rel=2e-3)
    assert eight.std == pytest.approx(0.0159, abs=1e-4)


def test_without_biases_the_rms_falls_by_a_sixths_root_for_ever() -> None:
    rms = [layer.rms for layer in expected_signal(30, PYTORCH_WEIGHT, 0.0)]
    assert np.divide(rms[1:], rms[:-1]) == pytest.approx(1 / math.sqrt(6))
    assert expected_signal(8, PYTORCH_WEIGHT, 0.0)[-1].std == pytest.approx(6.4e-4, rel=0.01)


def test_kaimings_weights_keep_the_standard_deviation() -> None:
    assert [layer.std for layer in expected_signal(20, 2.0, 0.0)[1:]] == pytest.approx(
        [math.sqrt(1 - 1 / math.pi)] * 20
    )


def test_the_gradient_falls_by_the_same_root_with_biases_and_without() -> None:
    for bias in (0.0, PYTORCH_WEIGHT / WIDTH):
        assert expected_gradient(8, PYTORCH_WEIGHT, bias) == pytest.approx(
            [6 ** (-k / 2) for k in range(8, -1, -1)]
        )
    assert expected_gradient(8, *STACK)[0] == pytest.approx(7.7e-4, rel=0.01)
    assert expected_gradient(20, 2.0, 0.0) == pytest.approx([1.0] * 21)


def test_little_of_the_eighth_layers_variance_depends_on_the_input() -> None:
    assert expected_signal(8, *STACK)[-1].share == pytest.approx(6e-4, rel=0.2)
    assert expected_signal(40, *STACK)[-1].share < 1e-25


def test_a_norm_keeps_signal_and_gradient_and_what_an_angle_leaves_of_the_input() -> None:
    normed, kaiming = expected_signal(8, *STACK, normalized=True), expected_signal(8, 2.0, 0.0)
    assert [layer.rms for layer in normed[1:]] == pytest.approx([math.sqrt(0.5)] * 8)
    assert normed[-1].share == pytest.approx(kaiming[-1].share, rel=0.05)
    assert expected_gradient(8, *STACK, normalized=True)[1:] == pytest.approx([1.0] * 8, rel=0.02)


def test_the_mean_of_a_rectified_sum_is_its_integral() -> None:
    """Uniform biases as large as the Gaussian part, by quadrature over the bias."""
    weight, bias = 0.4, 0.3
    s, c = math.sqrt(weight), math.sqrt(3 * bias)

    def rectified(u: float) -> float:
        return float(u * stats.norm.cdf(u / s) + s * stats.norm.pdf(u / s))

    mean = integrate.quad(rectified, -c, c)[0] / (2 * c)
    (layer,) = expected_signal(1, weight, bias)[1:]
    assert layer.rms == pytest.approx(math.sqrt((weight + bias) / 2))
    assert layer.std == pytest.approx(math.sqrt((weight + bias) / 2 - mean**2))


@pytest.mark.parametrize("apart", [1e-14, 1e-8, 0.01, 0.3, 1.0])
def test_what_two_inputs_keep_apart_is_the_integral_over_their_plane(apart: float) -> None:
    """E[max(0, u) max(0, v)] for unit Gaussians u, v that correlate by 1 − apart."""
    turn = math.acos(1 - apart) if apart > 1e-6 else math.sqrt(2 * apart)
    angles = np.linspace(0, 2 * math.pi, 200_001)
    u, v = np.maximum(np.cos(angles), 0), np.maximum(np.cos(angles - turn), 0)
    # E over the plane: radius² has mean 2, and E[u²] = ½; half the mean square difference.
    difference = np.trapezoid((u - v) ** 2, angles) / (2 * math.pi)
    assert _remaining_difference(apart) == pytest.approx(difference * 2, rel=1e-3)
