"""Means over seeds of what is measured at every layer of a network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from normlab.apps.card.record import Number, number
from normlab.apps.experiments.record import Profile


@dataclass
class Gathered:
    """One row a seed, of four numbers a layer.

    They are the mean, the mean square, the variance across inputs, and the gradient's squared norm
    over that at the last layer.
    """

    rows: list[list[tuple[float, float, float, float]]] = field(default_factory=list)

    def add(self, activations: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """What one seed gave: (inputs, width) activations and gradients, layer by layer."""
        squares = [float(gradient.double().square().sum()) for gradient in gradients]
        squares = squares or [math.nan] * len(activations)
        last = squares[-1] or math.nan
        self.rows.append(
            [
                (*_moments(one.double()), square / last)
                for one, square in zip(activations, squares, strict=True)
            ]
        )

    def profile(
        self,
        name: str,
        norm: str,
        placement: str | None,
        init: str,
        width: int,
        variances: dict[str, Any] | None = None,
    ) -> Profile:
        """The means over the seeds so far, under these names."""
        rows = torch.tensor(self.rows, dtype=torch.float64)  # (seeds, layers, 4)
        mean, square, across, gradient = rows.mean(0).unbind(-1)
        variance = square - mean.square()
        return Profile(
            name=name,
            norm=norm,
            placement=placement,
            init=init,
            width=width,
            seeds=len(self.rows),
            rms=_numbers(square.sqrt()),
            std=_numbers(variance.sqrt()),
            share=_numbers(across / variance),
            gradient=_numbers(gradient.sqrt()),
            # Of a root, half the error of what is under it.
            rms_error=_numbers(_error(rows[..., 1]) / 2),
            gradient_error=_numbers(_error(rows[..., 3]) / 2),
            **(variances or {}),
        )


def _moments(x: Tensor) -> tuple[float, float, float]:
    return float(x.mean()), float(x.square().mean()), float(x.var(0).mean())


def _error(values: Tensor) -> Tensor:
    """The standard error of the mean over seeds, relative to it; of one seed, unknown."""
    if len(values) == 1:
        return torch.full_like(values[0], math.nan)
    return values.std(0) / values.mean(0) / math.sqrt(len(values))


def _numbers(values: Tensor) -> tuple[Number, ...]:
    return tuple(number(value) for value in values.tolist())
