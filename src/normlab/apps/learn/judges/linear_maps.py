"""LayerNorm's backward pass, and a norm's gain folded into the next matrix."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from normlab.apps.learn.judges.mistake import (
    MistakeError,
    call_solution,
    check_result,
    format_percent,
    get_member,
    is_same,
    name_mistake,
    normal_tensor,
    relative_difference,
)

_EPS = 1e-5
_BACKWARD = "layernorm_backward(output_gradient, x, gain, eps)"
_FOLD = "fold_gain(gain, bias, weight)"


def judge_layernorm_backward(module: Any) -> None:
    """The three gradients of LayerNorm (1607.06450) against autograd in float64.

    Raises:
        MistakeError: the first mistake.
    """
    function = get_member(module, "layernorm_backward", "function")
    # Mean 1, σ 2 and a gain off 1: what is left out of the formula changes the gradients.
    x = 2 * normal_tensor(3, 5, 8, seed=21) + 1
    output_gradient = normal_tensor(3, 5, 8, seed=22)
    gain = 1.5 + 0.5 * normal_tensor(8, seed=23)
    tensors = {"output_gradient": output_gradient, "x": x, "gain": gain}
    gradients = call_solution(_BACKWARD, function, *tensors.values(), _EPS, unchanged=tensors)
    if not isinstance(gradients, tuple | list) or len(gradients) != 3:
        raise MistakeError(
            f"{_BACKWARD} gives {type(gradients).__name__}; it must give three tensors: the "
            f"gradients of x, gain and bias."
        )
    # No gradient depends on the bias itself, so zeros do.
    leaves = [tensor.clone().requires_grad_() for tensor in (x, gain, torch.zeros_like(gain))]
    y = F.layer_norm(leaves[0], gain.shape, leaves[1], leaves[2], _EPS)
    references = torch.autograd.grad(y, leaves, output_gradient)
    for name, gradient, reference in zip(("x", "gain", "bias"), gradients, references, strict=True):
        # Before the shape alone is refused: this one has a cause that can be named.
        if isinstance(gradient, Tensor) and name != "x" and gradient.shape == x.shape:
            raise MistakeError(
                f"the gradient of {name} has shape {tuple(gradient.shape)}; it is summed over all "
                f"tokens and has the shape of {name}, {tuple(reference.shape)}."
            )
        call = f"the gradient of {name}: {_BACKWARD}"
        check_result(call, gradient, reference.shape, torch.float64)
        if not is_same(gradient, reference):
            inputs = (x, output_gradient, gain)
            mistakes = _x_mistakes(*inputs) if name == "x" else _parameter_mistakes(name, *inputs)
            sentence = name_mistake(gradient, mistakes)
            share = format_percent(relative_difference(gradient, reference))
            raise MistakeError(
                f"the gradient of {name} is off by {share} (against autograd in float64)"
                f"{f': {sentence}' if sentence else ''}."
            )


def _x_mistakes(x: Tensor, output_gradient: Tensor, gain: Tensor) -> list[tuple[str, Tensor]]:
    """What is computed for x when a term of σ⁻¹ (g − mean g − x̂ · mean(g x̂)) is wrong."""

    def mean(values: Tensor) -> Tensor:
        return values.mean(-1, keepdim=True)

    def gradient(g: Tensor, deviation: Tensor) -> Tensor:
        normalized = (x - mean(x)) / deviation
        return (g - mean(g) - normalized * mean(g * normalized)) / deviation

    deviation, unbiased = (
        (x.var(-1, keepdim=True, unbiased=n_minus_1) + _EPS).sqrt() for n_minus_1 in (False, True)
    )
    normalized, g = (x - mean(x)) / deviation, output_gradient * gain
    right = gradient(g, deviation)
    return [
        (
            "the output gradient is not multiplied by the gain",
            gradient(output_gradient, deviation),
        ),
        (
            "the term − mean(g) is missing, by which x reaches the output through the mean",
            (g - normalized * mean(g * normalized)) / deviation,
        ),
        (
            "the term − x̂ · mean(g · x̂) is missing, by which x reaches the output through the "
            "variance",
            (g - mean(g)) / deviation,
        ),
        ("mean and variance are treated as constants; both depend on x", g / deviation),
        ("the division by σ is missing", right * deviation),
        ("it is divided by σ² in place of σ", right / deviation),
        (
            "σ is that of the unbiased variance (n − 1); LayerNorm divides by n",
            gradient(g, unbiased),
        ),
    ]


def _parameter_mistakes(
    name: str, x: Tensor, output_gradient: Tensor, gain: Tensor
) -> list[tuple[str, Tensor]]:
    """What is computed for the gain or the bias when it is wrong."""
    normalized = F.layer_norm(x, gain.shape, eps=_EPS)
    # Of each token, (batch, time, width); the gradient is the sum over tokens, (width,).
    right, other = output_gradient * normalized, output_gradient
    if name == "bias":
        right, other = other, right
    return [
        ("it is averaged over the tokens; they are summed", right.mean((0, 1))),
        (
            "it is multiplied by x; it must be by the normalized x̂",
            (output_gradient * x).sum((0, 1)),
        ),
        ("it must not be multiplied by the gain", (right * gain).sum((0, 1))),
        ("the gradients of gain and bias are swapped", other.sum((0, 1))),
    ]


def judge_fold_gain(module: Any) -> None:
    """W(γ ⊙ n + β) = W′ n + b′ for every n: the matrix and bias that take a norm's parameters.

    Raises:
        MistakeError: the first mistake.
    """
    function = get_member(module, "fold_gain", "function")
    # Square, so that a gain along the wrong axis broadcasts and is named; then oblong, where a
    # transposed weight shows by its shape.
    for rows, columns in ((8, 8), (5, 8)):
        gain = 1.5 + 0.5 * normal_tensor(columns, seed=31)
        bias = normal_tensor(columns, seed=32)
        weight = normal_tensor(rows, columns, seed=33)
        tensors = {"gain": gain, "bias": bias, "weight": weight}
        folded = call_solution(_FOLD, function, *tensors.values(), unchanged=tensors)
        if not isinstance(folded, tuple | list) or len(folded) != 2:
            raise MistakeError(
                f"{_FOLD} gives {type(folded).__name__}; it must give two tensors: the new weight "
                f"and the new bias of the linear layer."
            )
        new_weight, new_bias = folded
        transposed = torch.Size((columns, rows))
        if rows != columns and isinstance(new_weight, Tensor) and new_weight.shape == transposed:
            raise MistakeError("the new weight is transposed; see F.linear.")
        check_result(f"the weight of {_FOLD}", new_weight, weight.shape, torch.float64)
        check_result(f"the bias of {_FOLD}", new_bias, (rows,), torch.float64)
        _check_folded(gain, bias, weight, new_weight, new_bias)


def _check_folded(
    gain: Tensor, bias: Tensor, weight: Tensor, new_weight: Tensor, new_bias: Tensor
) -> None:
    n = normal_tensor(4, 6, weight.shape[1], seed=34)
    right = F.linear(gain * n + bias, weight)
    if is_same(F.linear(n, new_weight, new_bias), right):
        return
    share = format_percent(relative_difference(F.linear(n, new_weight, new_bias), right))
    right_weight = weight * gain
    square = weight.shape[0] == weight.shape[1]
    weights = [
        ("the weight does not hold the gain", weight),
        (
            "the gain multiplies the rows of the weight; it belongs to the input features, which "
            "are its columns: W′[i, j] = W[i, j] · gain[j]",
            # With more or fewer rows than gains torch refuses this product by itself.
            weight * gain[:, None] if square else weight,
        ),
        ("the weight is divided by the gain", weight / gain),
        ("the weight holds the gain twice", right_weight * gain),
        ("the new weight is transposed", right_weight.T),
    ]
    biases = [
        (
            "the norm's bias is lost; it becomes W · bias, a bias of the linear layer",
            torch.zeros_like(new_bias),
        ),
        (
            "the norm's bias went through the folded weight; it is added after the gain, so the "
            "new bias is W · bias with the weight before folding",
            F.linear(bias, right_weight),
        ),
        (
            "the norm's bias is passed on as it is; it goes through the weight, W · bias",
            bias if square else torch.zeros_like(new_bias),
        ),
    ]
    if is_same(new_weight, right_weight):
        sentence = name_mistake(new_bias, biases)
    else:
        sentence = name_mistake(new_weight, weights)
    raise MistakeError(
        f"W′n + b′ differs from W(gain · n + bias) by {share}{f': {sentence}' if sentence else ''}."
    )
