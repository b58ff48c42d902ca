"""LayerNorm from scratch: population variance, ε inside the root."""

import torch
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """(x − mean(x)) / √(var(x) + eps) · gain + bias."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        wide = x.float()
        centred = wide - wide.mean(-1, keepdim=True)
        variance = centred.pow(2).mean(-1, keepdim=True)
        y = centred / torch.sqrt(variance + self.eps) * self.gain.float() + self.bias.float()
        return y.type_as(x)
