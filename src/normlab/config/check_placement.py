"""What may stand at the sites of a placement: norms, scales, conditions on depth."""

from collections.abc import Iterator, Mapping
from typing import Any

from normlab.config.expressions import evaluate, holds
from normlab.config.formula import check_formula, is_formula
from normlab.config.placement import PlacementConfig, SublayerConfig
from normlab.config.schema import ModelConfig
from normlab.config.wiring import ENDS, SCALES, SLOTS, SUBLAYERS
from normlab.errors import ConfigError

_PER = ("scalar", "feature")
_PER_HEAD = ("scalar", "head")


def check_norm(key: str, value: Any, width: int) -> None:
    """Refuse what is no norm's config.

    Raises:
        ConfigError: it has no `_target_`, or is a formula that cannot be one at this width.
    """
    if not (isinstance(value, Mapping) and isinstance(value.get("_target_"), str)):
        raise ConfigError(
            f"{key}={value} is not a norm; a norm is a mapping with a _target_, the class that "
            f"takes the width, and its arguments beside it."
        )
    if is_formula(value):
        check_formula(key, value, width)


def check_placement(placement: PlacementConfig, model: ModelConfig) -> None:
    """Refuse a placement with a slot, a scale or a condition that cannot be one.

    Raises:
        ConfigError: the first that is wrong.
    """
    for end in ENDS:
        _check_slot(f"placement.{end}", getattr(placement, end), model.width)
    for name, value in vars(placement.init).items():
        _check_number(f"placement.init.{name}", value, model.depth)
    for key, layer in _layers(placement):
        if layer.norm is not None:
            check_norm(f"{key}.norm", layer.norm, model.width)
        for slot in (*SLOTS, "qk"):
            width = model.width // model.heads if slot in ("q", "k", "v", "qk") else model.width
            _check_slot(f"{key}.{slot}", getattr(layer, slot, None), width)
        for name in SCALES:
            _check_scale(f"{key}.{name}", name, getattr(layer, name, None), model.depth)
    for name, rule in placement.blocks.items():
        _check_condition(f"placement.blocks.{name}.where", rule.where, model.depth)


def check_expression(key: str, value: Any, **names: float) -> None:
    """Refuse what is neither a number nor an expression over `names` that has a finite value.

    Raises:
        ConfigError: naming the key, and where in the expression it goes wrong.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ConfigError(f"{key}={value!s} is not allowed; it must be a number or an expression.")
    try:
        evaluate(value, **names)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error


def _layers(placement: PlacementConfig) -> Iterator[tuple[str, SublayerConfig]]:
    """Every part of a placement that says something of sublayers, with its key."""
    wholes = [("placement", placement)]
    wholes += [(f"placement.blocks.{name}", rule) for name, rule in placement.blocks.items()]
    for key, whole in wholes:
        yield key, whole
        yield from ((f"{key}.{name}", getattr(whole, name)) for name in SUBLAYERS)


def _check_slot(key: str, value: Any, width: int) -> None:
    if isinstance(value, Mapping):
        check_norm(key, value, width)
    elif value is not None and not isinstance(value, bool):
        raise ConfigError(
            f"{key}={value} is not allowed; a slot is true (the run's norm), "
            f"false (nothing) or the config of a norm."
        )


def _check_scale(key: str, name: str, value: Any, depth: int) -> None:
    if isinstance(value, Mapping):
        per = _PER_HEAD if name == "heads" else _PER
        if not set(value) <= {"init", "per"} or value.get("per", "scalar") not in per:
            raise ConfigError(
                f"{key}={dict(value)} is not a scale; a learnable one is "
                f"{{init: number or expression, per: {' or '.join(per)}}}."
            )
        value = value.get("init", 1.0)
    _check_number(key, value, depth)


def _check_number(key: str, value: Any, depth: int) -> None:
    if value is not None:
        for block in range(1, depth + 1):
            check_expression(key, value, L=depth, l=block)


def _check_condition(key: str, value: str, depth: int) -> None:
    try:
        for block in range(1, depth + 1):
            holds(value, L=depth, l=block)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
