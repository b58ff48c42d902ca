"""A placement written out: which norm and which scale stand at every site of every block.

A placement speaks of all sublayers at once; `attention` and `feedforward` change that for one of
them, `blocks` for some depths, and a later rule wins over an earlier one. What is written out
holds no rule and no expression, so two placements that mean the same network are equal here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from normlab.config.expressions import evaluate, holds
from normlab.config.placement import PlacementConfig, SublayerConfig

SUBLAYERS = ("attention", "feedforward")
HEAD_SLOTS = ("q", "k", "v")  # attention's own
SLOTS = ("input", "output", "stream", "inner", *HEAD_SLOTS)  # around and inside a sublayer
SCALES = ("skip", "block_skip", "branch", "input_scale", "heads")
ENDS = ("embedding", "final")  # once a model
_IDENTITY = "torch.nn.Identity"

Norm = Mapping[str, Any]  # a `_target_` and its arguments


@dataclass(frozen=True)
class Scale:
    """A factor: fixed, or learnable when `per` says for what there is one each."""

    value: float
    per: str | None = None  # scalar, feature or head


@dataclass(frozen=True)
class Wiring:
    """What stands around and inside one sublayer of one block."""

    norms: dict[str, Norm | None]  # by slot
    scales: dict[str, Scale]
    reads: str
    head_norm: str
    init: dict[str, float]  # by projection, a factor of its standard deviation


@dataclass(frozen=True)
class Network:
    """A placement written out for a depth."""

    target: str
    ends: dict[str, Norm | None]
    blocks: list[dict[str, Wiring]]
    output: float | None  # in place of model.init.output


def written_out(placement: PlacementConfig, norm: Norm, depth: int) -> Network:
    """The sites of a model of `depth` blocks whose norm, unless a site has its own, is `norm`.

    Raises:
        ConfigError: an expression has no finite value, or a condition cannot be read.
    """
    blocks = [
        {sublayer: _wiring(placement, norm, sublayer, l, depth) for sublayer in SUBLAYERS}
        for l in range(1, depth + 1)
    ]
    ends = {slot: _norm(getattr(placement, slot), norm) for slot in ENDS}
    output = placement.init.output
    return Network(
        placement._target_, ends, blocks, None if output is None else evaluate(output, L=depth)
    )


def _layers(
    placement: PlacementConfig, sublayer: str, block: int, depth: int
) -> list[SublayerConfig]:
    """What is said about a sublayer of a block, the stronger word last."""
    # Under all, for what a placement leaves null, what a placement is that says nothing.
    said: list[SublayerConfig] = [PlacementConfig(), placement, getattr(placement, sublayer)]
    for rule in placement.blocks.values():
        if holds(rule.where, l=block, L=depth):
            said += [rule, getattr(rule, sublayer)]
    return said


def _wiring(
    placement: PlacementConfig, norm: Norm, sublayer: str, block: int, depth: int
) -> Wiring:
    said: dict[str, Any] = {}
    for layer in _layers(placement, sublayer, block, depth):
        values = {f.name: getattr(layer, f.name) for f in fields(layer)}
        said |= {key: value for key, value in values.items() if value is not None}
    slots = {slot: said.get(slot, said["qk"] if slot in "qk" else None) for slot in SLOTS}
    if sublayer != "attention":  # has no heads: what is said of them does not concern it
        slots |= dict.fromkeys(HEAD_SLOTS, False)
        said["heads"] = 1.0
    norms = {slot: _norm(value, said.get("norm", norm)) for slot, value in slots.items()}
    spans = any(norms[slot] for slot in HEAD_SLOTS)
    names = {"L": depth, "l": block}
    factors = {f.name: getattr(placement.init, f.name) for f in fields(placement.init)}
    return Wiring(
        norms,
        {key: _scale(said[key], names) for key in SCALES},
        _plain(said["reads"]),
        _plain(said["head_norm"]) if spans else "head",
        {key: evaluate(value, **names) for key, value in factors.items() if key != "output"},
    )


def _norm(value: Any, norm: Norm) -> Norm | None:
    if not value:
        return None
    chosen: Norm = norm if value is True else value
    return None if chosen.get("_target_") == _IDENTITY else chosen


def _scale(value: Any, names: Mapping[str, float]) -> Scale:
    if isinstance(value, Mapping):
        return Scale(evaluate(value.get("init", 1.0), **names), value.get("per", "scalar"))
    return Scale(evaluate(value, **names))


def _plain(value: Any) -> str:
    return str(value.value if isinstance(value, Enum) else value)
