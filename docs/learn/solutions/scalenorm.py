"""ScaleNorm from scratch: one gain, the Euclidean length, ε as its lower limit."""

import torch
from torch import Tensor, nn


class ScaleNorm(nn.Module):
    """g · x / max(‖x‖, eps)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.tensor(float(width)).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        wide = x.float()
        length = wide.norm(dim=-1, keepdim=True).clamp(min=self.eps)
        return (self.gain.float() * wide / length).type_as(x)
