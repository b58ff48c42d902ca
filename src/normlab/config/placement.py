"""Placements: the type of every key, and what a placement means at every site of every block.

A placement speaks of all sublayers at once; `attention` and `feedforward` change that for one of
them, `blocks` for some depths, and a later rule wins over an earlier one. What is resolved holds no
rule and no expression, so two placements that mean the same network are equal there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from omegaconf import MISSING

from normlab.config.expressions import evaluate_condition, evaluate_expression

SUBLAYERS = ("attention", "feedforward")
# `head_norm` changes exactly these. Another site here would give one network two ids.
HEAD_SITES = ("q", "k", "v")  # attention's alone
SITES = ("input", "output", "stream", "inner", *HEAD_SITES)  # around and inside a sublayer
SCALES = ("skip", "block_skip", "branch", "input_scale", "heads")
END_SITES = ("embedding", "final")  # once a model
# What norm=none is: with it a site is empty, so placements that only move norms are one network.
_IDENTITY = "torch.nn.Identity"

NormConfig = Mapping[str, Any]  # a `_target_` and its arguments


class Reads(Enum):
    """What a sublayer reads: the stream as it is now, or as it entered the block."""

    stream = "stream"
    block = "block"


class HeadNorm(Enum):
    """What a norm on queries, keys or values spans: each head, or all heads together."""

    head = "head"
    all = "all"


class SublayerOrder(Enum):
    """Which sublayer of a block comes first (1911.03864 has further orders)."""

    attention_first = "attention_first"
    feedforward_first = "feedforward_first"


@dataclass
class SublayerConfig:
    """Changes for one kind of sublayer; null: as the placement says of all.

    A site is true (the run's norm, or `norm` where it stands here), false (nothing) or a norm's own
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
    """Factors of the standard deviation at initialization: numbers, or expressions in L and l.

    `output`, of all projections that write to the stream, is in L alone; `out` and `down`, by which
    it is multiplied, are of the same projections.
    """

    value: Any = 1.0
    out: Any = 1.0
    up: Any = 1.0
    down: Any = 1.0
    output: Any = None  # in L; null: model.init.output


@dataclass
class PlacementConfig(AttentionConfig):
    """Where norms stand, in every block unless `attention`, `feedforward` or `blocks` say else.

    x ← stream( skip·x + block_skip·x₀ + branch·output( f( input_scale·input(x) ) ) ), where x₀ is
    what entered the block.
    """

    _target_: str = "normlab.model.placement.Residual"
    order: SublayerOrder = SublayerOrder.attention_first
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


@dataclass(frozen=True)
class Scale:
    """A factor: fixed, or learnable when `per` says for what there is one each."""

    value: float
    per: str | None = None  # scalar, feature or head


@dataclass(frozen=True)
class ResolvedSublayer:
    """What stands around and inside one sublayer of one block."""

    norms: dict[str, NormConfig | None]  # by site
    scales: dict[str, Scale]
    reads: str
    head_norm: str
    init: dict[str, float]  # by projection, a factor of its standard deviation


@dataclass(frozen=True)
class ResolvedPlacement:
    """A placement resolved for a depth. Its fields are part of a run's id."""

    target: str
    ends: dict[str, NormConfig | None]
    blocks: list[dict[str, ResolvedSublayer]]
    output: float | None  # in place of model.init.output
    order: tuple[str, ...] = SUBLAYERS  # in every block


def resolve_placement(
    placement: PlacementConfig, norm: NormConfig, depth: int
) -> ResolvedPlacement:
    """The sites of a model of `depth` blocks whose norm, unless a site has another, is `norm`.

    Raises:
        ConfigError: an expression has no finite value, or a condition cannot be read.
    """
    blocks = [
        {sublayer: _resolve_sublayer(placement, norm, sublayer, l, depth) for sublayer in SUBLAYERS}
        for l in range(1, depth + 1)
    ]
    ends = {site: _resolve_norm(getattr(placement, site), norm) for site in END_SITES}
    output = placement.init.output
    return ResolvedPlacement(
        placement._target_,
        ends,
        blocks,
        None if output is None else evaluate_expression(output, L=depth),
        SUBLAYERS if placement.order is SublayerOrder.attention_first else SUBLAYERS[::-1],
    )


def _resolve_sublayer(
    placement: PlacementConfig, norm: NormConfig, sublayer: str, block: int, depth: int
) -> ResolvedSublayer:
    names = {"L": depth, "l": block}
    # The stronger layer last. Under all, for what a placement leaves null, the neutral placement.
    layers: list[SublayerConfig] = [PlacementConfig(), placement, getattr(placement, sublayer)]
    for rule in placement.blocks.values():
        if evaluate_condition(rule.where, **names):
            layers += [rule, getattr(rule, sublayer)]
    settings: dict[str, Any] = {}
    for layer in layers:
        values = {item.name: getattr(layer, item.name) for item in fields(layer)}
        settings |= {key: value for key, value in values.items() if value is not None}
    sites = {
        site: settings.get(site, settings["qk"] if site in ("q", "k") else None) for site in SITES
    }
    if sublayer != "attention":  # it has no heads, and what concerns them makes no difference
        sites |= dict.fromkeys(HEAD_SITES, False)
        settings["heads"] = 1.0
    norms = {
        site: _resolve_norm(value, settings.get("norm", norm)) for site, value in sites.items()
    }
    # Without a norm there, what it would span must not tell two networks apart.
    has_head_norm = any(norms[site] for site in HEAD_SITES)
    factors = {item.name: getattr(placement.init, item.name) for item in fields(placement.init)}
    return ResolvedSublayer(
        norms,
        {key: _resolve_scale(settings[key], names) for key in SCALES},
        settings["reads"].value,
        settings["head_norm"].value if has_head_norm else "head",
        {
            key: evaluate_expression(value, **names)
            for key, value in factors.items()
            if key != "output"
        },
    )


def _resolve_norm(site: Any, norm: NormConfig) -> NormConfig | None:
    if not site:
        return None
    chosen: NormConfig = norm if site is True else site
    return None if chosen.get("_target_") == _IDENTITY else chosen


def _resolve_scale(value: Any, names: Mapping[str, float]) -> Scale:
    if isinstance(value, Mapping):
        return Scale(
            evaluate_expression(value.get("init", 1.0), **names), value.get("per", "scalar")
        )
    return Scale(evaluate_expression(value, **names))
