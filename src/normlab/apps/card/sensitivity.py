"""How the output answers the input, in float64: response of a feature, Jacobian, derivatives."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.gradcheck import GradcheckError

from normlab.apps.card.inputs import Function, frozen, moved, standard, widened
from normlab.apps.card.record import Curves, Number, Spectrum, number

# A singular value below this part of the largest is a direction the norm removes. The eps of
# RMSNorm leaves about 1e-5 of it, the slope of tanh at four standard deviations 1e-3.
NEAR_ZERO = 1e-4
# The decomposition costs width³.
MOST_WIDTH = 1024
_REACH, _POINTS = 6.0, 121
_DECADES, _PER_DECADE = (-6, 6), 4


def spectrum(norm: nn.Module, width: int, computes_in: torch.dtype) -> Spectrum:
    """Singular values of the Jacobian of a token's output by the token, as the norm starts."""
    function = _of_one_token(frozen(widened(norm)), width)
    token = standard(width, seed=7)
    # Row by row: a norm with a backward pass of its own may know no vmap.
    jacobian = torch.autograd.functional.jacobian(function, token)  # type: ignore[no-untyped-call]
    values = torch.linalg.svdvals(jacobian)
    largest = values[0]
    kept = values[values > NEAR_ZERO * largest]
    return Spectrum(
        width=width,
        values=tuple(values.tolist()),
        rank=int((values > width * torch.finfo(computes_in).eps * largest).sum()),
        near_zero=width - len(kept),
        condition=number(float(kept[0] / kept[-1])) if len(kept) else None,
    )


def curves(norm: nn.Module, width: int) -> Curves:
    """One feature swept while the others are N(0, 1); and RMS out over thirteen decades, fp32."""
    sweep = torch.linspace(-_REACH, _REACH, _POINTS, dtype=torch.float64).tolist()
    response, slope = _response(frozen(widened(norm)), width, sweep)
    low, high = _DECADES
    steps = range(low * _PER_DECADE, high * _PER_DECADE + 1)
    sizes = [10 ** (step / _PER_DECADE) for step in steps]
    return Curves(tuple(sweep), response, slope, tuple(sizes), _rms_out(norm, width, sizes))


def derivatives(norm: nn.Module, width: int, computes_in: torch.dtype) -> tuple[str, str]:
    """Whether autograd's first and second derivatives are those of the function: a word each."""
    if computes_in != torch.float64:
        return ("not in float32",) * 2  # a difference quotient needs the digits
    module = moved(norm)
    inputs = (standard(1, 3, width, seed=8).requires_grad_(), *module.parameters())

    def function(x: Tensor, *_: Tensor) -> Tensor:
        y: Tensor = module(x)
        return y

    return _checked(gradcheck, function, inputs), _checked(gradgradcheck, function, inputs)


def _checked(
    check: Callable[..., bool], function: Callable[..., Tensor], inputs: tuple[Tensor, ...]
) -> str:
    try:
        # It projects on random directions; they shall be the same every time.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            torch.manual_seed(0)
            warnings.simplefilter("ignore")
            check(function, inputs, fast_mode=True)
    except GradcheckError:
        return "fails"
    except (RuntimeError, NotImplementedError):
        return "refuses"
    return "passes"


def _of_one_token(norm: Function, width: int) -> Function:
    """The norm of the first token of a batch whose other tokens stand still."""
    others = standard(2, 4, width, seed=6)
    first = torch.zeros(2, 4, 1, dtype=torch.float64)
    first[0, 0] = 1.0
    return lambda token: norm(others * (1 - first) + token * first)[0, 0]


def _response(
    norm: Function, width: int, sweep: list[float]
) -> tuple[tuple[Number, ...], tuple[Number, ...]]:
    function, token = _of_one_token(norm, width), standard(width, seed=7)
    response, slope = [], []
    for value in sweep:
        token[0] = value
        x = token.clone().requires_grad_()
        y = function(x)[0]
        (gradient,) = torch.autograd.grad(y, x)
        response.append(number(y.item()))
        slope.append(number(gradient[0].item()))
    return tuple(response), tuple(slope)


def _rms_out(norm: nn.Module, width: int, sizes: list[float]) -> tuple[Number, ...]:
    function, x = frozen(norm), standard(2, 8, width, seed=9)
    x /= x.square().mean(-1, keepdim=True).sqrt()
    with torch.no_grad():
        outputs = [function((size * x).float()).double() for size in sizes]
    return tuple(number(y.square().mean().sqrt().item()) for y in outputs)
