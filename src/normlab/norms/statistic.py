"""Norms that divide a token's vector by a statistic of it. x has shape (…, width)."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.norms.fused import Fused, compute, formula
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
        bias = () if self.bias is None else (self.bias,)
        settings = (x.shape[-1], self.eps, self.bias is not None)
        return compute(_layer_norm, settings, self._torch, x, self.gain, *bias)

    def _torch(self, x: Tensor, gain: Tensor, bias: Tensor | None = None) -> Tensor:
        wide = widened(x)
        bias = None if bias is None else bias.to(wide.dtype)
        return F.layer_norm(wide, gain.shape, gain.to(wide.dtype), bias, self.eps).to(x.dtype)


class RMSNorm(nn.Module):
    """x / √(mean x² + eps) · gain (1910.07467).

    `cast` orders the rounding of half precision: `gemma` multiplies by the gain in fp32 and rounds
    last, `llama` rounds and then multiplies, `none` computes all of it in the dtype of x.
    """

    def __init__(self, width: int, eps: float = 1e-5, cast: str = "gemma") -> None:
        super().__init__()
        self.eps, self.cast = _not_negative(eps), _one_of(cast)
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        if _rounds_otherwise(x, self.cast):
            return self._torch(x, self.gain)
        return compute(_rms_norm, (x.shape[-1], self.eps), self._torch, x, self.gain)

    def _torch(self, x: Tensor, gain: Tensor) -> Tensor:
        return _rms_normed(x, gain, self.eps, self.cast)


class UnitOffsetRMSNorm(nn.Module):
    """x / √(mean x² + eps) · (1 + offset), offset from 0, as in Gemma (2403.08295).

    Weight decay would draw the gain towards 1, not towards 0. `cast` as in RMSNorm.
    """

    def __init__(self, width: int, eps: float = 1e-6, cast: str = "gemma") -> None:
        super().__init__()
        self.eps, self.cast = _not_negative(eps), _one_of(cast)
        self.offset = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        if _rounds_otherwise(x, self.cast):
            return self._torch(x, self.offset)
        return compute(_offset_norm, (x.shape[-1], self.eps), self._torch, x, self.offset)

    def _torch(self, x: Tensor, offset: Tensor) -> Tensor:
        gain = 1 + widened(offset)  # small offsets are lost beside 1 in bf16
        return _rms_normed(x, gain, self.eps, self.cast)


class PartialRMSNorm(nn.Module):
    """x / √(mean of the first part of x² + eps) · gain (1910.07467, pRMSNorm)."""

    def __init__(self, width: int, part: float = 0.0625, eps: float = 1e-5) -> None:
        super().__init__()
        self.part, self.eps = part, _not_negative(eps)
        _first(width, part)
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        settings = (x.shape[-1], self.part, self.eps)
        return compute(_partial_norm, settings, self._torch, x, self.gain)

    def _torch(self, x: Tensor, gain: Tensor) -> Tensor:
        wide = widened(x)
        mean_square = wide[..., : _first(x.shape[-1], self.part)].square().mean(-1, keepdim=True)
        return (wide * torch.rsqrt(mean_square + self.eps) * gain).to(x.dtype)


class ScaleNorm(nn.Module):
    """g · x / max(‖x‖, eps), with one g that starts at √width (1910.05895)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = _not_negative(eps)
        self.gain = nn.Parameter(torch.tensor(float(width)).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        return compute(_scale_norm, (x.shape[-1], self.eps), self._torch, x, self.gain)

    def _torch(self, x: Tensor, gain: Tensor) -> Tensor:
        return (F.normalize(widened(x), dim=-1, eps=self.eps) * gain).to(x.dtype)


class GroupNorm(nn.Module):
    """LayerNorm of each of `groups` equal parts of a token's features (1803.08494)."""

    def __init__(self, width: int, groups: int = 4, eps: float = 1e-5) -> None:
        super().__init__()
        _group_width(width, groups)
        self.groups, self.eps = groups, _not_negative(eps)
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        group = _group_width(x.shape[-1], self.groups)
        settings = (group, self.eps, True, self.groups)
        return compute(_layer_norm, settings, self._torch, x, self.gain, self.bias)

    def _torch(self, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        wide = widened(x)
        tokens = wide.reshape(-1, wide.shape[-1])  # a token is a sample: none sees another
        gain, bias = gain.to(wide.dtype), bias.to(wide.dtype)
        # Not F.group_norm, which refuses one token of one-feature groups: it takes it for a batch.
        out = torch.group_norm(tokens, self.groups, gain, bias, self.eps)
        return out.view(wide.shape).to(x.dtype)


_RMS_NORM = "gain * x / sqrt(mean(x**2) + eps)"


@lru_cache
def _layer_norm(width: int, eps: float, bias: bool, period: int = 1) -> Fused:
    normed = "(x - mean(x)) / sqrt(var(x) + eps) * gain"
    if not bias:
        return formula(width, normed, period, gain="feature", eps=eps)
    return formula(width, f"{normed} + bias", period, gain="feature", bias="feature", eps=eps)


@lru_cache
def _rms_norm(width: int, eps: float) -> Fused:
    return formula(width, _RMS_NORM, gain="feature", eps=eps)


@lru_cache
def _offset_norm(width: int, eps: float) -> Fused:
    return formula(width, f"(1 + offset) * ({_RMS_NORM})", offset="feature", eps=eps, gain=1)


@lru_cache
def _partial_norm(width: int, part: float, eps: float) -> Fused:
    first = _first(width, part)
    mean_square = f"sum(where(index < {first}, x**2, 0)) / {first}"
    return formula(width, f"gain * x / sqrt({mean_square} + eps)", gain="feature", eps=eps)


@lru_cache
def _scale_norm(width: int, eps: float) -> Fused:
    length = "sqrt(maximum(sum(x**2), eps**2))"  # a token of zeros gets no gradient through it
    return formula(width, f"gain * x / {length}", gain="scalar", eps=eps)


def _first(width: int, part: float) -> int:
    """How many features are this part of them."""
    first = int(width * part)
    if not 1 <= first <= width:
        raise ValueError(
            f"part={part} of {width} features is {first}, it must be from 1 to {width}"
        )
    return first


def _group_width(width: int, groups: int) -> int:
    if groups < 1 or width % groups:
        raise ValueError(f"groups={groups} does not divide the {width} features of a token")
    return width // groups


def _rounds_otherwise(x: Tensor, cast: str) -> bool:
    """Whether this order of rounding is another than the kernels', who round last."""
    return _one_of(cast) != "gemma" and x.dtype is not torch.float32


def _rms_normed(x: Tensor, gain: Tensor, eps: float, cast: str) -> Tensor:
    if cast == "none":
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * gain.to(x.dtype)
    wide = widened(x)
    if cast == "llama":
        return F.rms_norm(wide, gain.shape, None, eps).to(x.dtype) * gain.to(x.dtype)
    return F.rms_norm(wide, gain.shape, gain.to(wide.dtype), eps).to(x.dtype)


CASTS = ("gemma", "llama", "none")


def _one_of(cast: str) -> str:
    if cast not in CASTS:
        raise ValueError(f"cast={cast} is not one of {', '.join(CASTS)}")
    return cast


def _not_negative(eps: float) -> float:
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps={eps} is not allowed, it must be 0 or more, and finite")
    return eps
