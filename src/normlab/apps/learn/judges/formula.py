"""Gemma's RMSNorm as a formula in YAML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from normlab.apps.learn.judges.mistake import (
    MistakeError,
    combine_mistakes,
    format_percent,
    is_same,
    normal_tensor,
    raise_known_mistake,
    read_configuration,
    relative_difference,
)
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
            "no-formula",
            f"_target_ is {target}; a formula has `_target_: normlab.norms.Formula` and an "
            f"expression.",
        )
    try:
        check_formula("formula", config, _WIDTH)
        norm = norm_factory(config, "formula")(_WIDTH)
        # On a norm of its own: the check leaves the parameters changed.
        check_contract(norm_factory(config, "formula")(_WIDTH), _WIDTH, "the formula")
    except ConfigError as error:
        raise MistakeError("configuration", str(error)) from error
    parameters = dict(norm.named_parameters())
    if len(parameters) != 1:
        raise MistakeError(
            "parameters",
            f"the formula has {len(parameters)} parameters ({', '.join(parameters) or 'none'}); it "
            f"must have one, the offset w.",
        )
    (offset,) = parameters.values()
    if tuple(offset.shape) != (_WIDTH,):
        raise MistakeError(
            "parameter-shape",
            "the offset is one number for all features; it must be one per feature (per: feature).",
        )
    _check_start(norm, offset)
    _check_values(norm)


def _check_start(norm: nn.Module, offset: Tensor) -> None:
    """Tell a gain that starts at 1 from an offset that starts at 0."""
    start = float(offset.detach().mean())
    if start != 0:
        size = float(norm(normal_tensor(4, 6, _WIDTH)).detach().square().mean().sqrt())
        raise MistakeError(
            "offset-start",
            f"the parameter starts at {start:g}, and the output has RMS {size:.3g} at the start; "
            f"Gemma's offset starts at 0 and is added to 1.",
        )


# By mistake: kind, sentence, and what it changes: (root, ε, factor) of one token's feature.
_FORMULA_MISTAKES: list[tuple[str, str, dict[str, Any]]] = [
    ("eps-outside", "ε stands outside the root; it must be inside", {"eps": "outside"}),
    ("eps-missing", "ε has no effect", {"eps": "missing"}),
    ("eps-value", "ε is 1e-5; Gemma's is 1e-6", {"number": 1e-5}),
    ("one-missing", "the factor is w; it must be 1 + w", {"one": 0.0}),
    ("mean-removed", "the mean is subtracted; RMSNorm does not subtract it", {"centred": True}),
    ("root-missing", "x is divided by the mean square; its root is missing", {"root": False}),
    (
        "sum-for-mean",
        "x is divided by the root of the sum of squares; the root of the mean is required",
        {"sum": True},
    ),
]


def _gemma_norm(
    x: Tensor,
    offset: Tensor,
    eps: str = "inside",
    number: float = _EPS,
    one: float = 1.0,
    centred: bool = False,
    root: bool = True,
    sum: bool = False,  # noqa: A002
) -> Tensor:
    """(…, width) → (…, width); with the default choices Gemma's RMSNorm (2403.08295)."""
    if centred:
        x = x - x.mean(-1, keepdim=True)
    square = x.square().mean(-1, keepdim=True) * (x.shape[-1] if sum else 1)
    inside = square + (number if eps == "inside" else 0.0)
    divisor = (inside.sqrt() if root else inside) + (number if eps == "outside" else 0.0)
    return x / divisor * (one + offset)


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
    references = [_gemma_norm(x, values) for x in inputs]
    if all(map(is_same, outputs, references)):
        return
    share = format_percent(max(map(relative_difference, outputs, references)))

    def is_made(options: dict[str, Any]) -> bool:
        return all(
            is_same(y, _gemma_norm(x, values, **options))
            for x, y in zip(inputs, outputs, strict=True)
        )

    difference = f"The output differs by {share}."
    raise_known_mistake(combine_mistakes(_FORMULA_MISTAKES), is_made, difference)
    raise MistakeError(
        "other-function",
        f"the output differs by {share} from Gemma's RMSNorm, x / √(mean x² + 1e-6) · (1 + w).",
    )
