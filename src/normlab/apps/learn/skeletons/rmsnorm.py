"""Exercise rmsnorm: RMSNorm from scratch (Zhang and Sennrich 2019, arXiv 1910.07467).

    RMSNorm(x) = x / √(mean(x²) + ε) · gain

The mean is over the features of one token, the last dimension. The gain has one number per feature
and starts at 1; it is learned, so it is an nn.Parameter.

In half precision, compute as Llama does: normalize in fp32, cast to the dtype of x, then multiply
by the gain. The output has the dtype of x, also where the gain is in fp32.

Do not use torch.nn.RMSNorm or F.rms_norm. Check with: normlab-learn check outputs/learn/rmsnorm.py
"""

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / √(mean(x²) + eps) · gain."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        # The gain belongs here.

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        raise NotImplementedError
