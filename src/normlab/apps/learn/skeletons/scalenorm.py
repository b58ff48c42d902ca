"""Exercise scalenorm: ScaleNorm from scratch (Nguyen and Salazar 2019, arXiv 1910.05895).

    ScaleNorm(x) = g · x / max(‖x‖, ε)

‖x‖ is the Euclidean length of one token, the root of the sum of squares over its features. g is ONE
learned number for all features; it starts at √width, so that a token leaves with an RMS of 1.

In half precision, compute in fp32. The output has the dtype of x, also where the gain is in fp32.

Check with: normlab-learn check outputs/learn/scalenorm.py
"""

import torch
from torch import Tensor, nn


class ScaleNorm(nn.Module):
    """g · x / max(‖x‖, eps)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        # The gain belongs here.

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        raise NotImplementedError
