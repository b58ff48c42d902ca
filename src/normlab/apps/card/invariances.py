"""Which changes of its input a norm does not depend on, tested by making them.

Table 1 of 1910.07467 has some of them. Each equation is tested at three sizes of input, in float64.
It holds "yes" when its sides agree to rounding at each; "to eps" when they do not, but the
difference vanishes as the input grows, as that of an eps beside a statistic does; "at init" when it
holds until the parameters move; and "no".
"""

import copy
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from normlab.apps.card.record import SEQUENCE_ALONE, TOKEN_ALONE, Invariance, Verdict
from normlab.archive.versioned_json import finite_or_none

Function = Callable[[Tensor], Tensor]

# Sequences and tokens of most measurements.
BATCH, TOKENS = 4, 16
SIZES = (1.0, 32.0, 1024.0)
# An eps beside a root vanishes like 1/size, beside a square like 1/size²: 32 times at least. A
# function that only saturates keeps some feature on its slope, and so a large difference.
_VANISHING = 1 / 16
# Largest difference, relative to the RMS, that sums of rounded numbers make.
_ROUNDING = {torch.float64: 1e-11, torch.float32: 1e-5}
_HIDDEN = 32
EQUATIONS = {
    "input scale": "N(cx) = N(x), c > 0",
    "input shift": "N(x + c1) = N(x)",
    "weight scale": "N((cW)h) = N(Wh)",
    "weight shift": "N((W + 1cᵀ)h) = N(Wh)",
    "odd": "N(−x) = −N(x)",
    "features alike": "N(Px) = P N(x)",
    TOKEN_ALONE: "no leak across tokens",
    SEQUENCE_ALONE: "no leak across batch",
}


def normal_input(*shape: int, seed: int = 0) -> Tensor:
    """Independent N(0, 1) in float64, the same for every norm."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stateless_function(norm: nn.Module) -> Function:
    """The norm as a function: a running statistic stays as it was, and noise is the same again."""

    def function(x: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return copy.deepcopy(norm)(x)  # type: ignore[no-any-return]

    return function


def copy_to_float64(norm: nn.Module) -> nn.Module:
    """A copy of the norm in float64."""
    return copy.deepcopy(norm).double()


def move_parameters(norm: nn.Module, *, by_name: bool = False) -> nn.Module:
    """A copy in float64 with every parameter moved off its start, as training would.

    What holds only for zeros and ones must not pass for a property of the norm. `by_name`: in the
    order of their names, for another class may register the same parameters in another order.
    """
    moved = copy_to_float64(norm)
    parameters = list(moved.named_parameters())
    with torch.no_grad():
        for index, (_, parameter) in enumerate(sorted(parameters) if by_name else parameters):
            parameter.add_(0.2 * normal_input(*parameter.shape, seed=1000 + index))
    return moved


def measure_invariances(norm: nn.Module, width: int) -> tuple[Invariance, ...]:
    """Test every equation on a norm of this width."""
    rounding = rounding_of(computing_dtype(norm, width))
    deviations = _largest_deviations(stateless_function(move_parameters(norm)), width)
    verdicts = {name: _judge_equation(values, rounding) for name, values in deviations.items()}
    if "no" in verdicts.values():
        at_start = _largest_deviations(stateless_function(copy_to_float64(norm)), width)
        for name, verdict in verdicts.items():
            if verdict == "no" and _judge_equation(at_start[name], rounding) != "no":
                verdicts[name] = "at init"
    return tuple(
        Invariance(name, equation, verdicts[name], finite_or_none(deviations[name][0]))
        for name, equation in EQUATIONS.items()
    )


def rounding_of(dtype: torch.dtype) -> float:
    """The largest difference, relative to the RMS, that rounding in this type makes."""
    return _ROUNDING[dtype]


def computing_dtype(norm: nn.Module, width: int) -> torch.dtype:
    """float64, or float32 when a norm given float64 does not respond to a change of 2⁻⁴⁰."""
    function, x = stateless_function(move_parameters(norm)), normal_input(BATCH, TOKENS, width)
    with torch.no_grad():
        # Below the last of fp32's 24 binary digits, above that of float64's 53.
        nudged = function(x * (1 + 2.0**-40 * normal_input(BATCH, TOKENS, width, seed=1)))
        responding = (nudged != function(x)).double().mean()
    return torch.float64 if responding > 0.5 else torch.float32


def _largest_deviations(norm: Function, width: int) -> dict[str, list[float]]:
    """By equation: the largest difference of its sides over the RMS, at each of SIZES."""
    deviations: dict[str, list[float]] = {name: [] for name in EQUATIONS}
    with torch.no_grad():
        for size in SIZES:
            x = size * normal_input(BATCH, TOKENS, width)
            largest = dict.fromkeys(EQUATIONS, 0.0)
            for name, left, right in _equation_sides(norm, x):
                difference = (left - right).abs().max()
                # Sides that are both 0 would be 0/0.
                relative = float(difference / right.square().mean().sqrt()) if difference else 0.0
                # Sides that are not finite differ by as much as one likes.
                relative = float("inf") if relative != relative else relative
                largest[name] = max(largest[name], relative)
            for name, value in largest.items():
                deviations[name].append(value)
    return deviations


def _judge_equation(deviations: list[float], rounding: float) -> Verdict:
    if max(deviations) <= rounding:
        return "yes"
    vanishing = all(b <= max(a * _VANISHING, rounding) for a, b in pairwise(deviations))
    return "to eps" if vanishing and deviations[0] < float("inf") else "no"


def _equation_sides(norm: Function, x: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The name of every equation and its sides for an input (BATCH, TOKENS, width)."""
    width, spread, output = x.shape[-1], x.std(), norm(x)
    random = torch.Generator().manual_seed(0)
    # A factor, from 1/4 to 4, and a shift of its own for every token.
    factors = 4 ** (2 * torch.rand(BATCH, TOKENS, 1, generator=random).double() - 1)
    yield "input scale", norm(factors * x), output
    yield "input shift", norm(x + 3 * spread * normal_input(BATCH, TOKENS, 1, seed=2)), output
    # A matrix W and hidden vectors h such that Wh is about as large as x.
    weight = normal_input(width, _HIDDEN, seed=3) / _HIDDEN**0.5
    hidden = spread * normal_input(BATCH, TOKENS, _HIDDEN, seed=4)
    projected = norm(hidden @ weight.T)
    for factor in (0.25, 4.0):
        yield "weight scale", norm(hidden @ (factor * weight).T), projected
    yield "weight shift", norm(hidden @ (weight + normal_input(_HIDDEN, seed=5)).T), projected
    yield "odd", norm(-x), -output
    order = torch.randperm(width, generator=torch.Generator().manual_seed(0))
    yield "features alike", norm(x[..., order]), output[..., order]
    changed = 3 * x + spread
    yield TOKEN_ALONE, norm(torch.cat([x[:, :1], changed[:, 1:]], 1))[:, 0], output[:, 0]
    # 160 tokens, changed from the middle of a chunk on: leaks within chunks of 64 tokens, or in one
    # half of a context of 40 or more, were not seen with 16.
    long = x.repeat(1, 10, 1)
    cut = long.shape[1] // 2
    changed_end = torch.cat([long[:, :cut], 3 * long[:, cut:] + spread], 1)
    yield TOKEN_ALONE, norm(changed_end)[:, :cut], norm(long)[:, :cut]
    yield SEQUENCE_ALONE, norm(torch.cat([x[:1], changed[1:]]))[0], output[0]
