"""A norm's gain and bias in the matrix that follows: columns times gain, and W · bias."""

from torch import Tensor


def fold_gain(gain: Tensor, bias: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The new weight (rows, width) and the new bias (rows,)."""
    return weight * gain, weight @ bias
