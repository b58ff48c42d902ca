"""A norm of the learner's own that beats RMSNorm in one row of the card: a token with an outlier.

Trained models have features that are hundreds of times larger than the others in every token
(2208.07339). RMSNorm divides all features by them, so the others become small. The card shows it:
the median of |y| for the input `outlier`, where feature 0 is 1000 and the rest N(0, 1).
"""

from statistics import median
from typing import Any

import torch
from torch import nn

from normlab.apps.card.invariances import measure_invariances, move_parameters
from normlab.apps.card.measure import check_norm, measure_outputs
from normlab.apps.learn.judges.mistake import (
    MistakeError,
    build_module,
    call_solution,
    format_percent,
    get_member,
    normal_tensor,
)
from normlab.apps.learn.judges.norms import check_call, check_tokens
from normlab.errors import ConfigError
from normlab.norms import RMSNorm

WIDTH = 256
# The median of |y| on the token with an outlier, at this width: RMSNorm 0.0109, division by the
# mean of |x| 0.116, by the median of |x| 0.67.
TIMES_BETTER = 5.0  # by how much the median of |y| must exceed RMSNorm's
_ORDINARY_RMS = (0.5, 2.0)
_SCALE = "input scale"
# With this step a norm that computes in fp32, in x.float(), has an error of 0.3 % by rounding. The
# step of torch's gradcheck, 1e-6, would need a norm that computes in float64.
_STEP, _GRADIENT_ERROR = 1e-4, 0.05


def judge_beat_rmsnorm(module: Any) -> None:
    """Measure the learner's norm by the card's own measurements.

    Raises:
        MistakeError: the first property that it lacks.
    """
    build = get_member(module, "MyNorm", "class")
    small = build_module("MyNorm", build, 8)
    check_call("MyNorm", small)
    check_tokens("MyNorm", small)
    norm = build_module("MyNorm", build, WIDTH)
    try:
        check_norm(norm, "MyNorm", WIDTH)
    except ConfigError as error:
        # The sentence begins with the option of card.py, which the learner has not given.
        raise MistakeError(str(error).removeprefix("norm=")) from error
    _check_ordinary_output(norm)
    _check_scale(norm)
    _check_gradient(norm)
    ours, rmsnorm = (outlier_median(module) for module in (norm, RMSNorm(WIDTH)))
    if ours < TIMES_BETTER * rmsnorm:
        raise MistakeError(
            f"on a token with one feature of 1000 the median of |y| is {ours:.3g}; RMSNorm has "
            f"{rmsnorm:.3g}, and at least {TIMES_BETTER:g} times as much is required, "
            f"{TIMES_BETTER * rmsnorm:.3g}."
        )
    zeros = call_solution("MyNorm of a token of zeros", norm, torch.zeros(1, 2, WIDTH))
    if not zeros.isfinite().all():
        raise MistakeError(
            "for a token of zeros the output is not finite; add an ε to the divisor."
        )


def outlier_median(norm: nn.Module) -> float:
    """The card's median of |y| for tokens with an outlier of 1000; 0 where it is not finite."""
    (outlier,) = [row for row in measure_outputs(norm, WIDTH) if row.input == "outlier"]
    return outlier.median or 0.0


def _check_ordinary_output(norm: nn.Module) -> None:
    (ordinary,) = [row for row in measure_outputs(norm, WIDTH) if row.input == "N(0,1)"]
    low, high = _ORDINARY_RMS
    if ordinary.rms is None or not low <= ordinary.rms <= high:
        raise MistakeError(
            f"on tokens of N(0, 1) the output has RMS {ordinary.rms or 0:.3g}; it must be from "
            f"{low} to {high}, or a larger output alone would win."
        )


def _check_scale(norm: nn.Module) -> None:
    (scale,) = [row for row in measure_invariances(norm, WIDTH) if row.name == _SCALE]
    if scale.verdict not in ("yes", "to eps"):
        raise MistakeError(
            f"N(cx) = N(x) does not hold: the sides differ by {scale.deviation or 0:.2g} of the "
            f"RMS. A norm that depends on the size of its input, as tanh does, has another task "
            f"here; divide by a statistic of the token."
        )


def _check_gradient(norm: nn.Module) -> None:
    """The gradients by autograd of the input and of each parameter against difference quotients."""
    # In float64, off the start: a gain that begins at 0 would hide every gradient of x.
    norm = move_parameters(norm)
    errors: dict[str, list[float]] = {}
    for seed in range(5):
        x = normal_tensor(4, WIDTH, seed=100 + seed).requires_grad_()
        leaves = {"x": x, **dict(norm.named_parameters())}
        # Both have a part along x, where what autograd does not see of a statistic shows most.
        weights, direction = (
            normal_tensor(4, WIDTH, seed=first + seed) + x.detach() / 4 for first in (20, 30)
        )
        directions = {name: normal_tensor(*leaf.shape, seed=40) for name, leaf in leaves.items()}
        directions["x"] = direction
        gradients = torch.autograd.grad(
            (weights * norm(x)).sum(), list(leaves.values()), allow_unused=True
        )
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
            ends = []
            with torch.no_grad():
                before = leaf.clone()
                for sign in (1, -1):
                    leaf.copy_(before + sign * _STEP * directions[name])
                    ends.append(norm(x))
                leaf.copy_(before)
            quotient = float((weights * (ends[0] - ends[1])).sum()) / (2 * _STEP)
            # A parameter without any effect has no gradient, and the quotient 0: its error is
            # absolute.
            slope = 0.0 if gradient is None else float((gradient * directions[name]).sum())
            difference = abs(slope - quotient)
            errors.setdefault(name, []).append(difference / (abs(quotient) or 1.0))
    for name, values in errors.items():
        # The median, because a norm by a median has kinks, and a step may cross one.
        error = median(values)
        if error > _GRADIENT_ERROR:
            raise MistakeError(
                f"the gradient of {name} by autograd is off by {format_percent(error)} from the "
                f"difference quotient of the output; a part of the forward pass is cut off by "
                f"detach, no_grad, .data or .item()."
            )
