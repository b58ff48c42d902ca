"""A norm of the learner's own that beats RMSNorm in one row of the card: a token with an outlier.

Trained models have features that are hundreds of times larger than the others in every token
(2208.07339). RMSNorm divides all features by them, so the others become small. The card shows it:
the median of |y| for the input `outlier`, where feature 0 is 1000 and the rest N(0, 1).
"""

from typing import Any

import torch
from torch import nn

from normlab.apps.card.invariances import measure_invariances
from normlab.apps.card.measure import check_derivatives, check_norm, measure_outputs
from normlab.apps.learn.judges.mistake import (
    MistakeError,
    build_module,
    call_solution,
    get_member,
)
from normlab.apps.learn.judges.norms import check_call, check_tokens
from normlab.errors import ConfigError
from normlab.norms import RMSNorm

WIDTH = 256
TIMES_BETTER = 5.0  # by how much the median of |y| must exceed RMSNorm's
_ORDINARY_RMS = (0.5, 2.0)
_SCALE = "input scale"


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
        raise MistakeError("no-norm", str(error).removeprefix("norm=")) from error
    _check_ordinary_output(norm)
    _check_scale(norm)
    first, _ = check_derivatives(norm, WIDTH, torch.float64)
    if first == "fails":
        raise MistakeError(
            "gradient", "the gradient by autograd is not that of the function (gradcheck fails)."
        )
    ours, rmsnorm = (outlier_median(module) for module in (norm, RMSNorm(WIDTH)))
    if ours < TIMES_BETTER * rmsnorm:
        raise MistakeError(
            "not-better",
            f"on a token with one feature of 1000 the median of |y| is {ours:.3g}; RMSNorm has "
            f"{rmsnorm:.3g}, and at least {TIMES_BETTER:g} times as much is required, "
            f"{TIMES_BETTER * rmsnorm:.3g}.",
        )
    zeros = call_solution("MyNorm of a token of zeros", norm, torch.zeros(1, 2, WIDTH))
    if not zeros.isfinite().all():
        raise MistakeError(
            "zeros", "for a token of zeros the output is not finite; add an ε to the divisor."
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
            "output-size",
            f"on tokens of N(0, 1) the output has RMS {ordinary.rms or 0:.3g}; it must be from "
            f"{low} to {high}, or a larger output alone would win.",
        )


def _check_scale(norm: nn.Module) -> None:
    (scale,) = [row for row in measure_invariances(norm, WIDTH) if row.name == _SCALE]
    if scale.verdict not in ("yes", "to eps"):
        raise MistakeError(
            "scale-dependent",
            f"N(cx) = N(x) does not hold: the sides differ by {scale.deviation or 0:.2g} of the "
            f"RMS. A norm that depends on the size of its input, as tanh does, has another task "
            f"here; divide by a statistic of the token.",
        )
