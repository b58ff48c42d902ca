"""Exercise beat_rmsnorm: a norm that treats outliers better than RMSNorm.

Trained models have a few features that are very large in every token (Dettmers et al. 2022, arXiv
2208.07339). RMSNorm divides a token by the root of its mean square. If one feature of 256 is 1000
and the others are N(0, 1), then the others leave with a median of |y| of about 0.01: they are
nearly gone. Write a norm that keeps them, and that is still a norm:

- the median of |y| for such a token is at least 5 times that of RMSNorm;
- for tokens of N(0, 1) the RMS of the output is between 0.5 and 2;
- N(cx) = N(x) for c > 0, up to ε;
- each token by itself, finite for a token of zeros, correct gradients.

The measurements are those of scripts/card.py.
Check with: normlab-learn check outputs/learn/beat_rmsnorm.py
"""

import torch
from torch import Tensor, nn


class MyNorm(nn.Module):
    """Your norm."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        raise NotImplementedError
