"""Norms that divide a token's vector by a statistic of it. x has shape (…, width)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.norms.precision import widened


class LayerNorm(nn.Module):
    """(x − mean x) / √(var x + eps) · gain + bias, with the population variance (1607.06450)."""

    def __init__(self, width: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.eps = _not_negative(eps)
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        wide = widened(x)
        bias = None if self.bias is None else self.bias.to(wide.dtype)
        gain = self.gain.to(wide.dtype)
        return F.layer_norm(wide, gain.shape, gain, bias, self.eps).to(x.dtype)


class RMSNorm(nn.Module):
    """x / √(mean x² + eps) · gain (1910.07467)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = _not_negative(eps)
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        wide = widened(x)
        gain = self.gain.to(wide.dtype)
        return F.rms_norm(wide, gain.shape, gain, self.eps).to(x.dtype)


class PartialRMSNorm(nn.Module):
    """x / √(mean of the first part of x² + eps) · gain (1910.07467, pRMSNorm)."""

    def __init__(self, width: int, part: float = 0.0625, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = _not_negative(eps)
        self.first = int(width * part)
        if not 1 <= self.first <= width:
            raise ValueError(
                f"part={part} of {width} features is {self.first}, it must be 1 or more"
            )
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        wide = widened(x)
        mean_square = wide[..., : self.first].square().mean(-1, keepdim=True)
        return (wide * torch.rsqrt(mean_square + self.eps) * self.gain).to(x.dtype)


class ScaleNorm(nn.Module):
    """g · x / max(‖x‖, eps), with one g that starts at √width (1910.05895)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = _not_negative(eps)
        self.gain = nn.Parameter(torch.tensor(float(width)).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        return (F.normalize(widened(x), dim=-1, eps=self.eps) * self.gain).to(x.dtype)


def _not_negative(eps: float) -> float:
    if not eps >= 0:
        raise ValueError(f"eps={eps} is not allowed, it must be 0 or more")
    return eps
