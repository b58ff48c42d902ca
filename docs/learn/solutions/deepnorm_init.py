"""DeepNorm's constants for a decoder, and the matrices that begin smaller."""

from torch import Tensor

SCALED = ("value", "out", "up", "down")


def deepnorm_constants(depth: int) -> tuple[float, float]:
    """α and β of a decoder of `depth` blocks."""
    return (2 * depth) ** 0.25, (8 * depth) ** -0.25


def scale_weights(weights: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The matrices as DeepNorm begins, in a new dict."""
    _, beta = deepnorm_constants(depth)
    return {name: beta * w if name in SCALED else w for name, w in weights.items()}
