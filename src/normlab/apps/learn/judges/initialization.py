"""DeepNorm's two constants, and which matrices they scale at the start (2203.00555)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from normlab.apps.learn.judges.mistake import (
    MistakeError,
    call_solution,
    check_result,
    describe_value,
    get_member,
    is_same,
    normal_tensor,
)

_CONSTANTS = "deepnorm_constants(depth)"
_SCALE = "scale_weights(weights, depth)"
_SCALED, _UNSCALED = ("value", "out", "up", "down"), ("query", "key")
_DEPTHS = (1, 6, 48)

# What is mistaken for α or β: a sentence, and the number for L blocks.
_WRONG_ALPHAS: dict[str, Callable[[int], float]] = {
    "the exponent's sign is wrong: α grows with depth": lambda n: (2 * n) ** -0.25,
    "this is β; the two are swapped": lambda n: (8 * n) ** -0.25,
    "this is α of a decoder that stands behind an encoder, (3L)^¼; a decoder alone has (2L)^¼": (
        lambda n: (3 * n) ** 0.25
    ),
    "L counts blocks; here it counted sublayers, two a block": lambda n: (4 * n) ** 0.25,
    "the factor 2 is missing": lambda n: n**0.25,
    "the exponent is ½ in place of ¼": lambda n: (2 * n) ** 0.5,
}
_WRONG_BETAS: dict[str, Callable[[int], float]] = {
    "the exponent's sign is wrong: β falls with depth": lambda n: (8 * n) ** 0.25,
    "this is 1/α; β has another factor, 8": lambda n: (2 * n) ** -0.25,
    (
        "this is β of a decoder that stands behind an encoder, (12L)^−¼; a decoder alone has "
        "(8L)^−¼"
    ): lambda n: (12 * n) ** -0.25,
    "L counts blocks; here it counted sublayers, two a block": lambda n: (16 * n) ** -0.25,
    "the factor 8 is missing": lambda n: n**-0.25,
    "the exponent is −½ in place of −¼": lambda n: (8 * n) ** -0.5,
}


def judge_deepnorm_init(module: Any) -> None:
    """α = (2L)^¼ and β = (8L)^−¼; β scales the value, output and feed-forward matrices only.

    Raises:
        MistakeError: the first mistake.
    """
    constants = get_member(module, "deepnorm_constants", "function")
    scale = get_member(module, "scale_weights", "function")
    pairs = [_read_constants(call_solution(_CONSTANTS, constants, depth)) for depth in _DEPTHS]
    alphas, betas = zip(*pairs, strict=True)
    _check_constant("α", alphas, lambda n: (2 * n) ** 0.25, _WRONG_ALPHAS)
    _check_constant("β", betas, lambda n: (8 * n) ** -0.25, _WRONG_BETAS)
    for depth in _DEPTHS:
        _check_weights(scale, depth)


def _read_constants(value: Any) -> tuple[float, float]:
    try:
        alpha, beta = (float(number) for number in value)
    except (TypeError, ValueError) as error:
        raise MistakeError(
            f"{_CONSTANTS} gives {describe_value(value)}; it must give two numbers, α and β."
        ) from error
    return alpha, beta


def _check_constant(
    name: str,
    values: tuple[float, ...],
    right: Callable[[int], float],
    wrong: dict[str, Callable[[int], float]],
) -> None:
    def equals(function: Callable[[int], float]) -> bool:
        return all(
            math.isclose(value, function(depth), rel_tol=1e-5)
            for value, depth in zip(values, _DEPTHS, strict=True)
        )

    if equals(right):
        return
    sentence = next((sentence for sentence, function in wrong.items() if equals(function)), "")
    raise MistakeError(
        f"{name} is {values[-1]:.4g} for {_DEPTHS[-1]} blocks; it must be "
        f"{right(_DEPTHS[-1]):.4g}{f': {sentence}' if sentence else ''}."
    )


def _check_weights(scale: Callable[..., Any], depth: int) -> None:
    weights = {
        name: normal_tensor(4, 4, seed=70 + index)
        for index, name in enumerate((*_UNSCALED, *_SCALED))
    }
    # The solution gets the dict itself, and may put other tensors into it.
    originals = dict(weights)
    scaled = call_solution(_SCALE, scale, weights, depth, unchanged=originals)
    if not isinstance(scaled, dict) or set(scaled) != set(originals):
        names = ", ".join(map(str, scaled)) if isinstance(scaled, dict) else describe_value(scaled)
        raise MistakeError(
            f"{_SCALE} gives {names}; it must give a dict with the keys {', '.join(originals)}."
        )
    factors = {
        name: _measure_factor(name, scaled[name], weight) for name, weight in originals.items()
    }
    beta = (8 * depth) ** -0.25
    extra = [name for name in _UNSCALED if not math.isclose(factors[name], 1, rel_tol=1e-5)]
    if extra:
        raise MistakeError(
            f"the matrices of {' and '.join(extra)} are scaled by {factors[extra[0]]:.3g}; "
            f"DeepNorm scales only {', '.join(_SCALED)}."
        )
    # β is below 1 at every depth, so a factor of 1 is a matrix that was left out.
    missing = [name for name in _SCALED if math.isclose(factors[name], 1, rel_tol=1e-5)]
    if missing:
        raise MistakeError(
            f"the matrices of {', '.join(missing)} are not scaled; DeepNorm multiplies "
            f"{', '.join(_SCALED)} by β."
        )
    for name in _SCALED:
        if not math.isclose(factors[name], beta, rel_tol=1e-5):
            raise MistakeError(
                f"the matrix of {name} is multiplied by {factors[name]:.4g} for {depth} blocks; it "
                f"must be by β = {beta:.4g}."
            )


def _measure_factor(name: str, scaled: Any, weight: Tensor) -> float:
    call = f"{name} of {_SCALE}"
    result = check_result(call, scaled, weight.shape, torch.float64)
    # By least squares, so that a matrix which is no multiple has a factor to be compared with.
    factor = float((result * weight).sum() / weight.square().sum())
    if not is_same(result, factor * weight):
        raise MistakeError(f"{call} is not the matrix times a number; it must be, of {name}.")
    return factor
