"""From a composed configuration to a run that is known: typed, checked, named."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

from normlab.archive.identity import fingerprint, run_name
from normlab.config.check import SLOTS, check, check_keys
from normlab.config.schema import TrainConfig
from normlab.errors import ConfigError

GROUPS = ("norm", "placement", "data", "model", "optimizer", "schedule", "budget", "trainer")


@dataclass(frozen=True)
class RunSpec:
    """One run to be: the typed configuration, the same as plain containers, and its names."""

    config: TrainConfig
    plain: dict[str, Any]
    choices: dict[str, str]
    id: str
    name: str

    @property
    def study_folder(self) -> Path:
        """Where the runs of its study are."""
        return Path(self.config.output_dir) / self.config.study

    @property
    def folder(self) -> Path:
        """Where this run's results are."""
        return self.study_folder / self.name


def specify(composed: DictConfig, choices: Mapping[str, str]) -> RunSpec:
    """Resolve, check and name a configuration (without its `hydra` node).

    `choices` says which option was taken in each group.

    Raises:
        ConfigError: it has unknown keys or cannot be trained; see `check`.
    """
    check_keys(composed)
    try:
        plain = cast(
            dict[str, Any],
            OmegaConf.to_container(composed, resolve=True, throw_on_missing=True, enum_to_str=True),
        )
        config = cast(TrainConfig, OmegaConf.to_object(composed))
    except MissingMandatoryValue as error:
        raise ConfigError(
            f"{error.full_key} has no value; give one with {error.full_key}=…"
        ) from error
    except InterpolationResolutionError as error:
        raise ConfigError(f"{error.full_key} cannot be resolved: {error.msg}.") from error
    check(config)
    taken = {group: str(choices[group]) for group in GROUPS if choices.get(group)}
    if _is_plain_residual(plain):
        # Without a norm it does not matter where the norm would stand: the same network.
        plain["placement"].update(dict.fromkeys(SLOTS, False))
        taken["placement"] = "any"
    identifier = fingerprint(plain)
    name = run_name(taken["norm"], taken["placement"], config.optimizer.lr, config.seed, identifier)
    return RunSpec(config, plain, taken, identifier, name)


def _is_plain_residual(plain: Mapping[str, Any]) -> bool:
    placement = plain["placement"]
    return (
        plain["norm"]["_target_"] == "torch.nn.Identity"
        and all(not isinstance(placement[slot], Mapping) for slot in SLOTS)
        and placement["skip"] == placement["branch"] == 1
    )
