"""What an experiment asks for beside the command line: its arms, what it sweeps, its sizes."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from normlab.config.gate import check_sweep_entry
from normlab.errors import ConfigError
from normlab.text import excerpt

Overrides = tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """What `conf/experiment/*.yaml` says under `hydra.sweeper`.

    Attributes:
        params: values by key, swept as if they stood on the command line.
        arms: overrides that go together, as `norm=layernorm placement=post`; each is an arm.
        budgets: for every option of `budget`, further `params`: a budget then means not only how
            long a run is, but also how many seeds, rates or depths there are.
    """

    params: Mapping[str, Any] = field(default_factory=dict)
    arms: Sequence[str] = ()
    budgets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def study(self, name: str, budget: str) -> str:
        """The study's name: runs of different budgets do not compare."""
        return f"{name}-{budget}" if self.budgets else name

    def overrides(self, given: Sequence[str], budget: str) -> tuple[list[Overrides], list[str]]:
        """The arms, and every other override: the command line's, before the experiment's own.

        Where the experiment has arms, `norm=` and `placement=` on the command line are arms beside
        them.

        Raises:
            ConfigError: the experiment has no such budget, or its sweep is not one.
        """
        self._check()
        keys = {_key(word): word for word in given}
        # What is swept is also what `sweep=` asks for, and that is the user's word.
        own = {**self._size(keys.get("budget", ""), budget), **self.params}
        swept = [f"{key}={value}" for key, value in own.items() if key not in keys]
        arms = [tuple(arm.split()) for arm in self.arms]
        if not arms:
            return [()], [*swept, *given]
        named = {_key(word) for arm in arms for word in arm}
        beside = [_alternatives(word) for word in given if _key(word) in named]
        if beside:
            arms += [arm for arm in itertools.product(*beside) if arm not in arms]
        return arms, [*swept, *(word for word in given if _key(word) not in named)]

    def _check(self) -> None:
        """Refuse a sweep of other types than the attributes', or one that sets more than keys."""
        if isinstance(self.arms, str) or not isinstance(self.arms, Sequence):
            raise _not_a_sweep(
                "arms", self.arms, "a list of texts, as [norm=rmsnorm placement=pre]"
            )
        for arm in self.arms:
            if not isinstance(arm, str):
                raise _not_a_sweep("arms", arm, "a list of texts, as [norm=rmsnorm placement=pre]")
            for word in arm.split():
                check_sweep_entry(word)
        params = [("params", self.params)]
        if not isinstance(self.budgets, Mapping):
            raise _not_a_sweep("budgets", self.budgets, "values by key for every option of budget")
        params += [(f"budgets.{name}", values) for name, values in self.budgets.items()]
        for name, values in params:
            if not isinstance(values, Mapping):
                raise _not_a_sweep(name, values, "values by key, as {seed: '0,1,2'}")
            for key, value in values.items():
                if not isinstance(value, str | int | float):
                    raise _not_a_sweep(f"{name}.{key}", value, "a value, or text as '0,1,2'")
                check_sweep_entry(f"{key}={value}")

    def _size(self, asked: str, budget: str) -> Mapping[str, Any]:
        if not self.budgets:
            return {}
        if "," in asked or budget not in self.budgets:
            raise ConfigError(
                f"{asked or f'budget={budget}'} is no size of this experiment; give one of "
                f"{', '.join(f'budget={name}' for name in self.budgets)}."
            )
        return self.budgets[budget]


def _not_a_sweep(name: str, value: Any, allowed: str) -> ConfigError:
    return ConfigError(
        f"hydra.sweeper.{name}={excerpt(value)} is not allowed; it must be {allowed}."
    )


def _key(override: str) -> str:
    return override.split("=")[0].lstrip("+~")


def _alternatives(override: str) -> list[str]:
    """`norm=a,b` as `norm=a` and `norm=b`."""
    parsed = OverridesParser.create().parse_override(override)
    if not parsed.is_sweep_override():
        return [override]
    return [f"{_key(override)}={value}" for value in parsed.sweep_string_iterator()]
