"""What theory says of Linear and ReLU layers at initialization: signal, information, gradient.

A wide layer with random weights gives pre-activations of variance k = w·E[a²] + b, where
w = n·Var W and b = Var B at width n, and the ReLU E[a²] = k/2 (1502.01852). The weights' part of
them is Gaussian, the biases' uniform as PyTorch draws them, which E[a] and so the standard
deviation can tell: biases are most of what is left deep down. Two inputs at an angle θ,
cos θ = (k − v)/k where v is what differs, come out with E[a a'] = k(sin θ + (π − θ) cos θ)/2π
(1606.05340; exact for Gaussian biases). A norm before the ReLU that makes unit RMS puts 1 in the
place of k, and leaves θ as it is.
"""

import math
from dataclasses import dataclass

# Norms whose output has unit RMS as they start (l1: of a Gaussian), so that theory covers them.
UNIT_RMS_NORMS = ("rmsnorm", "layernorm", "layernorm_nobias", "gemma_rmsnorm", "scalenorm", "l1")


@dataclass(frozen=True)
class LayerSignal:
    """RMS and standard deviation of activations, and the share of variance that inputs cause."""

    rms: float
    std: float
    share: float


def expected_signal(
    depth: int, weight: float, bias: float, normalized: bool = False
) -> list[LayerSignal]:
    """The input, N(0, 1), and every layer after its ReLU.

    `weight` is n·Var W, `bias` Var B; `normalized`: a norm of unit RMS precedes each ReLU.
    """
    layers = [LayerSignal(1.0, 1.0, 1.0)]
    square, varying = 1.0, 1.0
    for _ in range(depth):
        square_before, before = square, weight * square + bias
        scale = 1.0 if normalized else before
        square = scale / 2
        # Of the pre-activations 1 − cos θ = v/k.
        varying = square * _remaining_difference(weight * varying / before)
        # E[a²] − E[a]²; a norm divides E[a] by √k.
        variance = square - scale / before * _rectified_mean(weight * square_before, bias) ** 2
        layers.append(LayerSignal(math.sqrt(square), math.sqrt(variance), varying / variance))
    return layers


def expected_gradient(
    depth: int, weight: float, bias: float, normalized: bool = False
) -> list[float]:
    """The gradient's norm at the input and after every layer, over that at the last.

    Backwards a layer multiplies the square by w/2; a norm before the ReLU divides by k (the one or
    two directions that it removes are not worth counting among n).
    """
    gradient = [1.0]
    for layer in reversed(expected_signal(depth, weight, bias, normalized)[:-1]):
        before = weight * layer.rms**2 + bias
        factor = math.sqrt(weight / 2 / (before if normalized else 1.0))
        gradient.append(gradient[-1] * factor)
    return gradient[::-1]


def rms_floor(width: int) -> float:
    """The RMS that PyTorch's biases hold up at any depth: E[a²] = E[a²]/6 + 1/6n, so 1/√(5n)."""
    return 1 / math.sqrt(5 * width)


def _rectified_mean(gaussian: float, uniform: float) -> float:
    """E[max(0, x)] for the sum of a Gaussian and a uniform number of these variances."""
    # Uniform from −c to c has the variance c²/3.
    s, c = math.sqrt(gaussian), math.sqrt(3 * uniform)
    if c == 0:
        return s / math.sqrt(2 * math.pi)
    at_edge = math.exp(-((c / s) ** 2) / 2) / math.sqrt(2 * math.pi)
    return ((c * c + s * s) * math.erf(c / s / math.sqrt(2)) + 2 * s * c * at_edge) / (4 * c)


def _remaining_difference(difference: float) -> float:
    """1 − (sin θ + (π − θ) cos θ)/π where 1 − cos θ is `difference`, also where that is tiny."""
    angle = 2 * math.asin(math.sqrt(min(difference, 2.0) / 2))
    if angle < 1e-3:  # sin θ − θ cos θ, which would be a difference of equal numbers
        rest = angle**3 / 3 - angle**5 / 30
    else:
        rest = math.sin(angle) - angle * math.cos(angle)
    return difference - rest / math.pi
