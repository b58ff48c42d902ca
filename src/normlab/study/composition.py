"""From overrides to the runs that they make, composed by Hydra and checked."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from normlab.config.compose import composed_config
from normlab.config.formula import is_formula
from normlab.config.run_spec import RunSpec
from normlab.config.specify import make_run_spec
from normlab.config.validation import check_against_file


class RunComposer:
    """Composes many runs from `master`, the configuration that Hydra composed for a command.

    Hydra reads and merges every file again for each run, which takes 0.1 to 0.3 s, and a study of
    hundreds of runs would wait for a minute. Here the runs that choose the same options of groups
    are composed once, and the values of single keys are set on copies: Hydra, too, sets them last.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader = loader
        self._master = master
        self._parser = OverridesParser.create(config_loader=loader)
        self._groups = frozenset(loader.get_group_options("", ObjectType.GROUP))
        self._composed: dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]] = {}

    def compose(self, overrides: Sequence[str]) -> RunSpec:
        """The run that these overrides of `master` make.

        Overrides of `norm.*` must be keys of that norm's file.

        Raises:
            ConfigError: it cannot be trained.
            HydraException: an override cannot be composed.
        """
        composed, choices = self._compose(overrides)
        # The schema leaves `norm` open, so a misspelt key of it would pass: what the norm's file
        # has without these overrides says which keys there are, and of which type.
        arguments = [word for word in overrides if word.lstrip("+~").startswith("norm.")]
        if arguments:
            reference, _ = self._compose([word for word in overrides if word not in arguments])
            arguments_set, expected = (
                OmegaConf.to_container(config.norm, resolve=True)
                for config in (composed, reference)
            )
            # A formula's parameters and constants are the user's to add; `make_run_spec` checks it.
            if not is_formula(arguments_set):
                check_against_file("norm", arguments_set, expected)
        return make_run_spec(composed, choices)

    def _compose(self, overrides: Sequence[str]) -> tuple[DictConfig, Mapping[str, str]]:
        """The configuration without `hydra`, and the option that was chosen of each group."""
        values, others = [], []
        parsed = self._parser.parse_overrides(list(overrides))
        for word, override in zip(overrides, parsed, strict=True):
            if self._sets_value(override):
                values.append(override)
            else:
                others.append(word)
        composed, choices = self._compose_once(tuple(others))
        composed = deepcopy(composed)
        try:
            for override in values:
                OmegaConf.update(composed, override.key_or_group, override.value())
        except OmegaConfBaseException:
            # What is no key, or takes no such value: Hydra names the override that is at fault.
            return self._compose_once(tuple(overrides))
        return composed, choices

    def _sets_value(self, override: Override) -> bool:
        """Whether it sets a key, where others choose a file, or add or remove a key."""
        return (
            override.type is OverrideType.CHANGE
            and override.package is None
            and override.key_or_group not in self._groups
        )

    def _compose_once(self, overrides: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
        if overrides not in self._composed:
            composed = self._loader.load_sweep_config(self._master, list(overrides))
            choices = dict(composed.hydra.runtime.choices)
            with open_dict(composed):
                del composed["hydra"]
            self._composed[overrides] = composed, choices
        return self._composed[overrides]


def compose_specs(*combinations: Sequence[str]) -> list[RunSpec]:
    """The runs that these combinations of overrides make of normlab's own options.

    Raises:
        ConfigError: one cannot be trained.
    """
    with composed_config([]) as (loader, master):
        composer = RunComposer(loader, master)
        return [composer.compose(overrides) for overrides in combinations]
