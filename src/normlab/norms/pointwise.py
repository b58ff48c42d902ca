"""Functions of each feature that stand where a norm would. x has shape (…, width)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.norms.fused import formula
from normlab.norms.precision import widened


class DynamicTanh(nn.Module):
    """gain · tanh(alpha · x) + bias, with one alpha for all features (2503.10622)."""

    def __init__(self, width: int, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self._fused = formula(
            width,
            "gain * tanh(alpha * x) + bias",
            alpha="scalar",
            gain="feature",
            bias="feature",
        )

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        return self._fused(self._torch, x, self.alpha, self.gain, self.bias)

    def _torch(self, x: Tensor, alpha: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        return (torch.tanh(alpha * widened(x)) * gain + bias).to(x.dtype)


class GradientPreservingScale(nn.Module):
    """x − SiLU(g) · stopgrad(x): damps a stream forward, not its gradient (2506.22049, GPAS)."""

    def __init__(self, width: int, gate: float = 0.0) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.tensor(float(gate)))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        return (x - F.silu(self.gate) * x.detach()).to(x.dtype)
