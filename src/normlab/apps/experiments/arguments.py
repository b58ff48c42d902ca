"""What a command asks of a measured experiment, checked before torch is imported.

The values of each budget are in conf/experiment/<name>.yaml or in the experiment's module.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from normlab.config.run_spec import RunSpec
from normlab.errors import ConfigError
from normlab.study.composition import RunComposer
from normlab.study.plan import expand_overrides

# Keys that every measured experiment takes.
_COMMON_KEYS = ("experiment", "study", "output_dir", "budget", "seed", "trainer.threads")


@dataclass(frozen=True)
class MeasurementArguments:
    """The overrides of a command that measures: the values of every key, in order."""

    loader: ConfigLoader
    master: DictConfig
    values: dict[str, list[str]]

    @classmethod
    def parse(
        cls,
        loader: ConfigLoader,
        master: DictConfig,
        overrides: Sequence[str],
        allowed_keys: Sequence[str],
    ) -> "MeasurementArguments":
        """Refuse every key but those allowed; `norm.` allows `norm.*`.

        Raises:
            ConfigError: a key means nothing to the experiment.
            HydraException: an override cannot be read.
        """
        expanded = expand_overrides(loader, overrides)
        values = {key: [value] for key, value in expanded.fixed.items()} | {**expanded.varied}
        # ++model.depth=4 is model.depth=4; +norm.key=… needs its sign.
        allowed = (*_COMMON_KEYS, *allowed_keys)
        values = {
            bare if (bare := key.lstrip("+")) in allowed else key: of_key
            for key, of_key in values.items()
        }
        for key in values:
            bare = key.lstrip("+~")
            if bare in allowed or f"{bare.split('.')[0]}." in allowed_keys:
                continue
            names = [f"{name}*" if name.endswith(".") else name for name in allowed_keys]
            raise ConfigError(
                f"{key}={', '.join(values[key])} means nothing to experiment="
                f"{master.measure.name}, which trains nothing; it takes "
                f"{', '.join([*names, *_COMMON_KEYS])}."
            )
        return cls(loader, master, values)

    def integers(self, key: str, default: int, minimum: int = 1) -> list[int]:
        """The values of a key that counts, each once, or the default.

        Raises:
            ConfigError: one is no whole number from `minimum`.
        """
        values = self.values.get(key, [str(default)])
        for value in values:
            if not value.isdecimal() or int(value) < minimum:
                raise ConfigError(
                    f"{key}={value} is not allowed; it must be a whole number from {minimum}."
                )
        return list(dict.fromkeys(map(int, values)))

    def single_integer(self, key: str, default: int, reason: str, minimum: int = 1) -> int:
        """The value of a key that has a single value, for a `reason` that an error names."""
        values = self.integers(key, default, minimum)
        if len(values) > 1:
            raise self._several_values_error(key, list(map(str, values)), reason)
        return values[0]

    def _several_values_error(self, key: str, values: Sequence[str], reason: str) -> ConfigError:
        return ConfigError(
            f"{key}={','.join(values)} cannot be several in experiment="
            f"{self.master.measure.name}; {reason}."
        )

    @property
    def threads(self) -> int | None:
        """Threads that torch computes with, where they are set."""
        if "trainer.threads" not in self.values:
            return None
        return self.single_integer("trainer.threads", 1, "it is the same for all")

    def specify_networks(self, keys: Sequence[str], **fixed: Any) -> list[RunSpec]:
        """The checked configuration of every combination of the keys' values, each network once.

        `fixed` are values of other keys, `model__width` for `model.width`.

        Raises:
            ConfigError: another key has several values, or a combination could not be trained.
        """
        several = {*keys, *_COMMON_KEYS, *(key.replace("__", ".") for key in fixed)}
        for key, values in self.values.items():
            if len(values) > 1 and key.lstrip("+") not in several:
                raise self._several_values_error(key, values, "it is the same for all networks")
        swept = [key for key in keys if key in self.values]
        single = {key: values[0] for key, values in self.values.items() if len(values) == 1}
        specs: dict[str, RunSpec] = {}
        composer = RunComposer(self.loader, self.master)
        for combination in itertools.product(*(self.values[key] for key in swept)):
            chosen = dict(zip(swept, combination, strict=True))
            chosen |= {key.replace("__", "."): value for key, value in fixed.items()}
            rest = {key: value for key, value in single.items() if key.lstrip("+") not in chosen}
            overrides = [f"{key}={value}" for key, value in {**rest, **chosen}.items()]
            spec = composer.compose(overrides)
            # Without norms every placement is one network, with one id.
            specs.setdefault(spec.id, spec)
        return list(specs.values())
