"""Exercise layernorm: LayerNorm from scratch (Ba, Kiros and Hinton 2016, arXiv 1607.06450).

    LayerNorm(x) = (x − mean(x)) / √(var(x) + ε) · gain + bias

Mean and variance are over the features of one token, the last dimension. The variance is that of
the population: the sum of squares is divided by n, not by n − 1. The gain starts at 1, the bias
at 0; both have one number per feature and are learned. In fp32 the output must be right for tokens
with a large mean as well, 1000 for a standard deviation of 1.

In half precision, compute in fp32. The output has the dtype of x, also where gain and bias are
in fp32.

Do not use torch.nn.LayerNorm or F.layer_norm.
Check with: normlab-learn check outputs/learn/layernorm.py
"""

import torch
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """(x − mean(x)) / √(var(x) + eps) · gain + bias."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        # Gain and bias belong here.

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        raise NotImplementedError
