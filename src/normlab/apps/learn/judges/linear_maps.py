"""LayerNorm's backward pass, and a norm's gain folded into the next matrix."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from normlab.apps.learn.judges.mistake import (
    MistakeError,
    Variant,
    call_solution,
    check_result,
    check_unchanged,
    find_variant,
    format_percent,
    get_member,
    is_same,
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
    before = [tensor.clone() for tensor in tensors.values()]
    gradients = call_solution(_BACKWARD, function, *tensors.values(), _EPS)
    if not isinstance(gradients, tuple | list) or len(gradients) != 3:
        raise MistakeError(
            "not-three",
            f"{_BACKWARD} gives {type(gradients).__name__}; it must give three tensors: the "
            f"gradients of x, gain and bias.",
        )
    check_unchanged(_BACKWARD, tensors, before)
    # No gradient depends on the bias itself, so zeros do.
    leaves = [tensor.clone().requires_grad_() for tensor in (x, gain, torch.zeros_like(gain))]
    y = F.layer_norm(leaves[0], gain.shape, leaves[1], leaves[2], _EPS)
    references = torch.autograd.grad(y, leaves, output_gradient)
    for name, gradient, reference in zip(("x", "gain", "bias"), gradients, references, strict=True):
        # Before the shape alone is refused: this one has a cause that can be named.
        if isinstance(gradient, Tensor) and name != "x" and gradient.shape == x.shape:
            raise MistakeError(
                "sum-missing",
                f"the gradient of {name} has shape {tuple(gradient.shape)}; it is summed over all "
                f"tokens and has the shape of {name}, {tuple(reference.shape)}.",
            )
        call = f"the gradient of {name}: {_BACKWARD}"
        check_result(call, gradient, reference.shape, torch.float64)
        variants = _x_variants if name == "x" else _parameter_variants
        if not is_same(gradient, reference):
            variant = find_variant(gradient, variants(name, x, output_gradient, gain))
            share = format_percent(relative_difference(gradient, reference))
            raise MistakeError(
                variant.kind if variant else "backward-off",
                f"the gradient of {name} is off by {share} (against autograd in float64)"
                + (f": {variant.sentence}." if variant else "."),
            )


def _x_variants(name: str, x: Tensor, output_gradient: Tensor, gain: Tensor) -> list[Variant]:
    """What is computed for x when a term of σ⁻¹ (g − mean g − x̂ · mean(g x̂)) is wrong."""

    def mean(values: Tensor) -> Tensor:
        return values.mean(-1, keepdim=True)

    def gradient(
        by_gain: bool = True,
        first: bool = True,
        second: bool = True,
        scale: str = "std",
        unbiased: bool = False,
    ) -> Tensor:
        centred = x - mean(x)
        square = x.var(-1, keepdim=True, unbiased=unbiased) + _EPS
        normalized = centred / square.sqrt()
        g = output_gradient * gain if by_gain else output_gradient
        terms = g
        if first:
            terms = terms - mean(g)
        if second:
            terms = terms - normalized * mean(g * normalized)
        divisor = {"std": square.sqrt(), "none": torch.ones_like(square), "var": square}
        return terms / divisor[scale]

    rows = [
        ("gain-missing", "the output gradient is not multiplied by the gain", {"by_gain": False}),
        (
            "mean-term-missing",
            "the term − mean(g) is missing, by which x reaches the output through the mean",
            {"first": False},
        ),
        (
            "variance-term-missing",
            "the term − x̂ · mean(g · x̂) is missing, by which x reaches the output through the "
            "variance",
            {"second": False},
        ),
        (
            "statistics-constant",
            "mean and variance are treated as constants; both depend on x",
            {"first": False, "second": False},
        ),
        ("deviation-missing", "the division by σ is missing", {"scale": "none"}),
        ("variance-for-deviation", "it is divided by σ² in place of σ", {"scale": "var"}),
        (
            "unbiased-variance",
            "σ is that of the unbiased variance (n − 1); LayerNorm divides by n",
            {"unbiased": True},
        ),
    ]
    return [Variant(kind, sentence, gradient(**options)) for kind, sentence, options in rows]  # type: ignore[arg-type]


def _parameter_variants(
    name: str, x: Tensor, output_gradient: Tensor, gain: Tensor
) -> list[Variant]:
    """What is computed for the gain or the bias when it is wrong."""
    centred = x - x.mean(-1, keepdim=True)
    normalized = centred / (centred.square().mean(-1, keepdim=True) + _EPS).sqrt()

    # Of each token, (batch, time, width); the gradient is the sum over tokens, (width,).
    right = output_gradient * normalized if name == "gain" else output_gradient
    other = output_gradient if name == "gain" else output_gradient * normalized
    return [
        Variant(
            "mean-for-sum", "it is averaged over the tokens; they are summed", right.mean((0, 1))
        ),
        Variant(
            "not-normalized",
            "it is multiplied by x; it must be by the normalized x̂",
            (output_gradient * x).sum((0, 1)),
        ),
        Variant("gain-extra", "it must not be multiplied by the gain", (right * gain).sum((0, 1))),
        Variant("swapped", "the gradients of gain and bias are swapped", other.sum((0, 1))),
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
        before = [tensor.clone() for tensor in tensors.values()]
        folded = call_solution(_FOLD, function, *tensors.values())
        if not isinstance(folded, tuple | list) or len(folded) != 2:
            raise MistakeError(
                "not-two",
                f"{_FOLD} gives {type(folded).__name__}; it must give two tensors: the new weight "
                f"and the new bias of the linear layer.",
            )
        check_unchanged(_FOLD, tensors, before)
        new_weight, new_bias = folded
        transposed = torch.Size((columns, rows))
        if rows != columns and isinstance(new_weight, Tensor) and new_weight.shape == transposed:
            raise MistakeError("transposed", "the new weight is transposed; see F.linear.")
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
        Variant("gain-missing", "the weight does not hold the gain", weight),
        Variant(
            "wrong-axis",
            "the gain multiplies the rows of the weight; it belongs to the input features, which "
            "are its columns: W′[i, j] = W[i, j] · gain[j]",
            # With more or fewer rows than gains torch refuses this product by itself.
            weight * gain[:, None] if square else weight,
        ),
        Variant("gain-inverse", "the weight is divided by the gain", weight / gain),
        Variant("gain-twice", "the weight holds the gain twice", right_weight * gain),
        Variant("transposed", "the new weight is transposed", right_weight.T),
    ]
    biases = [
        Variant(
            "bias-missing",
            "the norm's bias is lost; it becomes W · bias, a bias of the linear layer",
            torch.zeros_like(new_bias),
        ),
        Variant(
            "bias-with-gain",
            "the norm's bias went through the folded weight; it is added after the gain, so the "
            "new bias is W · bias with the weight before folding",
            F.linear(bias, right_weight),
        ),
        Variant(
            "bias-not-mapped",
            "the norm's bias is passed on as it is; it goes through the weight, W · bias",
            bias if square else torch.zeros_like(new_bias),
        ),
    ]
    variant = None
    if not is_same(new_weight, right_weight):
        variant = find_variant(new_weight, weights)
    elif not is_same(new_bias, F.linear(bias, weight)):
        variant = find_variant(new_bias, biases)
    raise MistakeError(
        variant.kind if variant else "other-function",
        f"W′n + b′ differs from W(gain · n + bias) by {share}"
        + (f": {variant.sentence}." if variant else "."),
    )
