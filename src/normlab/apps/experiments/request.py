"""What a command asks of a measurement: which keys it may hold, and what they come to."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from normlab.config.spec import RunSpec
from normlab.errors import ConfigError
from normlab.study.plan import Plan, compose_spec, expand_overrides

# Keys that every measurement takes.
_ALWAYS = ("experiment", "study", "output_dir", "budget", "seed", "trainer.threads")


@dataclass
class Request:
    """A command that measures: the values of every key that was given, in order."""

    loader: ConfigLoader
    master: DictConfig
    name: str
    values: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        loader: ConfigLoader,
        master: DictConfig,
        arguments: Sequence[str],
        takes: Sequence[str],
    ) -> "Request":
        """Hold the arguments to the keys that the measurement takes; `norm.` stands for `norm.*`.

        Raises:
            ConfigError: it cannot use one of them.
            HydraException: one cannot be read.
        """
        plan = Plan()
        for _ in expand_overrides(loader, arguments, plan):
            break
        given = {key: [value] for key, value in plan.fixed.items()} | plan.varied
        request = cls(loader, master, str(master.measure.name), given)
        for key in given:
            bare = key.lstrip("+~")
            if bare not in (*_ALWAYS, *takes) and f"{bare.partition('.')[0]}." not in takes:
                known = [*(f"{take}*" if take.endswith(".") else take for take in takes), *_ALWAYS]
                raise ConfigError(
                    f"{key}={', '.join(given[key])} means nothing to experiment={request.name}, "
                    f"which trains nothing; it takes {', '.join(known)}."
                )
        return request

    def several(self, key: str) -> list[str]:
        """The values of a key, or none."""
        return self.values.get(key, [])

    def whole_numbers(self, key: str, otherwise: Sequence[int], least: int = 1) -> list[int]:
        """The values of a key that counts, or `otherwise`.

        Raises:
            ConfigError: one is no whole number from `least`.
        """
        found = []
        for value in self.several(key):
            if not value.isdecimal() or int(value) < least:
                raise ConfigError(
                    f"{key}={value} is not allowed; it must be a whole number from {least}."
                )
            found.append(int(value))
        return list(dict.fromkeys(found)) or list(otherwise)

    def one(self, key: str, otherwise: int, why: str, least: int = 1) -> int:
        """The same for a key that has one value. `why` says so, for who gives several."""
        found = self.whole_numbers(key, [otherwise], least)
        if len(found) > 1:
            raise ConfigError(
                f"{key}={','.join(map(str, found))} cannot be several in experiment={self.name}; "
                f"{why}."
            )
        return found[0]

    @property
    def budget(self) -> str:
        """The option of `budget`."""
        return str(self.master.hydra.runtime.choices.budget)

    @property
    def threads(self) -> int | None:
        """Threads that torch computes with, where they were given."""
        given = self.several("trainer.threads")
        return self.one("trainer.threads", 1, "it is the same for all") if given else None

    def spec(self, **overrides: Any) -> RunSpec:
        """The configuration with these values (`model__width` is `model.width`), checked.

        Raises:
            ConfigError: it could not be trained either.
        """
        kept = [f"{key}={values[0]}" for key, values in self.values.items() if len(values) == 1]
        words = {key.replace("__", "."): value for key, value in overrides.items()}
        others = [word for word in kept if word.partition("=")[0].lstrip("+") not in words]
        return compose_spec(
            self.loader, self.master, [*others, *(f"{k}={v}" for k, v in words.items())]
        )

    def specs(self, keys: Sequence[str], **overrides: Any) -> Iterator[RunSpec]:
        """One for every combination of the keys' values, the same network once.

        Raises:
            ConfigError: as `spec`.
        """
        seen = set()
        given = [[f"{key}={value}" for value in self.several(key)] or [""] for key in keys]
        for combination in itertools.product(*given):
            words = dict(word.split("=", 1) for word in combination if word)
            spec = self.spec(**words, **overrides)
            if spec.id not in seen:
                seen.add(spec.id)
                yield spec
