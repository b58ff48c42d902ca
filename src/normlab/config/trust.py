"""Whose code a configuration may name, and that Hydra asks here before it acts on one.

A YAML file is data and may come from a stranger; `docs/security.md` says what is promised. The
network's part is checked where it becomes typed (`spec.typed`), Hydra's where it is composed.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

import hydra._internal.hydra as hydras_front
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.importlib_resources_config_source import (
    ImportlibResourcesConfigSource,
)
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from normlab.errors import ConfigError

VARIABLE = "NORMLAB_TRUST"

# Modules whose classes may be named. Never what lies deeper: a module gives away all that it
# imports, so `normlab.norms.formula.torch.hub.load` is a path too.
_OF_NETWORKS = ("torch.nn", "normlab.norms", "normlab.model.placement", "normlab.model.streams")
# Not every plugin: submitit's launcher, for one, takes lines of shell.
_OF_HYDRA = (
    "hydra.experimental.callbacks",
    "hydra._internal.core_plugins.basic_launcher",
    "hydra._internal.core_plugins.basic_sweeper",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher",
    "hydra_plugins.normlab_study",
)
_CLASS = re.compile(r"[A-Z]\w*", re.ASCII)
_LONGEST_SHOWN = 120


class UntrustedError(ConfigError):
    """A configuration asks for code that nobody has said to trust; none of it was imported."""


def check_network(norm: Any, placement: Any) -> None:
    """Refuse a norm or a placement, as plain containers, that names code not to be trusted.

    Raises:
        UntrustedError: naming the first such key.
    """
    _check("norm", norm, _OF_NETWORKS)
    _check("placement", placement, _OF_NETWORKS)


def check_hydra(node: DictConfig) -> None:
    """Refuse a composed `hydra` node with which Hydra would run what a file says.

    Raises:
        UntrustedError: naming the first such key.
        ConfigError: a part cannot be resolved, so nobody knows what it would run.
    """
    written: Any = OmegaConf.to_container(node, resolve=False)
    for name in ("hydra_logging", "job_logging"):
        # With a root, Hydra hands it to logging.config, which calls and imports by name.
        if not (isinstance(written[name], dict) and written[name].get("root", "") is None):
            raise UntrustedError(
                f"hydra.{name} can run code, and is not taken; normlab keeps its own log, "
                f"train.log in the run's folder: leave hydra/{name} out."
            )
    if written["output_subdir"] is not None:
        raise UntrustedError(
            "hydra.output_subdir writes files wherever it says, and is not taken; normlab keeps "
            "config.yaml in the run's folder: leave it out."
        )
    try:
        foreign = sorted(set(node.job.env_set) - set(node.job.env_copy))
        parts = {name: _resolved(node[name]) for name in ("callbacks", "launcher", "sweeper")}
    except OmegaConfBaseException as error:
        said = str(error).splitlines()[0]
        raise ConfigError(f"the hydra part of the configuration cannot be read: {said}.") from error
    if foreign:
        raise UntrustedError(
            f"hydra.job.env_set.{_shown(foreign[0])} is not taken, because a file does not set the "
            f"environment; set {_shown(foreign[0])} in the shell."
        )
    _check("hydra", parts, _OF_HYDRA)


def check_arguments(words: list[str]) -> None:
    """Refuse the one option of Hydra's that reads a pickle.

    Raises:
        UntrustedError: it, or a beginning of it, is there.
    """
    if any(word.startswith("--e") for word in words):
        raise UntrustedError(
            "--experimental-rerun reads a pickle, which can run code; give the command again."
        )


def guard_hydra() -> None:
    """Make Hydra compose with `TrustedLoader` and import no package as a folder of files.

    Hydra acts on a configuration (logging, callbacks) as soon as it is composed, and has no hook
    between the two. Calling it again changes nothing.
    """
    names = vars(hydras_front)
    _ = names["ConfigLoaderImpl"]  # gone in another Hydra: stop rather than go on unguarded
    names["ConfigLoaderImpl"] = TrustedLoader
    Plugins.instance()  # registers Hydra's own sources, once
    SourcesRegistry.instance().types["pkg"] = TrustedPackageSource


class TrustedLoader(ConfigLoaderImpl):
    """Hydra's way from files to a configuration, for a command, a run of it, or a worker's job."""

    def load_configuration(self, *args: Any, **kwargs: Any) -> DictConfig:
        """Compose, and check what Hydra is about to act on."""
        composed = super().load_configuration(*args, **kwargs)
        check_hydra(composed.hydra)
        return composed

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """The options of a group; Hydra copies all that it knows for each of --help's questions."""
        if config_name or overrides:
            found = super().get_group_options(group_name, results_filter, config_name, overrides)
        else:
            found = self.repository.get_group_options(group_name, results_filter)
        return list(found)


class TrustedPackageSource(ImportlibResourcesConfigSource):
    """`pkg://package`, from a search path or a list of defaults: reading it imports it."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        if not _within(self.path, ("hydra", "hydra_plugins", *_trusted())):
            shown = _shown(self.path)
            raise UntrustedError(
                f"pkg://{shown} is not trusted, so it was not imported; give --config-dir a "
                f"folder, or, if you know its code, set {VARIABLE}={shown} in the environment."
            )


def _resolved(part: Any) -> Any:
    return OmegaConf.to_container(part, resolve=True) if OmegaConf.is_config(part) else part


def _trusted() -> list[str]:
    """What the user trusts: packages or modules, separated by commas."""
    return [word.strip() for word in os.environ.get(VARIABLE, "").split(",") if word.strip()]


def _within(path: str, packages: tuple[str, ...]) -> bool:
    return any(path == package or path.startswith(f"{package}.") for package in packages)


def _check(key: str, value: Any, modules: tuple[str, ...]) -> None:
    """Every node, however deep: building one builds those inside it first."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            _check_target(f"{key}._target_", value["_target_"], modules)
        for name, item in value.items():
            _check(f"{key}.{name}", item, modules)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            _check(f"{key}.{place}", item, modules)
    elif isinstance(value, bytes) or (isinstance(value, str) and "${" in value):
        # Hydra resolves what it builds once more: \${…} would become a node after the check.
        raise UntrustedError(
            f"{_shown(key)}={_shown(value)} cannot be checked; a value is a number, true, false, "
            f"null, text without ${{, a list or a mapping."
        )


def _check_target(key: str, target: Any, modules: tuple[str, ...]) -> None:
    if isinstance(target, str):
        module, _, name = target.rpartition(".")
        if (module in modules and _CLASS.fullmatch(name)) or _within(target, tuple(_trusted())):
            return
    shown = _shown(target)
    raise UntrustedError(
        f"{_shown(key)}={shown} is not trusted, so nothing was imported; allowed is a class of "
        f"{', '.join(modules)}. If you know its code, {VARIABLE}="
        f"{shown.rpartition('.')[0] or shown} in the environment trusts it."
    )


def _shown(value: Any) -> str:
    """A stranger's words in one line that a terminal only prints."""
    text = "".join(sign if sign.isprintable() else "?" for sign in str(value))
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
