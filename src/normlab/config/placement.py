"""The type of every key of a placement: which sites hold a norm, and the scales around them."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING


class Reads(Enum):
    """What a sublayer reads: the stream as it is now, or as it entered the block."""

    stream = "stream"
    block = "block"


class HeadNorm(Enum):
    """What a norm on queries, keys or values spans: each head, or all heads together."""

    head = "head"
    all = "all"


@dataclass
class SublayerConfig:
    """Changes for one kind of sublayer; null: as the placement says of all.

    A slot is true (the run's norm, or `norm` if given here), false (nothing) or a norm's own
    config. A scale is a number, an expression in L (blocks) and l (this block, from 1), or
    {init: …, per: scalar|feature} for a learnable one.
    """

    norm: Any = None
    input: Any = None
    output: Any = None
    stream: Any = None
    inner: Any = None
    skip: Any = None
    block_skip: Any = None
    branch: Any = None
    input_scale: Any = None
    reads: Reads | None = None


@dataclass
class AttentionConfig(SublayerConfig):
    """The same, with what only attention has."""

    qk: Any = None
    q: Any = None  # null: as qk
    k: Any = None
    v: Any = None
    head_norm: HeadNorm | None = None
    heads: Any = None  # a scale of each head's output; learnable: {init: …, per: head}


@dataclass
class BlockRule(AttentionConfig):
    """Changes for the blocks where a condition on l and L holds, as in `l <= L/4`."""

    where: str = MISSING
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    feedforward: SublayerConfig = field(default_factory=SublayerConfig)


@dataclass
class PlacementInit:
    """Factors of the standard deviation at initialisation: numbers, or expressions in L and l."""

    value: Any = 1.0
    out: Any = 1.0
    up: Any = 1.0
    down: Any = 1.0
    output: Any = None  # null: model.init.output


@dataclass
class PlacementConfig(AttentionConfig):
    """Where norms stand, in every block unless `attention`, `feedforward` or `blocks` say else.

    x ← stream( skip·x + block_skip·x₀ + branch·output( f( input_scale·input(x) ) ) ), where x₀ is
    what entered the block.
    """

    _target_: str = "normlab.model.placement.Residual"
    input: Any = False
    output: Any = False
    stream: Any = False
    inner: Any = False
    final: Any = False
    embedding: Any = False
    qk: Any = False
    v: Any = False
    skip: Any = 1.0
    block_skip: Any = 0.0
    branch: Any = 1.0
    input_scale: Any = 1.0
    heads: Any = 1.0
    reads: Reads | None = Reads.stream
    head_norm: HeadNorm | None = HeadNorm.head
    init: PlacementInit = field(default_factory=PlacementInit)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    feedforward: SublayerConfig = field(default_factory=SublayerConfig)
    blocks: dict[str, Any] = field(default_factory=dict)  # by name, each a BlockRule
