"""The norms that are classes: those that divide by a statistic of a token, and those that do not.

x has shape (…, width). Each is written twice: `_compute_with_torch` with torch's operations, and as
the formula of a compiled kernel, which computes the same to rounding where a CPU has it
(`normlab.kernels`). A norm's settings are read at every call, as torch's norms read theirs.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.config.formula import FormulaSource
from normlab.kernels import compile_formula
from normlab.text import suggest_closest

CASTS = ("gemma", "llama", "none")

_GAIN = (("gain", "feature"),)
_GAIN_AND_BIAS = (*_GAIN, ("bias", "feature"))
_LAYER_NORM = "(x - mean(x)) / sqrt(var(x) + eps) * gain"
_RMS_NORM = "gain * x / sqrt(mean(x**2) + eps)"


def widen_precision(x: Tensor) -> Tensor:
    """Half precision as fp32, anything else as it is; any shape.

    Not for the statistic, which torch takes in fp32 anyway: on a CPU the gain's gradient would be
    added up over all tokens in bf16, by LayerNorm's kernel alone, and two norms would be compared
    by their rounding.
    """
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def accumulates_in_fp32(x: Tensor) -> bool:
    """Whether torch's own norms take x in half precision as it is, and add up in fp32.

    Their CUDA kernels do. Widening x first would write it to memory twice as large, which takes
    longer than the norm. The gain is then rounded to the dtype of x, as the matrices are.
    """
    return x.device.type == "cuda" and x.dtype in (torch.bfloat16, torch.float16)


class KernelNorm(nn.Module):
    """A norm with a compiled kernel where there is one; a subclass gives `_compute_with_torch`."""

    def _compute_formula(self, formula: FormulaSource, x: Tensor, *parameters: Tensor) -> Tensor:
        kernel = compile_formula(formula, x, parameters)
        if kernel is None:
            return self._compute_with_torch(x, *parameters)
        return kernel(self._compute_with_torch, x, *parameters)

    def _compute_with_torch(self, x: Tensor, *parameters: Tensor) -> Tensor:
        raise NotImplementedError


class LayerNorm(KernelNorm):
    """(x − mean x) / √(var x + eps) · gain + bias, with the population variance (1607.06450)."""

    def __init__(self, width: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.eps = _check_eps(eps)
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        constants = (("eps", self.eps),)
        if self.bias is None:
            formula = FormulaSource(_LAYER_NORM, x.shape[-1], _GAIN, constants)
            return self._compute_formula(formula, x, self.gain)
        formula = FormulaSource(f"{_LAYER_NORM} + bias", x.shape[-1], _GAIN_AND_BIAS, constants)
        return self._compute_formula(formula, x, self.gain, self.bias)

    def _compute_with_torch(self, x: Tensor, *parameters: Tensor) -> Tensor:
        direct = accumulates_in_fp32(x)
        wide = x if direct else widen_precision(x)
        gain = parameters[0].to(wide.dtype)
        bias = parameters[1].to(wide.dtype) if len(parameters) > 1 else None
        with _without_autocast(x, direct):
            return F.layer_norm(wide, gain.shape, gain, bias, self.eps).to(x.dtype)


class RMSNorm(KernelNorm):
    """x / √(mean x² + eps) · gain (1910.07467).

    `cast` orders the rounding of half precision: `gemma` multiplies by the gain in fp32 and rounds
    last (on a GPU by the gain rounded to the dtype of x), `llama` rounds and then multiplies,
    `none` computes all of it in the dtype of x.
    """

    def __init__(self, width: int, eps: float = 1e-5, cast: str = "gemma") -> None:
        super().__init__()
        self.eps, self.cast = _check_eps(eps), _check_cast(cast)
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        if _has_other_rounding(x, self.cast):
            return self._compute_with_torch(x, self.gain)
        formula = FormulaSource(_RMS_NORM, x.shape[-1], _GAIN, (("eps", self.eps),))
        return self._compute_formula(formula, x, self.gain)

    def _compute_with_torch(self, x: Tensor, *parameters: Tensor) -> Tensor:
        (gain,) = parameters
        return _rms_normalize(x, gain, self.eps, self.cast)


class UnitOffsetRMSNorm(KernelNorm):
    """x / √(mean x² + eps) · (1 + offset), offset from 0, as in Gemma (2403.08295).

    Weight decay would draw the gain towards 1, not towards 0. `cast` as in RMSNorm.
    """

    def __init__(self, width: int, eps: float = 1e-6, cast: str = "gemma") -> None:
        super().__init__()
        self.eps, self.cast = _check_eps(eps), _check_cast(cast)
        self.offset = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        if _has_other_rounding(x, self.cast):
            return self._compute_with_torch(x, self.offset)
        constants = (("eps", self.eps), ("gain", 1))
        offset = (("offset", "feature"),)
        formula = FormulaSource(f"(1 + offset) * ({_RMS_NORM})", x.shape[-1], offset, constants)
        return self._compute_formula(formula, x, self.offset)

    def _compute_with_torch(self, x: Tensor, *parameters: Tensor) -> Tensor:
        (offset,) = parameters
        gain = 1 + widen_precision(offset)  # small offsets are lost next to 1 in bf16
        wide = widen_precision(x) if self.cast == "gemma" else x
        return _rms_normalize(wide, gain, self.eps, self.cast).to(x.dtype)


class PartialRMSNorm(KernelNorm):
    """x / √(mean of the first part of x² + eps) · gain (1910.07467, pRMSNorm).

    The part is a whole number of features (rounded down, as in the authors' code).
    """

    def __init__(self, width: int, part: float = 0.0625, eps: float = 1e-5) -> None:
        super().__init__()
        self.part, self.eps = part, _check_eps(eps)
        _count_features(width, part)
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        count = _count_features(x.shape[-1], self.part)
        # A formula has no slices: the other features count as 0.
        mean_square = f"sum(where(index < {count}, x**2, 0)) / {count}"
        formula = FormulaSource(
            f"gain * x / sqrt({mean_square} + eps)", x.shape[-1], _GAIN, (("eps", self.eps),)
        )
        return self._compute_formula(formula, x, self.gain)

    def _compute_with_torch(self, x: Tensor, *parameters: Tensor) -> Tensor:
        (gain,) = parameters
        wide = widen_precision(x)
        count = _count_features(x.shape[-1], self.part)
        mean_square = wide[..., :count].square().mean(-1, keepdim=True)
        return (wide * torch.rsqrt(mean_square + self.eps) * gain).to(x.dtype)


class ScaleNorm(KernelNorm):
    """g · x / max(‖x‖, eps), with one g that starts at √width (1910.05895)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = _check_eps(eps)
        self.gain = nn.Parameter(torch.tensor(float(width)).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        # A token of zeros gets no gradient through the maximum.
        expression = "gain * x / sqrt(maximum(sum(x**2), eps**2))"
        constants = (("eps", self.eps),)
        formula = FormulaSource(expression, x.shape[-1], (("gain", "scalar"),), constants)
        return self._compute_formula(formula, x, self.gain)

    def _compute_with_torch(self, x: Tensor, *parameters: Tensor) -> Tensor:
        (gain,) = parameters
        return (F.normalize(widen_precision(x), dim=-1, eps=self.eps) * gain).to(x.dtype)


class GroupNorm(KernelNorm):
    """LayerNorm of each of `groups` equal parts of a token's features (1803.08494)."""

    def __init__(self, width: int, groups: int = 4, eps: float = 1e-5) -> None:
        super().__init__()
        _group_width(width, groups)
        self.groups, self.eps = groups, _check_eps(eps)
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        # To a kernel each group is a token; gain and bias begin anew after `groups` of them.
        formula = FormulaSource(
            f"{_LAYER_NORM} + bias",
            _group_width(x.shape[-1], self.groups),
            _GAIN_AND_BIAS,
            (("eps", self.eps),),
            self.groups,
        )
        return self._compute_formula(formula, x, self.gain, self.bias)

    def _compute_with_torch(self, x: Tensor, *parameters: Tensor) -> Tensor:
        wide = widen_precision(x)
        tokens = wide.reshape(-1, wide.shape[-1])  # a token is a sample: none sees another
        gain, bias = (parameter.to(wide.dtype) for parameter in parameters)
        # Not F.group_norm, which refuses one token of one-feature groups: it takes it for a batch.
        out = torch.group_norm(tokens, self.groups, gain, bias, self.eps)
        return out.view(wide.shape).to(x.dtype)


class DynamicTanh(KernelNorm):
    """gain · tanh(alpha · x) + bias, with one alpha for all features (2503.10622)."""

    def __init__(self, width: int, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        parameters = (("alpha", "scalar"), *_GAIN_AND_BIAS)
        formula = FormulaSource("gain * tanh(alpha * x) + bias", x.shape[-1], parameters)
        return self._compute_formula(formula, x, self.alpha, self.gain, self.bias)

    def _compute_with_torch(self, x: Tensor, *parameters: Tensor) -> Tensor:
        alpha, gain, bias = parameters
        # In bf16 the gradient 1 - tanh² comes from a rounded tanh: off by up to 105 eps.
        return (torch.tanh(alpha * widen_precision(x)) * gain + bias).to(x.dtype)


class GradientPreservingScale(nn.Module):
    """x − SiLU(g) · stopgrad(x): damps a stream forward, not its gradient (2506.22049, GPAS)."""

    def __init__(self, width: int, gate: float = 0.0) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.tensor(float(gate)))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        return (x - F.silu(self.gate) * x.detach()).to(x.dtype)


class WindowNorm(nn.Module):
    """(x − next x) / 2 · gain / √(mean of its square + eps): a leak, for a lesson on leaks.

    The mean of each feature is taken over a token and the next one, the variance over both tokens
    and all features, so each token sees the one it has to predict. The last token, which has no
    next one, gives 0. Only `allow_leak=true` trains it.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = _check_eps(eps)
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) → the same, in the dtype of x."""
        wide = widen_precision(x)
        following = torch.cat([wide[..., 1:, :], wide[..., -1:, :]], dim=-2)
        mean = (wide + following) / 2
        variance = ((wide - following) / 2).square().mean(-1, keepdim=True)
        return ((wide - mean) * torch.rsqrt(variance + self.eps) * self.gain).to(x.dtype)


def _rms_normalize(x: Tensor, gain: Tensor, eps: float, cast: str) -> Tensor:
    if cast == "none":
        # Not F.rms_norm, which takes the mean of half precision in fp32.
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * gain.to(x.dtype)
    direct = accumulates_in_fp32(x)
    wide = x if direct else widen_precision(x)
    with _without_autocast(x, direct):
        if cast == "llama":
            return F.rms_norm(wide, gain.shape, None, eps).to(x.dtype) * gain.to(x.dtype)
        return F.rms_norm(wide, gain.shape, gain.to(wide.dtype), eps).to(x.dtype)


def _without_autocast(x: Tensor, direct: bool) -> AbstractContextManager[None]:
    """Where x is taken as it is, keep autocast, which widens the input of norms, from it."""
    if direct and torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()


def _has_other_rounding(x: Tensor, cast: str) -> bool:
    """Whether the order of rounding differs from that of the kernels, which round last."""
    return _check_cast(cast) != "gemma" and x.dtype is not torch.float32


def _count_features(width: int, part: float) -> int:
    """How many features are this part of them."""
    count = int(round(width * part, 9))  # 100 · 0.29 is a little below 29
    if not 1 <= count <= width:
        raise ValueError(
            f"part={part} of {width} features is {count}, it must be from 1 to {width}"
        )
    return count


def _group_width(width: int, groups: int) -> int:
    if groups < 1 or width % groups:
        raise ValueError(f"groups={groups} does not divide the {width} features of a token")
    return width // groups


def _check_cast(cast: str) -> str:
    if cast not in CASTS:
        hint = suggest_closest(str(cast), CASTS)
        raise ValueError(f"cast={cast} is not allowed; {hint}it must be one of {', '.join(CASTS)}")
    return cast


def _check_eps(eps: float) -> float:
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps={eps} is not allowed, it must be 0 or more, and finite")
    return eps
