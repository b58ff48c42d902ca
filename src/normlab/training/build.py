"""From a checked configuration to a model: the one place where norms meet the model."""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from normlab.config.schema import TrainConfig
from normlab.config.spec import RunSpec
from normlab.config.wiring import Network, written_out
from normlab.config.wiring import Wiring as WrittenWiring
from normlab.errors import ConfigError
from normlab.model.feedforward import hidden_width
from normlab.model.gpt import GPT
from normlab.model.placement import NormFactory, Placement, Residual, Wiring
from normlab.norms import factory
from normlab.norms.contract import check_contract


def build_model(config: TrainConfig, vocabulary: int) -> GPT:
    """The model of a run, its weights drawn from `config.seed`.

    Raises:
        ConfigError: a norm or the placement's class cannot be built.
    """
    network = written_out(config.placement, config.norm, config.model.depth)
    placement = Placement(
        [(_wiring(block["attention"]), _wiring(block["feedforward"])) for block in network.blocks],
        embedding=_slot(network.ends["embedding"]),
        final=_slot(network.ends["final"]),
        output=network.output,
        residual=_residual(network.target),
    )
    return GPT(config.model, placement, vocabulary, config.seed)


def check_networks(specs: Iterable[RunSpec]) -> None:
    """Build every norm of these runs once, try it, and build one small model of every placement.

    Raises:
        ConfigError: one cannot be built, or cannot stand in a causal model.
    """
    norms: list[tuple[str, Any, int]] = []
    placements: list[Any] = []
    for spec in specs:
        model = spec.config.model
        network = written_out(spec.config.placement, spec.config.norm, model.depth)
        for wanted in _sites(network, spec.config):
            if wanted not in norms:
                norms.append(wanted)
                key, norm, width = wanted
                name = f"{key}._target_={norm['_target_']}"
                check_contract(factory(norm, key)(width), width, name)
        if network not in placements:
            placements.append(network)
            small = replace(model, context=1)
            build_model(replace(spec.config, model=small), vocabulary=1)


def _sites(network: Network, config: TrainConfig) -> Iterator[tuple[str, Mapping[str, Any], int]]:
    """Every norm of a model with its key and the widths it has to take."""

    def site(slot: str, norm: Mapping[str, Any], width: int) -> tuple[str, Mapping[str, Any], int]:
        if norm != config.norm:
            return f"placement.{slot}", norm, width
        return "norm" if width == config.model.width else f"norm (at {slot})", norm, width

    model = config.model
    head, kv_heads = model.width // model.heads, model.kv_heads or model.heads
    for slot, end in network.ends.items():
        if end is not None:
            yield site(slot, end, model.width)
    for block in network.blocks:
        for sublayer, wiring in block.items():
            whole = wiring.head_norm == "all"
            inner = model.width if sublayer == "attention" else hidden_width(model)
            widths = dict.fromkeys(("input", "output", "stream"), model.width)
            widths |= {"inner": inner, "q": model.width if whole else head}
            widths |= dict.fromkeys(("k", "v"), kv_heads * head if whole else head)
            for slot, norm in wiring.norms.items():
                if norm is not None:
                    yield site(slot, norm, widths[slot])


def _wiring(written: WrittenWiring) -> Wiring:
    sites: dict[str, Any] = {slot: _slot(norm) for slot, norm in written.norms.items()}
    return Wiring(
        **(sites | written.scales),
        reads=written.reads,
        head_norm=written.head_norm,
        init=written.init,
    )


def _slot(norm: Mapping[str, Any] | None) -> NormFactory | None:
    return None if norm is None else factory(norm)


def _residual(target: str) -> type[Residual]:
    module, _, name = target.rpartition(".")
    try:
        # Hydra's own way says more than a sentence.
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigError(
            f"placement._target_={target} cannot be found ({' '.join(str(error).split())}); "
            f"it is the dotted path of a subclass of normlab.model.placement.Residual."
        ) from error
    if not (isinstance(found, type) and issubclass(found, Residual)):
        raise ConfigError(
            f"placement._target_={target} is not a subclass of normlab.model.placement.Residual; "
            f"give one, or leave _target_ out."
        )
    return found
