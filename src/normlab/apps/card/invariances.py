"""Which changes of its input a norm does not see, found by making them (1910.07467, table 1).

Every equation is tried at three sizes of input, in float64. It holds "yes" when its sides agree to
rounding at each; "to eps" when they do not, but the difference dies as the input grows, as that of
an eps beside a statistic does; "at init" when it holds until the parameters move; and "no".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from normlab.apps.card.inputs import BATCH, TOKENS, Function, frozen, moved, standard, widened
from normlab.apps.card.record import SEQUENCE_ALONE, TOKEN_ALONE, Invariance, Verdict, number

SIZES = (1.0, 32.0, 1024.0)
# An eps beside a root dies like 1/size, beside a square like 1/size²: 32 times at least. A
# function that only saturates keeps some feature on its slope, and so a large difference.
_DIES = 1 / 16
# Largest difference, relative to the RMS, that sums of rounded numbers make.
_ROUNDING = {torch.float64: 1e-11, torch.float32: 1e-5}
_HIDDEN = 32


@dataclass(frozen=True)
class _Equation:
    name: str
    text: str
    sides: Callable[[Function, Tensor], Iterator[tuple[Tensor, Tensor]]]


def invariances(norm: nn.Module, width: int) -> tuple[Invariance, ...]:
    """Try every equation on a norm of this width."""
    found = []
    start, later = frozen(widened(norm)), frozen(moved(norm))
    rounding = _ROUNDING[computes_in(norm, width)]
    for equation in _EQUATIONS:
        deviations = _deviations(equation, later, width)
        verdict = _verdict(deviations, rounding)
        if verdict == "no" and _verdict(_deviations(equation, start, width), rounding) != "no":
            verdict = "at init"
        found.append(Invariance(equation.name, equation.text, verdict, number(deviations[0])))
    return tuple(found)


def computes_in(norm: nn.Module, width: int) -> torch.dtype:
    """float64, or float32 when a norm given float64 does not feel a change of 2⁻⁴⁰."""
    function, x = frozen(moved(norm)), standard(BATCH, TOKENS, width)
    with torch.no_grad():
        nudged = function(x * (1 + 2.0**-40 * standard(BATCH, TOKENS, width, seed=1)))
        felt = (nudged != function(x)).double().mean()
    return torch.float64 if felt > 0.5 else torch.float32


def _deviations(equation: _Equation, norm: Function, width: int) -> list[float]:
    x = standard(BATCH, TOKENS, width)
    with torch.no_grad():
        return [max(_apart(*pair) for pair in equation.sides(norm, size * x)) for size in SIZES]


def _apart(one: Tensor, other: Tensor) -> float:
    """Largest difference over RMS; infinite where one of them is not finite."""
    difference = (one - other).abs().max()
    if difference == 0:
        return 0.0
    relative = float(difference / other.square().mean().sqrt())
    return relative if relative == relative else float("inf")


def _verdict(deviations: list[float], rounding: float) -> Verdict:
    if max(deviations) <= rounding:
        return "yes"
    dying = all(after <= max(before * _DIES, rounding) for before, after in pairwise(deviations))
    return "to eps" if dying and deviations[0] < float("inf") else "no"


def _input_scale(norm: Function, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    factors = 4 ** (2 * torch.rand(BATCH, TOKENS, 1, generator=_generator()).double() - 1)
    yield norm(factors * x), norm(x)  # a factor of its own for every token


def _sign(norm: Function, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield norm(-x), -norm(x)


def _input_shift(norm: Function, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    shifts = 3 * x.std() * standard(BATCH, TOKENS, 1, seed=2)
    yield norm(x + shifts), norm(x)


def _weight_scale(norm: Function, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    hidden, weight = _projection(x)
    for factor in (0.25, 4.0):
        yield norm(hidden @ (factor * weight).T), norm(hidden @ weight.T)


def _weight_shift(norm: Function, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    hidden, weight = _projection(x)
    yield norm(hidden @ (weight + standard(_HIDDEN, seed=5)).T), norm(hidden @ weight.T)


def _other_tokens(norm: Function, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    changed = x.clone()
    changed[:, 1:] = 3 * x[:, 1:] + x.std()
    yield norm(changed)[:, 0], norm(x)[:, 0]


def _other_sequences(norm: Function, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    changed = x.clone()
    changed[1:] = 3 * x[1:] + x.std()
    yield norm(changed)[0], norm(x)[0]


def _permutation(norm: Function, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(x.shape[-1], generator=_generator())
    yield norm(x[..., order]), norm(x)[..., order]


def _projection(x: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden vectors h and a matrix W such that Wh is about as large as x."""
    weight = standard(x.shape[-1], _HIDDEN, seed=3) / _HIDDEN**0.5
    return x.std() * standard(BATCH, TOKENS, _HIDDEN, seed=4), weight


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


_EQUATIONS = (
    _Equation("input scale", "N(cx) = N(x), c > 0", _input_scale),
    _Equation("input shift", "N(x + c1) = N(x)", _input_shift),
    _Equation("weight scale", "N((cW)h) = N(Wh)", _weight_scale),
    _Equation("weight shift", "N((W + 1cᵀ)h) = N(Wh)", _weight_shift),
    _Equation("odd", "N(−x) = −N(x)", _sign),
    _Equation("features alike", "N(Px) = P N(x)", _permutation),
    _Equation(TOKEN_ALONE, "no leak across tokens", _other_tokens),
    _Equation(SEQUENCE_ALONE, "no leak across batch", _other_sequences),
)
