"""Exercise layernorm_backward: the gradients of LayerNorm, without autograd.

    y = gain · x̂ + bias,   x̂ = (x − mean(x)) / σ,   σ = √(var(x) + ε)

A loss L depends on y, and output_gradient is ∂L/∂y. Compute ∂L/∂x, ∂L/∂gain and ∂L/∂bias. Mean and
variance depend on x too: the gradient of x has three terms.

Check with: normlab-learn check outputs/learn/layernorm_backward.py
"""

import torch
from torch import Tensor


def layernorm_backward(
    output_gradient: Tensor, x: Tensor, gain: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, gain and bias.

    output_gradient and x are (batch, time, width), gain is (width,); the result has the shapes
    (batch, time, width), (width,) and (width,).
    """
    raise NotImplementedError
