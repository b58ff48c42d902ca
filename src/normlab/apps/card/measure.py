"""A norm's identity card: what can be known of it in seconds, before it is trained.

The measurements know nothing of how they are shown; see `normlab.apps.card.record` for the card.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from normlab.apps.card.extremes import extremes, outputs, roundings
from normlab.apps.card.inputs import standard, widened
from normlab.apps.card.invariances import computes_in, invariances
from normlab.apps.card.record import Card, Parameter
from normlab.apps.card.sensitivity import MOST_WIDTH, curves, derivatives, spectrum
from normlab.apps.card.timing import speed
from normlab.errors import ConfigError
from normlab.norms.build import check_parameters

__all__ = ["measure"]


def measure(
    build: Callable[[int], nn.Module],
    width: int = 512,
    *,
    name: str = "norm",
    config: Mapping[str, Any] | None = None,
    threads: int = 1,
    seconds: float = 0.8,
) -> Card:
    """Measure the norm that `build` makes for a width.

    `name` and `config` are only written on the card; `threads` and `seconds` are those of the
    timing. Inputs have shape (batch, tokens, width).

    Raises:
        ConfigError: it cannot be built or called, or is not a function that a model could use:
            another shape, another dtype, no gradient, NaN for a standard-normal input.
    """
    norm = build(width)
    _check(norm, name, width)
    inside = computes_in(norm, width)
    narrow = min(width, MOST_WIDTH)
    first, second = derivatives(norm, width, inside)
    return Card(
        name=name,
        config=dict(config or {}),
        width=width,
        parameters=tuple(Parameter(key, tuple(p.shape)) for key, p in norm.named_parameters()),
        computes_in=_word(inside),
        outputs=outputs(norm, width),
        invariances=invariances(norm, width),
        spectrum=spectrum(norm if narrow == width else build(narrow), narrow, inside),
        extremes=extremes(norm, width),
        rounding=roundings(norm, width),
        gradcheck=first,
        second_gradcheck=second,
        speed=speed(norm, width, threads, seconds),
        curves=curves(norm, width),
    )


def _check(norm: nn.Module, name: str, width: int) -> None:
    """Refuse what no residual stream could be sent through."""
    check_parameters(norm, width, f"norm={name}")
    x = standard(2, 4, width)
    for module, given in ((copy.deepcopy(norm), x.float()), (widened(norm), x)):
        where = f"{tuple(given.shape)} in {_word(given.dtype)}"
        try:
            problem = _problem(module, given.requires_grad_())
        except Exception as error:
            raise ConfigError(
                f"norm={name} fails on an input of shape {where}: {type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        if problem:
            raise ConfigError(
                f"norm={name} {problem}; a norm takes one tensor and gives another of the same "
                f"shape and dtype, here {where}."
            )


def _problem(norm: nn.Module, x: Tensor) -> str:
    given = x * 1  # no leaf, as in a model: it could be changed in place
    y = norm(given)
    if not isinstance(y, Tensor):
        return f"gives a {type(y).__name__}"
    if y.shape != x.shape:
        return f"changes the shape to {tuple(y.shape)}"
    if y.dtype != x.dtype:
        return f"gives {_word(y.dtype)}"
    if not torch.equal(given, x):
        return "changes its input in place"
    if not y.isfinite().all():
        return "gives values that are not finite for a standard-normal input"
    if not y.requires_grad:
        return "lets no gradient through"
    torch.autograd.grad(y.sum(), x)
    return ""


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
