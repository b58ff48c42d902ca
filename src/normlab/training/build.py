"""From a checked configuration to a model: the one place where norms meet the model."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from normlab.config.check import SLOTS
from normlab.config.schema import TrainConfig
from normlab.config.spec import RunSpec
from normlab.model.feedforward import hidden_width
from normlab.model.gpt import GPT
from normlab.model.placement import NormFactory, Placement
from normlab.norms import factory


def build_model(config: TrainConfig, vocabulary: int) -> GPT:
    """The model of a run, its weights drawn from `config.seed`.

    Raises:
        ConfigError: a norm cannot be built.
    """
    placement = config.placement
    slots = {slot: _slot(getattr(placement, slot), config.norm) for slot in SLOTS}
    wiring = Placement(**slots, skip=placement.skip, branch=placement.branch)
    return GPT(config.model, wiring, vocabulary, config.seed)


def check_norms(specs: Iterable[RunSpec]) -> None:
    """Build every norm of these runs once.

    Raises:
        ConfigError: one cannot be built.
    """
    seen: list[tuple[Any, int]] = []
    for spec in specs:
        for wanted in _sites(spec.config):
            if wanted not in seen:
                seen.append(wanted)
                norm, width = wanted
                factory(norm)(width)


def _sites(config: TrainConfig) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Every norm of a model with the width it has to take."""
    width = config.model.width
    widths: dict[str, tuple[int, ...]] = dict.fromkeys(SLOTS, (width,))
    widths["qk"] = (width // config.model.heads,)
    widths["inner"] = (width, hidden_width(config.model))
    for slot in SLOTS:
        value = getattr(config.placement, slot)
        if value:
            norm = config.norm if value is True else value
            yield from ((norm, size) for size in widths[slot])


def _slot(value: bool | Mapping[str, Any] | None, norm: Mapping[str, Any]) -> NormFactory | None:
    """What stands in a slot: the run's norm (true), nothing (false), or a norm of its own."""
    if not value:
        return None
    return factory(norm if value is True else value)
