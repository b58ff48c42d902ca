"""The learner's own test for a leak, tried on functions whose answer is certain.

Each function has a reason why its answer is what it is, and a wrong answer tells which idea of a
leak is wrong: later tokens may depend on earlier ones, not the other way round.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normlab.apps.learn.judges.mistake import (
    MistakeError,
    call_solution,
    describe_value,
    get_member,
    normal_tensor,
)

_CALL = "sees_future(function, x)"
_OWN_FEATURES = "each token is divided by a statistic of its own features"


@dataclass(frozen=True)
class Case:
    """A function (batch, time, width) → the same shape, and whether a token sees a later one.

    Attributes:
        reason: why the right answer is what it is.
        advice: a sentence, or nothing.
    """

    name: str
    leaks: bool
    reason: str
    advice: str
    function: Callable[[Tensor], Tensor]


def _rms_norm(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The function x / √(mean x² + ε), with a mean over these axes."""
    return x / (x.square().mean(axes, keepdim=True) + 1e-5).sqrt()


def _over_past(x: Tensor) -> Tensor:
    counts = torch.arange(1, x.shape[-2] + 1, dtype=x.dtype)[:, None]
    square = x.square().mean(-1, keepdim=True).cumsum(-2) / counts
    return x / (square + 1e-5).sqrt()


def _next_token(x: Tensor) -> Tensor:
    following = torch.cat([x[:, 1:], x[:, -1:]], 1)
    return x / (following.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def _maximum(x: Tensor) -> Tensor:
    # Entries of N(0, 1) never reach the limit, so that only a large change is seen.
    return x / x.abs().amax((-2, -1), keepdim=True).clamp(min=10.0)


def _last_to_first(x: Tensor) -> Tensor:
    # One pair alone: the first token reads the last.
    y = x.clone()
    y[:, 0] = y[:, 0] + 0.1 * x[:, -1]
    return y


def _mean_of_pairs(x: Tensor) -> Tensor:
    # A leak inside the middle of the sequence: token 2 reads token 3.
    y = x.clone()
    y[:, 2] = (x[:, 2] + x[:, 3]) / 2
    return y


def _float_sum(x: Tensor) -> Tensor:
    # Computed in fp32: equal inputs give equal outputs, and no token reads another.
    single = x.float()
    return (single / single.square().sum(-1, keepdim=True).sqrt()).to(x.dtype)


CASES = (
    Case(
        "LayerNorm",
        False,
        _OWN_FEATURES,
        "",
        lambda x: _rms_norm(x - x.mean(-1, keepdim=True), (-1,)),
    ),
    Case(
        "RMSNorm over time",
        True,
        "its statistic is taken over later tokens too",
        "",
        lambda x: _rms_norm(x, (-2, -1)),
    ),
    Case(
        "a norm by the running mean over the past",
        False,
        "a token depends on earlier ones only, which is allowed",
        "Compare the outputs of the tokens before the changed one, and no others.",
        _over_past,
    ),
    Case("a norm by the RMS of the next token", True, "token t reads token t + 1", "", _next_token),
    Case(
        "a norm by the largest entry of the sequence, at least 10",
        True,
        "a later token can be the largest",
        "A maximum sees only a large change; multiply the token by a large number.",
        _maximum,
    ),
    Case(
        "a function that adds one token to another",
        True,
        "token 0 reads the last token",
        "Change every token in turn, the last one too.",
        _last_to_first,
    ),
    Case(
        "a function that averages two tokens",
        True,
        "token 2 reads token 3",
        "Change every token in turn, not only the last one.",
        _mean_of_pairs,
    ),
    Case(
        "a norm over the sequences of a batch",
        False,
        "a token reads other sequences, and no later token of its own",
        "Change one sequence, and compare the outputs of that sequence only.",
        lambda x: _rms_norm(x, (0, -1)),
    ),
    Case("a norm in fp32", False, _OWN_FEATURES, "", _float_sum),
)


def judge_find_the_leak(module: Any) -> None:
    """Whether the learner's function tells leaking functions from the others.

    Raises:
        MistakeError: the first wrong answer.
    """
    function = get_member(module, "sees_future", "function")
    for case in CASES:
        x = normal_tensor(2, 6, 8, seed=81)
        answer = call_solution(_CALL, function, case.function, x, unchanged={"x": x})
        # Comparisons and any() of tensors give a tensor of one truth value.
        if isinstance(answer, Tensor) and answer.numel() == 1:
            answer = bool(answer)
        if not isinstance(answer, bool):
            raise MistakeError(
                f"{_CALL} gives {describe_value(answer)}; it must give True or False."
            )
        if answer != case.leaks:
            sentence = (
                f"{_CALL} is {answer} for {case.name}, and must be {case.leaks}, because "
                f"{case.reason}. {case.advice}"
            )
            raise MistakeError(sentence.rstrip())
