"""Where norms stand in a Transformer: one equation for one residual sublayer.

    x ← stream( skip·x + block_skip·x₀ + branch·output( f( input_scale·input(x) ) ) )

`input`, `output` and `stream` hold a norm or nothing, x₀ is what entered the block, and the
scales are numbers or learnable gains. No norm is known by name here: a site holds a factory that
takes the width, and the scales of this block are already evaluated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from normlab.config.placement import SUBLAYERS, Scale

NormFactory = Callable[[int], nn.Module]

UNIT_SCALE, ZERO_SCALE = Scale(1.0), Scale(0.0)


@dataclass(frozen=True)
class Wiring:
    """What stands around and inside one sublayer; a site without a norm is None."""

    input: NormFactory | None = None
    output: NormFactory | None = None
    stream: NormFactory | None = None
    inner: NormFactory | None = None
    q: NormFactory | None = None
    k: NormFactory | None = None
    v: NormFactory | None = None
    skip: Scale = UNIT_SCALE
    block_skip: Scale = ZERO_SCALE
    branch: Scale = UNIT_SCALE
    input_scale: Scale = UNIT_SCALE
    heads: Scale = UNIT_SCALE
    reads: str = "stream"  # or block: x₀ instead of x
    head_norm: str = "head"  # or all: q, k and v are normalized before they are split into heads
    init: Mapping[str, float] = field(default_factory=dict)  # by projection: value, out, up, down


@dataclass(frozen=True)
class Placement:
    """The wiring of every block's attention and feed-forward, and the norms at both ends."""

    blocks: Sequence[tuple[Wiring, Wiring]]
    embedding: NormFactory | None = None
    final: NormFactory | None = None
    output: float | None = None  # factor of what writes to the stream; None: the model's
    residual: "type[Residual] | None" = None  # None: Residual
    order: Sequence[str] = SUBLAYERS  # in every block


def build_site(factory: NormFactory | None, width: int) -> nn.Module:
    """The norm that stands at a site of this width, or the identity."""
    return nn.Identity() if factory is None else factory(width)


class Gain(nn.Module):
    """A learnable factor, one number or several (2003.04887, 2103.17239, 2110.09456)."""

    def __init__(self, init: float, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full(shape, init))

    def forward(self, x: Tensor) -> Tensor:
        """(…, *shape) → (…, *shape)."""
        return x * self.gain


class Factor(nn.Module):
    """A fixed factor."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, kept."""
        return x * self.value


def build_scale(scale: Scale, **shapes: tuple[int, ...]) -> nn.Module:
    """The module of a scale; `shapes` says what a learnable one looks like by what it is per."""
    if scale.per is not None:
        return Gain(scale.value, {"scalar": (), **shapes}[scale.per])
    # A scale of 1 costs nothing: no pass over the stream.
    return nn.Identity() if scale.value == 1.0 else Factor(scale.value)


class Residual(nn.Module):
    """One residual sublayer of the equation above; the stream is one tensor.

    A placement's `_target_` may name a subclass whose stream is another thing: `enter` makes it
    from the embedding, `forward` takes it through one sublayer, `leave` gives what the head reads.
    """

    def __init__(self, sublayer: nn.Module, wiring: Wiring, width: int) -> None:
        super().__init__()
        self.input = build_site(wiring.input, width)
        self.input_scale = build_scale(wiring.input_scale, feature=(width,))
        self.sublayer = sublayer
        self.output = build_site(wiring.output, width)
        self.branch = build_scale(wiring.branch, feature=(width,))
        self.skip = build_scale(wiring.skip, feature=(width,))
        no_skip = wiring.block_skip == ZERO_SCALE
        self.block_skip = None if no_skip else build_scale(wiring.block_skip, feature=(width,))
        self.stream = build_site(wiring.stream, width)
        self.reads_block = wiring.reads == "block"

    def sublayer_update(self, x: Tensor) -> Tensor:
        """(batch, time, width) → what the sublayer adds to the stream, the same shape."""
        read = self.input_scale(self.input(x))
        return self.branch(self.output(self.sublayer(read)))  # type: ignore[no-any-return]

    def forward(self, x: Any, entered: Any) -> Any:
        """The stream (batch, time, width), and as it entered the block → the stream after it."""
        after = self.skip(x) + self.sublayer_update(entered if self.reads_block else x)
        if self.block_skip is not None:
            after = after + self.block_skip(entered)
        return self.stream(after)

    @staticmethod
    def enter(x: Tensor) -> Any:
        """Embedding (batch, time, width) → the stream before the first block."""
        return x

    @staticmethod
    def leave(stream: Any, final: nn.Module) -> Tensor:
        """The stream after the last block → what the head reads (batch, time, width)."""
        return final(stream)  # type: ignore[no-any-return]
