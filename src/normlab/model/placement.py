"""Where norms stand in a Transformer: one equation for one residual sublayer.

    x ← stream( skip·x + branch·output( f( input(x) ) ) )

`input`, `output` and `stream` hold a norm or nothing; `skip` and `branch` are numbers or learnable
gains. This room does not know which norm it is: it gets factories that take the width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normlab.config.expressions import evaluate

NormFactory = Callable[[int], nn.Module]


@dataclass(frozen=True)
class Placement:
    """The sites of a model that hold a norm (None: nothing), and the scales of its two branches.

    A scale is a number, an expression in L (blocks) and l (this block, from 1), or a mapping
    `{init: number or expression, per: scalar|feature}` for a learnable gain.
    """

    input: NormFactory | None = None
    output: NormFactory | None = None
    stream: NormFactory | None = None
    final: NormFactory | None = None
    embedding: NormFactory | None = None
    qk: NormFactory | None = None
    inner: NormFactory | None = None
    skip: float | str | Mapping[str, Any] = 1.0
    branch: float | str | Mapping[str, Any] = 1.0


def site(factory: NormFactory | None, width: int) -> nn.Module:
    """The norm that stands at a site of this width, or the identity."""
    return nn.Identity() if factory is None else factory(width)


class Gain(nn.Module):
    """A learnable factor, one number or one per feature (2003.04887, 2103.17239)."""

    def __init__(self, init: float, width: int | None) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((width,) if width else (), init))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width)."""
        return x * self.gain


class Factor(nn.Module):
    """A fixed factor."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width)."""
        return x * self.value


def scale(value: float | str | Mapping[str, Any], width: int, block: int, depth: int) -> nn.Module:
    """A scale's module for block `block` (from 1) of `depth`.

    Raises:
        ConfigError: an expression has no finite value at this block.
    """
    if isinstance(value, Mapping):
        init = evaluate(value.get("init", 1.0), L=depth, l=block)
        return Gain(init, width if value.get("per") == "feature" else None)
    number = evaluate(value, L=depth, l=block)
    return nn.Identity() if number == 1.0 else Factor(number)


class Residual(nn.Module):
    """One residual sublayer: x ← stream(skip·x + branch·output(f(input(x))))."""

    def __init__(
        self, sublayer: nn.Module, placement: Placement, width: int, block: int, depth: int
    ) -> None:
        super().__init__()
        self.input = site(placement.input, width)
        self.sublayer = sublayer
        self.output = site(placement.output, width)
        self.stream = site(placement.stream, width)
        self.skip = scale(placement.skip, width, block, depth)
        self.branch = scale(placement.branch, width, block, depth)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) → (batch, time, width)."""
        update = self.output(self.sublayer(self.input(x)))
        return self.stream(self.skip(x) + self.branch(update))  # type: ignore[no-any-return]
