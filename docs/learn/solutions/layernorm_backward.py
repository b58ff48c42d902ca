"""The gradients of LayerNorm: directly, through the mean, and through the variance."""

import torch
from torch import Tensor


def layernorm_backward(
    output_gradient: Tensor, x: Tensor, gain: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, gain and bias."""
    centred = x - x.mean(-1, keepdim=True)
    deviation = torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + eps)
    normalized = centred / deviation
    g = output_gradient * gain
    through_mean = g.mean(-1, keepdim=True)
    through_variance = normalized * (g * normalized).mean(-1, keepdim=True)
    x_gradient = (g - through_mean - through_variance) / deviation
    gain_gradient = (output_gradient * normalized).sum((0, 1))
    return x_gradient, gain_gradient, output_gradient.sum((0, 1))
