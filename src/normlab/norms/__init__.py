"""What normalises: modules that take the width, and the factory that builds one from its config."""

from collections.abc import Callable, Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import nn

from normlab.errors import ConfigError
from normlab.norms.formula import Formula
from normlab.norms.pointwise import DynamicTanh, GradientPreservingScale
from normlab.norms.statistic import (
    GroupNorm,
    LayerNorm,
    PartialRMSNorm,
    RMSNorm,
    ScaleNorm,
    UnitOffsetRMSNorm,
)

__all__ = [
    "DynamicTanh",
    "Formula",
    "GradientPreservingScale",
    "GroupNorm",
    "LayerNorm",
    "PartialRMSNorm",
    "RMSNorm",
    "ScaleNorm",
    "UnitOffsetRMSNorm",
    "factory",
]


def factory(config: Mapping[str, Any], key: str = "norm") -> Callable[[int], nn.Module]:
    """A function from width to a fresh norm, from `_target_` and its arguments.

    The target is any callable that takes the width first and gives an `nn.Module`; `key` is where
    the config stands, for messages.

    Raises:
        ConfigError: by the returned function, when the target cannot be found or built.
    """
    arguments = {key: value for key, value in config.items() if key != "_partial_"}

    def build(width: int) -> nn.Module:
        try:
            norm = instantiate(arguments, width, _convert_="all")
        except InstantiationException as error:
            if isinstance(error.__cause__, ConfigError):
                raise ConfigError(f"{key}: {error.__cause__}") from error
            raise ConfigError(
                f"{key}._target_={arguments.get('_target_')} cannot be built for width {width} "
                f"({_reason(error)}); its arguments are what stands beside _target_."
            ) from error
        if not isinstance(norm, nn.Module):
            raise ConfigError(
                f"{key}._target_={arguments['_target_']} gave a {type(norm).__name__}; "
                f"a norm is a torch.nn.Module built from the width."
            )
        return norm

    return build


def _reason(error: BaseException) -> str:
    """What was said first, where it went wrong, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
