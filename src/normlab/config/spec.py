"""From a composed configuration to a run that is known: typed, checked, named."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

from normlab.archive.record import fingerprint, run_name
from normlab.config.check import check, check_keys
from normlab.config.placement import PlacementConfig
from normlab.config.rules import typed_rules
from normlab.config.schema import TrainConfig
from normlab.config.trust import check_network
from normlab.config.wiring import Network, written_out
from normlab.errors import ConfigError

GROUPS = (
    *("norm", "placement", "data", "model", "optimizer", "schedule", "budget", "trainer"),
    "probes",
)


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
        """Where this run's results are: also when the same network was asked for by another name.

        Mix-LN of three blocks, for one, is Pre-LN.
        """
        there = sorted(self.study_folder.glob(f"*-{self.id}"))
        return there[0] if there else self.study_folder / self.name


def other_data(spec: RunSpec) -> str:
    """The sentence about a run whose text has changed since it began."""
    return f"{spec.folder}: {now_other_text(spec)}; give the new text a study of its own, study=…"


def now_other_text(spec: RunSpec) -> str:
    """What has happened to a run's text."""
    path = spec.plain["data"].get("path")
    return f"it was trained on another text than the one that is now at data.path={path}"


def typed(composed: DictConfig) -> TrainConfig:
    """A merged configuration as the dataclasses of the schema.

    Raises:
        ConfigError: a rule of `placement.blocks` does not fit.
        UntrustedError: it names code that is not to be trusted.
        OmegaConfBaseException: a value is missing or cannot be resolved.
    """
    config = cast(TrainConfig, OmegaConf.to_object(composed))
    config.placement.blocks = dict(typed_rules(config.placement.blocks))
    check_network(config.norm, asdict(config.placement))
    return config


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
        config = typed(composed)
    except MissingMandatoryValue as error:
        raise ConfigError(
            f"{error.full_key} has no value; give one with {error.full_key}=…"
        ) from error
    except InterpolationResolutionError as error:
        raise ConfigError(f"{error.full_key} cannot be resolved: {error.msg}.") from error
    check(config)
    taken = {group: str(choices[group]) for group in GROUPS if choices.get(group)}
    for group, option in taken.items():
        if not option.isprintable():
            raise ConfigError(f"{group}={option} cannot be printed; rename the file.")
    _leave_unsaid(plain)
    if "probes" not in plain:
        taken.pop("probes", None)
    for group in ("norm", "placement"):
        if group not in taken:
            raise ConfigError(
                f"{group} is not one option of its group; write {group}=a for one run, "
                f"{group}=a,b for several."
            )
    network = written_out(config.placement, config.norm, config.model.depth)
    taken |= _arbitrary(config, network)
    # Known by the network that norm and placement make together: what is the same is trained once.
    data = {key: value for key, value in plain["data"].items() if not _is_indifferent(key, plain)}
    whole = {**plain, "norm": None, "placement": asdict(network), "data": data}
    identifier = fingerprint(whole)
    name = run_name(taken["norm"], taken["placement"], config.optimizer.lr, config.seed, identifier)
    return RunSpec(config, plain, taken, identifier, name)


# Keys that came after the first runs, with the value that does what those did.
_CAME_LATER = {
    ("model", "init", "scheme"): "normal",
    ("model", "init", "embedding"): None,
    ("model", "init", "query_key"): 1.0,
    ("probes", "every"): None,
}


def _leave_unsaid(plain: dict[str, Any]) -> None:
    """Take out what makes no difference to a run from before there was the key.

    So it keeps its id and its record, and what is off costs no word.
    """
    for (*parents, last), value in _CAME_LATER.items():
        node = plain
        for parent in parents:
            node = node[parent]
        if node[last] == value:
            del node[last]
    if not plain["probes"]:
        del plain["probes"]


def _is_indifferent(key: str, plain: Mapping[str, Any]) -> bool:
    """TinyShakespeare is the same text wherever it lies: its checksum is known."""
    return key == "path" and plain["data"]["kind"] == "shakespeare"


def _arbitrary(config: TrainConfig, network: Network) -> dict[str, str]:
    """The choices that make no difference to the network, as `any`."""
    depth = config.model.depth
    if network == written_out(PlacementConfig(), config.norm, depth):
        return {"norm": "none", "placement": "any"}  # no norm, and nothing else either
    another = written_out(config.placement, {"_target_": "another"}, depth)
    return {"norm": "any"} if network == another else {}
