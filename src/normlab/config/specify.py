"""From a configuration, composed or read from a run's folder, to a run: typed, checked, named."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from normlab.archive.files import read_text
from normlab.archive.record import CONFIG_FILE, INVALID, compute_run_id, run_name
from normlab.config.gate import UntrustedError, check_trusted
from normlab.config.placement import (
    SUBLAYERS,
    PlacementConfig,
    ResolvedPlacement,
    SublayerOrder,
    resolve_placement,
)
from normlab.config.run_spec import RunSpec
from normlab.config.safe_yaml import MAX_BYTES, parse_yaml
from normlab.config.schema import DATA, TrainConfig
from normlab.config.validation import (
    check_config,
    check_interpolated_sections,
    check_keys,
    parse_block_rule,
)
from normlab.errors import ConfigError, NormlabError, first_line

GROUPS = (
    *("norm", "placement", "data", "model", "optimizer", "schedule", "budget", "trainer"),
    "probes",
)


def to_train_config(composed: DictConfig) -> TrainConfig:
    """A merged configuration as the dataclasses of the schema.

    Raises:
        ConfigError: a rule of `placement.blocks` does not fit.
        UntrustedError: it names code that is not to be trusted.
        OmegaConfBaseException: a value is missing or cannot be resolved.
    """
    config = cast(TrainConfig, OmegaConf.to_object(composed))
    check_interpolated_sections(config)
    config.placement.blocks = {
        str(name): parse_block_rule(f"placement.blocks.{name}", rule)
        for name, rule in config.placement.blocks.items()
    }
    check_trusted(config.norm, asdict(config.placement))
    return config


def make_run_spec(composed: DictConfig, choices: Mapping[str, str]) -> RunSpec:
    """Resolve, check and name a configuration (without its `hydra` node).

    `choices` says which option was taken in each group.

    Raises:
        ConfigError: it has unknown keys or cannot be trained; see `check_config`.
    """
    check_keys(composed)
    try:
        plain = cast(
            dict[str, Any],
            OmegaConf.to_container(composed, resolve=True, throw_on_missing=True, enum_to_str=True),
        )
        config = to_train_config(composed)
    except MissingMandatoryValue as error:
        raise ConfigError(
            f"{error.full_key} has no value; give one with {error.full_key}=…"
        ) from error
    except InterpolationResolutionError as error:
        reason = str(error.msg).splitlines()[0]
        raise ConfigError(f"{error.full_key} cannot be resolved: {reason}.") from error
    check_config(config)
    chosen = {group: str(choices[group]) for group in GROUPS if choices.get(group)}
    for group, option in chosen.items():
        if not option.isprintable():
            raise ConfigError(f"{group}={option} cannot be printed; rename the file.")
    _drop_later_keys(plain)
    # The choice goes with its keys: records of the first runs have neither.
    if "probes" not in plain:
        chosen.pop("probes", None)
    for group in ("norm", "placement"):
        if group not in chosen:
            raise ConfigError(
                f"{group} is not one option of its group; write {group}=a for one run, "
                f"{group}=a,b for several."
            )
    network = resolve_placement(config.placement, config.norm, config.model.depth)
    chosen |= _irrelevant_choices(config, network)
    if config.allow_leak:
        # In the name of the run and its arm, and so in every table, figure, record and page.
        group = "placement" if chosen["norm"] == "any" else "norm"
        chosen[group] = f"{INVALID}-{chosen[group].removeprefix(f'{INVALID}-')}"
    # The id is of the network that norm and placement make together: the same is trained once.
    data = dict(plain["data"])
    if data["kind"] == "shakespeare":
        data.pop("path", None)  # the same text wherever it lies, by its checksum
    sites = asdict(network)
    if network.order == SUBLAYERS:
        del sites["order"]  # the ids of earlier runs were made without it
    identifier = compute_run_id({**plain, "norm": None, "placement": sites, "data": data})
    norm, placement = chosen["norm"], chosen["placement"]
    name = run_name(norm, placement, config.optimizer.lr, config.seed, identifier)
    return RunSpec(config, plain, chosen, identifier, name)


# Keys that came after the first runs, with the value that does what those did. A new key has to be
# added here, or every stored run gets another id and is trained again.
_LATER_KEYS = {
    ("allow_leak",): False,
    ("model", "init", "scheme"): "normal",
    ("model", "init", "embedding"): None,
    ("model", "init", "query_key"): 1.0,
    ("model", "init", "embedding_scale"): None,
    ("probes", "every"): None,
    ("placement", "order"): SublayerOrder.attention_first.value,
}


def _drop_later_keys(plain: dict[str, Any]) -> None:
    """Take out later keys at their neutral values, so that earlier runs keep id and record."""
    for (*parents, last), value in _LATER_KEYS.items():
        node = plain
        for parent in parents:
            node = node[parent]
        if node[last] == value:
            del node[last]
    # How many runs train together is the study's: no part of a run, and no arm of its own.
    del plain["trainer"]["stack"]
    if not plain["probes"]:
        del plain["probes"]


def _irrelevant_choices(config: TrainConfig, network: ResolvedPlacement) -> dict[str, str]:
    """The choices that make no difference to the network, as `any`."""
    depth = config.model.depth
    if network == resolve_placement(PlacementConfig(), config.norm, depth):
        return {"norm": "none", "placement": "any"}  # no norm, and nothing else either
    # With a norm that is nobody's: the network is the same only where the norm stands nowhere.
    another = resolve_placement(config.placement, {"_target_": "another"}, depth)
    return {"norm": "any"} if network == another else {}


def read_run_spec(
    folder: Path, choices: Mapping[str, str], changes: Mapping[str, str] | None = None
) -> RunSpec:
    """The run that the folder's `config.yaml` describes, with `changes` of its first-level keys.

    A stranger may have written the file: it is read within the bounds of `safe_yaml`, and goes
    through the same types and checks as a configuration that is composed. What a run has written
    there is plain and resolved: it has no aliases, no interpolations, no tags.

    Raises:
        UntrustedError: it names code that is not to be trusted.
        NormlabError: it is missing, damaged, of another version, or cannot be trained.
    """
    path = folder / CONFIG_FILE
    try:
        text = read_text(path, MAX_BYTES)
        plain = parse_yaml(path, text)
        if not isinstance(plain, dict):
            raise ValueError("it is no mapping")
        if "${" in text:
            raise ValueError("it has an interpolation")
        schema = OmegaConf.structured(TrainConfig(data=DATA[plain["data"]["kind"]]()))
        plain.update(changes or {})
        merged = OmegaConf.merge(schema, plain)
        return make_run_spec(cast(DictConfig, merged), choices)
    except UntrustedError:
        raise  # another sentence: such a file is intact
    except OSError as error:
        raise NormlabError(f"{path} cannot be read ({error.strerror}).") from error
    except (
        *(OmegaConfBaseException, ConfigError),
        *(ValueError, TypeError, KeyError, AttributeError, ArithmeticError),
    ) as error:
        raise NormlabError(
            f"{path} is damaged or of another version ({first_line(error)}); train the run again."
        ) from error
