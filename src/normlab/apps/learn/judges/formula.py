"""Gemma's RMSNorm as a formula in YAML."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from normlab.apps.learn.judges.mistake import (
    MistakeError,
    format_percent,
    is_same,
    normal_tensor,
    raise_mistakes,
    read_configuration,
    relative_difference,
)
from normlab.apps.learn.judges.norms import Recipe
from normlab.config.formula import check_formula, is_formula
from normlab.errors import ConfigError
from normlab.norms import norm_factory
from normlab.norms.build import check_contract

_WIDTH, _EPS = 8, 1e-6


def judge_formula(path: Path) -> None:
    """Gemma's RMSNorm as a formula: x / √(mean x² + ε) · (1 + w), w per feature from 0.

    Raises:
        MistakeError: the first mistake.
    """
    config = read_configuration(path)
    if not is_formula(config):
        target = config.get("_target_") if isinstance(config, Mapping) else config
        raise MistakeError(
            f"_target_ is {target}; a formula has `_target_: normlab.norms.Formula` and an "
            f"expression."
        )
    try:
        check_formula("formula", config, _WIDTH)
        norm = norm_factory(config, "formula")(_WIDTH)
        # On a norm of its own: the check leaves the parameters changed.
        check_contract(norm_factory(config, "formula")(_WIDTH), _WIDTH, "the formula")
    except ConfigError as error:
        raise MistakeError(str(error)) from error
    parameters = dict(norm.named_parameters())
    if len(parameters) != 1:
        raise MistakeError(
            f"the formula has {len(parameters)} parameters ({', '.join(parameters) or 'none'}); it "
            f"must have one, the offset w."
        )
    (offset,) = parameters.values()
    if tuple(offset.shape) != (_WIDTH,):
        raise MistakeError(
            "the offset is one number for all features; it must be one per feature (per: feature)."
        )
    _check_start(norm, offset)
    _check_values(norm)


def _check_start(norm: nn.Module, offset: Tensor) -> None:
    """Tell a gain that starts at 1 from an offset that starts at 0."""
    start = float(offset.detach().mean())
    if start != 0:
        size = float(norm(normal_tensor(4, 6, _WIDTH)).detach().square().mean().sqrt())
        raise MistakeError(
            f"the parameter starts at {start:g}, and the output has RMS {size:.3g} at the start; "
            f"Gemma's offset starts at 0 and is added to 1."
        )


# Gemma's RMSNorm (2403.08295), whose gain is 1 + offset.
_GEMMA = Recipe(False, "rms", "inside", gain="offset")
# By sentence: the choices that the mistake changes. The recipe's fixed ε is 1e-5.
_MISTAKES: dict[str, dict[str, Any]] = {
    "ε stands outside the root; it must be inside": {"eps": "outside"},
    "ε has no effect": {"eps": "missing"},
    "ε is 1e-5; Gemma's is 1e-6": {"eps": "fixed"},
    "the factor is w; it must be 1 + w": {"gain": "once"},
    "the mean is subtracted; RMSNorm does not subtract it": {"centred": "first"},
    "x is divided by the mean square; its root is missing": {"root": "missing"},
    "x is divided by the root of the sum of squares; the root of the mean is required": {
        "statistic": "l2"
    },
}


def _check_values(norm: nn.Module) -> None:
    norm = norm.double()
    values = 0.5 * normal_tensor(_WIDTH, seed=91)
    with torch.no_grad():
        offset = next(norm.parameters())
        offset.copy_(values)
        small = normal_tensor(4, 6, _WIDTH, seed=92)
        # Mean square 1e-6, which is ε: here it matters where ε stands, and whether it is 1e-5.
        small = 1e-3 * small / small.square().mean(-1, keepdim=True).sqrt()
        inputs = [normal_tensor(4, 6, _WIDTH, seed=93) + 2, small]
        outputs = [norm(x) for x in inputs]

    def compute(changes: dict[str, Any]) -> list[Tensor]:
        recipe = replace(_GEMMA, **changes)
        return [recipe.apply(x, values, None, _EPS) for x in inputs]

    references = compute({})
    if all(map(is_same, outputs, references)):
        return
    share = format_percent(max(map(relative_difference, outputs, references)))
    raise_mistakes(
        _MISTAKES,
        lambda changes: all(map(is_same, outputs, compute(changes))),
        f"The output differs by {share}.",
    )
    raise MistakeError(
        f"the output differs by {share} from Gemma's RMSNorm, x / √(mean x² + 1e-6) · (1 + w)."
    )
