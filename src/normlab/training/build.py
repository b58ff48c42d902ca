"""From a checked configuration to a model: the one place where norms meet the model."""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from normlab.config.placement import ResolvedPlacement, ResolvedSublayer, resolve_placement
from normlab.config.run_spec import RunSpec
from normlab.config.schema import ModelConfig, TrainConfig
from normlab.errors import ConfigError, describe_error
from normlab.model.contract import CONTEXT, VOCABULARY, check_causal
from normlab.model.gpt import GPT
from normlab.model.placement import NormFactory, Placement, Residual, Wiring
from normlab.norms import norm_factory
from normlab.norms.build import check_contract, find_untrained
from normlab.training.hardware import single_thread


def build_model(config: TrainConfig, vocabulary: int) -> GPT:
    """The model of a run, its weights drawn from `config.seed`.

    Raises:
        ConfigError: a norm or the placement's class cannot be built.
    """
    network = resolve_placement(config.placement, config.norm, config.model.depth)
    placement = Placement(
        [
            (_build_wiring(block["attention"]), _build_wiring(block["feedforward"]))
            for block in network.blocks
        ],
        embedding=_norm_factory(network.ends["embedding"]),
        final=_norm_factory(network.ends["final"]),
        output=network.output,
        residual=_find_residual_class(network.target),
        order=network.order,
    )
    # What a norm's or a placement's own class draws is the run's too, not of what came before it.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return GPT(config.model, placement, vocabulary, config.seed)


def check_networks(specs: Iterable[RunSpec]) -> list[str]:
    """Build every norm of these runs once and try it, then a model of every network.

    A network is tried with a short context: about 60 ms each for the default model.

    Returns:
        A sentence for each thing in a norm that looks as if it were trained, and is not.

    Raises:
        ConfigError: one cannot be built, or would not be causal.
    """
    warnings: dict[str, None] = {}  # a set in order
    norms: list[tuple[str, Any, int]] = []
    networks: list[tuple[ResolvedPlacement, ModelConfig]] = []
    for spec in specs:
        if spec.config.allow_leak:  # a lesson trains a norm that sees the next token
            continue
        model = spec.config.model
        network = resolve_placement(spec.config.placement, spec.config.norm, model.depth)
        for key, norm, width in _list_norms(spec.config):
            if (key, norm, width) not in norms:
                norms.append((key, norm, width))
                check_contract(norm_factory(norm, key)(width), width, _name_norm(key, norm))
        small = replace(model, context=CONTEXT)
        if (network, small) not in networks:
            networks.append((network, small))
            warnings |= dict.fromkeys(describe_untrained(spec.config))
            name = f"placement={spec.choices['placement']} with norm={spec.choices['norm']}"
            if spec.config.placement._target_ != f"{Residual.__module__}.{Residual.__name__}":
                name = f"{name} (placement._target_={spec.config.placement._target_})"
            with single_thread():
                check_causal(_build_or_explain(replace(spec.config, model=small), name), name)
    return list(warnings)


def describe_untrained(config: TrainConfig) -> list[str]:
    """What of a run's norms looks as if it were trained, and is not; see `find_untrained`."""
    tried: list[Any] = []
    sentences: list[str] = []
    for key, norm, width in _list_norms(config):
        if norm not in tried:
            tried.append(norm)
            sentences += find_untrained(
                norm_factory(norm, key)(width), width, _name_norm(key, norm)
            )
    return sentences


def _list_norms(config: TrainConfig) -> Iterator[tuple[str, Any, int]]:
    """Every norm of a model: the key that chooses it, its config and its width."""
    model = config.model
    network = resolve_placement(config.placement, config.norm, model.depth)
    for site, norm, width in model.norm_sites(network):
        key = f"placement.{site}"
        if norm == config.norm:
            key = "norm" if width == model.width else f"norm (at {site})"
        yield key, norm, width


def _name_norm(key: str, norm: Mapping[str, Any]) -> str:
    return f"{key}._target_={norm['_target_']}"


def _build_or_explain(config: TrainConfig, name: str) -> GPT:
    try:
        return build_model(config, VOCABULARY)
    except ConfigError:
        raise
    except Exception as error:  # whatever a user's own class raises
        raise ConfigError(
            f"{name} cannot be built ({describe_error(error, 200)}); its class takes the "
            f"sublayer, its wiring and the width."
        ) from error


def _build_wiring(wiring: ResolvedSublayer) -> Wiring:
    sites: dict[str, Any] = {site: _norm_factory(norm) for site, norm in wiring.norms.items()}
    return Wiring(
        **(sites | wiring.scales),
        reads=wiring.reads,
        head_norm=wiring.head_norm,
        init=wiring.init,
    )


def _norm_factory(norm: Mapping[str, Any] | None) -> NormFactory | None:
    return None if norm is None else norm_factory(norm)


def _find_residual_class(target: str) -> type[Residual]:
    module, _, name = target.rpartition(".")
    try:
        # Not hydra.utils.get_class: its error has several lines.
        residual = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigError(
            f"placement._target_={target} cannot be found ({describe_error(error)}); "
            f"it is the dotted path of a subclass of normlab.model.placement.Residual."
        ) from error
    if not (isinstance(residual, type) and issubclass(residual, Residual)):
        raise ConfigError(
            f"placement._target_={target} is not a subclass of normlab.model.placement.Residual; "
            f"give one, or leave _target_ out."
        )
    return residual
