"""QK-norm: attention weights whose queries and keys are normalized in each head."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from normlab.apps.learn.judges.mistake import (
    MistakeError,
    call_solution,
    check_result,
    format_percent,
    get_member,
    is_same,
    normal_tensor,
    raise_mistakes,
    relative_difference,
)

_CALL = "attention_weights(q, k, q_gain, k_gain, eps)"
_SHAPE = (2, 3, 5, 8)  # batch, heads, tokens, features of a head
_REVERSED_MASK = (
    f"the mask is reversed: it hides the past, and token 0 sees token {_SHAPE[2] - 1}, the future"
)


@dataclass(frozen=True)
class Scores:
    """How attention weights are computed: the right way, or with mistakes.

    Attributes:
        queries, keys: whether each is normalized.
        axis: over what: `feature`, `head` or `token` (one dimension), `all` heads' features.
        gain: whether the gains are applied.
        scale: by what the products are divided: √D (`root`), 1 (`none`), D (`width`), the root of
            √D (`fourth`), or 1/√D (`times`).
        mask: how the future is masked: with −∞ (`infinite`), not (`none`), by scores of 0
            (`product`), or by weights of 0 `after` the softmax. With −∞ too, but of other tokens:
            the past (`reversed`), or the future without the next token (`shifted`).
        centred: whether the mean is removed, as by LayerNorm.
        softmax: along keys, or (a mistake) along queries; or none.
        eps: where ε stands: `inside` the root, `outside`, or nowhere (`missing`).
        statistic: of the squares, the `mean` or the `sum`.
    """

    queries: bool = True
    keys: bool = True
    axis: str = "feature"
    gain: bool = True
    scale: str = "root"
    mask: str = "infinite"
    centred: bool = False
    softmax: str = "keys"
    eps: str = "inside"
    statistic: str = "mean"

    def compute(self, q: Tensor, k: Tensor, q_gain: Tensor, k_gain: Tensor, eps: float) -> Tensor:
        """(B, H, T, D) twice → (B, H, T, T)."""
        q = self._normalize(q, q_gain, eps) if self.queries else q
        k = self._normalize(k, k_gain, eps) if self.keys else k
        width = q.shape[-1]
        powers = {"root": 0.5, "none": 0.0, "width": 1.0, "fourth": 0.25, "times": -0.5}
        # (B, H, T, T). math.pow, because ** of two numbers has the type Any.
        scores = q @ k.transpose(-2, -1) / math.pow(width, powers[self.scale])
        pairs = torch.ones(scores.shape[-2:], dtype=torch.bool)
        future = pairs.triu(1)
        masked = {"reversed": pairs.tril(-1), "shifted": pairs.triu(2)}.get(self.mask, future)
        if self.mask not in ("none", "after"):
            scores = scores.masked_fill(masked, 0.0 if self.mask == "product" else -torch.inf)
        if self.softmax != "none":
            scores = scores.softmax(-1 if self.softmax == "keys" else -2)
        return scores.masked_fill(future, 0.0) if self.mask == "after" else scores

    def _normalize(self, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        axes = {"feature": (-1,), "head": (-3,), "token": (-2,), "all": (-3, -1)}[self.axis]
        if self.centred:
            x = x - x.mean(axes, keepdim=True)
        square = x.square()
        reduce = square.mean if self.statistic == "mean" else square.sum
        statistic = reduce(axes, keepdim=True)
        inside, outside = {"inside": (eps, 0.0), "outside": (0.0, eps)}.get(self.eps, (0.0, 0.0))
        y = x / ((statistic + inside).sqrt() + outside)
        return y * gain if self.gain else y


# By sentence: the choices that the mistake changes.
_MISTAKES: dict[str, dict[str, Any]] = {
    "neither queries nor keys are normalized": {"queries": False, "keys": False},
    "only the queries are normalized; the keys must be too": {"keys": False},
    "only the keys are normalized; the queries must be too": {"queries": False},
    (
        "the statistic is taken over the tokens, so a token sees later ones; it must be taken over "
        "the features of one head (dim=-1)"
    ): {"axis": "token"},
    (
        "the statistic is taken over the heads; it must be taken over the features of one head "
        "(dim=-1)"
    ): {"axis": "head"},
    (
        "the statistic is taken over the features of all heads together, as OLMo 2 does; here each "
        "head has its own"
    ): {"axis": "all"},
    "the products are not divided by √D": {"scale": "none"},
    "the products are divided by D in place of √D, as by a division by √D that is done twice": {
        "scale": "width"
    },
    "the products are multiplied by √D; they must be divided by it": {"scale": "times"},
    "the products are divided by the root of √D; they must be divided by √D": {"scale": "fourth"},
    "the gains are not applied": {"gain": False},
    "the causal mask is missing: token 3 attends to token 4": {"mask": "none"},
    _REVERSED_MASK: {"mask": "reversed"},
    (
        "the mask leaves one token of the future: token 0 attends to token 1; it must be "
        "ones.triu(1)"
    ): {"mask": "shifted"},
    (
        "the scores of the future are multiplied by 0 before the softmax, so they still get a "
        "weight, exp(0) = 1 of the sum; set them to −∞"
    ): {"mask": "product"},
    (
        "the mask comes after the softmax, so the weights of a token do not add up to 1; set the "
        "scores to −∞ before it"
    ): {"mask": "after"},
    (
        "the vectors are divided by their Euclidean length, the root of the sum of squares; the "
        "root of their mean is required, RMSNorm"
    ): {"statistic": "sum"},
    "the mean is subtracted; RMSNorm does not subtract it": {"centred": True},
    (
        "the softmax runs over the queries; the weights of one query over the keys must add up to 1"
    ): {"softmax": "queries"},
    "the softmax is missing": {"softmax": "none"},
    "ε stands outside the root; it must be inside, √(mean x² + ε)": {"eps": "outside"},
    "ε has no effect": {"eps": "missing"},
}


def judge_qk_norm(module: Any) -> None:
    """softmax(N(q) N(k)ᵀ / √D) over the past, RMSNorm in each head (2010.04245, 2302.05442).

    Raises:
        MistakeError: the first mistake.
    """
    function = get_member(module, "attention_weights", "function")
    # Different sizes, means off 0 and gains off 1: whatever is left out changes the weights.
    q = 3 * normal_tensor(*_SHAPE, seed=61) + 1
    k = 0.5 * normal_tensor(*_SHAPE, seed=62) - 0.5
    q_gain, k_gain = (1.5 + 0.5 * normal_tensor(_SHAPE[-1], seed=seed) for seed in (63, 64))
    # The second pair is of the size of √ε = 3e-3, so that it matters where ε stands.
    inputs = [(q, k, 1e-5), (1e-3 * q, 1e-3 * k, 1e-5)]
    outputs = []
    for queries, keys, eps in inputs:
        tensors = {"q": queries, "k": keys, "q_gain": q_gain, "k_gain": k_gain}
        result = call_solution(_CALL, function, *tensors.values(), eps, unchanged=tensors)
        outputs.append(_check_weights(result))
    right = Scores()
    references = [right.compute(a, b, q_gain, k_gain, eps) for a, b, eps in inputs]
    if all(map(is_same, outputs, references)):
        return
    share = max(map(relative_difference, outputs, references))
    difference = f"The weights differ by {format_percent(share)}."

    def is_made(options: dict[str, Any]) -> bool:
        wrong = replace(right, **options)
        results = [wrong.compute(a, b, q_gain, k_gain, eps) for a, b, eps in inputs]
        return all(map(_equal_with_infinities, outputs, results))

    raise_mistakes(_MISTAKES, is_made, difference)
    raise MistakeError(
        f"the weights are not those of QK-norm, and not of a mistake that is known here. "
        f"{difference}"
    )


def _check_weights(result: Any) -> Tensor:
    shape = (*_SHAPE[:3], _SHAPE[2])
    if isinstance(result, Tensor) and result.shape == torch.Size(shape):
        # A token that may attend to nothing: the softmax of −∞ alone is NaN. The queries for which
        # every weight is NaN, in every sequence and head: (B, H, T, T) → (T,).
        empty = result.isnan().all(-1).all(0).all(0).nonzero().flatten().tolist()
        if empty == [0]:
            raise MistakeError(
                "token 0 has no token to attend to, so its weights are NaN: the mask hides the "
                "token itself too; mask later tokens only, ones.triu(1)."
            )
        if empty == [_SHAPE[2] - 1]:
            raise MistakeError(
                f"{_REVERSED_MASK}; the last token has nothing to attend to, so its weights are "
                f"NaN. Mask later tokens, ones.triu(1)."
            )
        # Scores before the softmax are infinite at masked places: that has a sentence of its own.
        check_result(_CALL, result.masked_fill(result == -torch.inf, 0.0), shape, torch.float64)
        return result
    return check_result(_CALL, result, shape, torch.float64)


def _equal_with_infinities(value: Tensor, reference: Tensor) -> bool:
    # Without its softmax the right mask leaves −∞, and −∞ minus −∞ is NaN.
    return torch.equal(value.isinf(), reference.isinf()) and is_same(
        value.masked_fill(value.isinf(), 0.0), reference.masked_fill(reference.isinf(), 0.0)
    )
