"""What comes out for ordinary inputs, for extraordinary ones, and in half precision."""

import copy

import torch
from torch import Tensor, nn

from normlab.apps.card.inputs import ordinary, standard
from normlab.apps.card.record import Extreme, Number, Output, Rounding, number

# Where the exact value is under this part of the RMS, an error is taken relative to this: an
# element that happens to be zero has no relative error.
_LEAST = 0.01
_FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def outputs(norm: nn.Module, width: int) -> tuple[Output, ...]:
    """Statistics of the output in fp32 on the ordinary inputs."""
    found = []
    for name, x in ordinary(width).items():
        with torch.no_grad():
            y = copy.deepcopy(norm)(x.float()).double()
        rms = y.square().mean().sqrt()
        found.append(Output(name, *(number(float(s)) for s in (y.mean(), rms, y.abs().median()))))
    return tuple(found)


def extremes(norm: nn.Module, width: int) -> tuple[Extreme, ...]:
    """Output and gradients in fp32 on inputs of zeros, huge, tiny, constant and not finite."""
    x = standard(2, 4, width, seed=10).float()
    whole = {
        "zeros": torch.zeros_like(x),
        "constant 0.1": torch.full_like(x, 0.1),
        "N(0,1)·1e30": 1e30 * x,  # its squares are beyond fp32
        "N(0,1)·1e-30": 1e-30 * x,
    }
    found = [_extreme(norm, name, given) for name, given in whole.items()]
    for name, bad in (("a NaN", float("nan")), ("an inf", float("inf"))):
        given = x.clone()
        given[0, 0, 0] = bad
        found.append(_extreme(norm, name, given, bad_feature=True))
    return tuple(found)


def roundings(norm: nn.Module, width: int) -> tuple[Rounding, ...]:
    """Errors of output and input gradient in bf16 and fp16, against float64 on the same numbers."""
    return tuple(_rounding(norm, width, name) for name in _FORMATS)


def _extreme(norm: nn.Module, name: str, given: Tensor, bad_feature: bool = False) -> Extreme:
    module, x = copy.deepcopy(norm), given.clone().requires_grad_()
    y = module(x)
    weights = standard(*x.shape, seed=11).sign().float()
    of_x, *others = torch.autograd.grad(y, [x, *module.parameters()], weights, allow_unused=True)
    every = [gradient.flatten() for gradient in (of_x, *others) if gradient is not None]
    reach = _reach(y) if bad_feature else None
    return Extreme(name, _kind(y), _largest(y), _kind(torch.cat(every)), _largest(of_x), reach)


def _kind(values: Tensor) -> str:
    if values.isnan().any():
        return "NaN"
    return "inf" if values.isinf().any() else "finite"


def _largest(values: Tensor) -> Number:
    finite = values.detach()[values.isfinite()]
    return number(float(finite.abs().max())) if len(finite) else None


def _reach(y: Tensor) -> str:
    """How far the bad first feature of the first token got."""
    bad = ~y.isfinite()
    if not bad.any():
        return "nowhere"
    if bad.sum() > bad[0, 0].sum():
        return "other tokens"
    return "token" if bad[0, 0, 1:].any() else "feature"


def _rounding(norm: nn.Module, width: int, name: str) -> Rounding:
    dtype = _FORMATS[name]
    narrow, exact = copy.deepcopy(norm).to(dtype), copy.deepcopy(norm).to(dtype).double()
    x, weights = standard(1, 64, width, seed=12).to(dtype), standard(1, 64, width, seed=13)
    try:
        y, gradient = _forward_and_back(narrow, x, weights.to(dtype))
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        return Rounding(name, problem=" ".join(str(error).split())[:120] or type(error).__name__)
    true, true_gradient = _forward_and_back(exact, x.double(), weights.to(dtype).double())
    eps = torch.finfo(dtype).eps
    other = None if y.dtype == dtype else f"gives {str(y.dtype).removeprefix('torch.')}"
    of_output, of_gradient = _errors(y, true, eps), _errors(gradient, true_gradient, eps)
    return Rounding(name, *of_output, *of_gradient, other)


def _forward_and_back(norm: nn.Module, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = norm(x)
    (gradient,) = torch.autograd.grad(y, x, weights.to(y.dtype))
    return y.detach(), gradient


def _errors(found: Tensor, true: Tensor, eps: float) -> tuple[Number, Number]:
    least = _LEAST * true.square().mean().sqrt()
    relative = (found.double() - true) / true.abs().clamp(min=least) / eps
    return number(float(relative.square().mean().sqrt())), number(float(relative.abs().max()))
