"""The rules for some blocks of a placement, typed.

Hydra cannot put a mapping from the command line where a dictionary of typed rules is expected, so
`placement.blocks` is open, and held to its schema here.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import (
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from normlab.config.check import unknown_key
from normlab.config.placement import BlockRule
from normlab.errors import ConfigError


def typed_rules(rules: Mapping[str, Any]) -> dict[str, BlockRule]:
    """The rules of `placement.blocks` by name.

    Raises:
        ConfigError: a rule has an unknown key, a value of the wrong type, or no condition.
    """
    return {str(name): _typed(f"placement.blocks.{name}", rule) for name, rule in rules.items()}


def _typed(key: str, rule: Any) -> BlockRule:
    if not isinstance(rule, Mapping):
        raise ConfigError(
            f"{key}={rule} is not a rule; a rule is a mapping with where (a condition on l and L, "
            f"as in l <= L/4) and what changes there, as in stream: true."
        )
    try:
        merged = OmegaConf.merge(OmegaConf.structured(BlockRule), rule)
        return cast(BlockRule, OmegaConf.to_object(merged))
    except MissingMandatoryValue as error:
        raise ConfigError(
            f"{key}.{error.full_key} has no value; give a condition on l and L, as in l <= L/4."
        ) from error
    except ConfigKeyError as error:
        parent = error.parent_node
        names = [str(name) for name in parent] if parent is not None else _names()
        raise unknown_key(f"{key}.{error.full_key}", names) from error
    except ValidationError as error:
        said = str(error).splitlines()[0]
        raise ConfigError(f"{key}.{error.full_key} is not allowed: {said}") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key} cannot be read: {str(error).splitlines()[0]}.") from error


def _names() -> list[str]:
    return [field.name for field in fields(BlockRule)]
