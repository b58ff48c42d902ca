"""Runs grouped into arms: everything that was chosen, apart from the seed."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from normlab.archive.record import arm_name_parts, short_number
from normlab.archive.study import Run
from normlab.text import printable_line

SEPARATOR = " · "

# Where a run's results lie and how they are logged says nothing about what was trained.
_IGNORED_GROUPS = {"logger", "hydra", "study", "output_dir", "jobs", "figure", "probes"}
_NAMED_APART = ("norm", "placement")
_MOST_NAMED = 3  # settings in the name of an arm, unless it takes more to tell the arms apart

Settings = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Arm:
    """Runs that differ in nothing but their seed.

    `settings` are the other things that vary in the study, as (short name, value); `unnamed` are
    those of them that go without saying, as others tell the arms apart: see `name_apart`.
    """

    norm: str
    placement: str
    settings: Settings
    runs: tuple[Run, ...]
    unnamed: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Norm and placement, without the one that means nothing."""
        return printable_line(SEPARATOR.join(arm_name_parts(self.norm, self.placement)))

    @property
    def label(self) -> str:
        """The name and what distinguishes the arm beside it: `rmsnorm · pre · lr=3e-3`."""
        return SEPARATOR.join(filter(None, [self.name, self.setting]))

    @property
    def setting(self) -> str:
        """The settings by which it is named."""
        return SEPARATOR.join(describe(one) for one in self.settings if one[0] not in self.unnamed)

    def with_state(self, *states: str) -> list[Run]:
        """The arm's runs that ended in one of these states."""
        return [run for run in self.runs if run.record.state in states]


@dataclass(frozen=True)
class Facet:
    """Arms that share every setting but norm and placement; what one panel shows."""

    settings: Settings
    arms: tuple[Arm, ...]

    @property
    def title(self) -> str:
        """The shared settings, by as few as tell the facets apart; empty of a single facet."""
        return next(arm.setting for arm in self.arms if arm.settings == self.settings)


def group(runs: Iterable[Run]) -> list[Arm]:
    """Group runs into arms, ordered by norm (`none` last), placement and settings."""
    runs = _once(runs)
    keys = _varying(runs)
    names = _short_names(keys)
    buckets: dict[str, list[Run]] = defaultdict(list)
    settings_of: dict[str, Settings] = {}
    for run in runs:
        known = _settings(run)
        settings = tuple((names[key], known[key]) for key in keys if key in known)
        identity = _frozen([run.record.norm, run.record.placement, settings])
        buckets[identity].append(run)
        settings_of[identity] = settings
    arms = [
        Arm(members[0].record.norm, members[0].record.placement, settings_of[key], tuple(members))
        for key, members in buckets.items()
    ]
    return name_apart(sorted(arms, key=_order))


def name_apart(arms: Sequence[Arm]) -> list[Arm]:
    """The arms, named by all of few settings, or of many by the fewest that tell them apart.

    Runs of unlike commands in one study differ in many keys at once; named by all of them, nobody
    could read which is which. The settings themselves stay with the arms.
    """
    every = [dict(arm.settings) for arm in arms]
    values = {
        key: [_frozen(one[key]) if key in one else None for one in every]
        for key in dict.fromkeys(key for one in every for key in one)
    }

    def combinations(keys: Iterable[str]) -> int:
        return len(set(zip(*(values[key] for key in keys), strict=True)))

    if len(values) <= _MOST_NAMED:
        return [replace(arm, unnamed=frozenset()) for arm in arms]
    named: list[str] = []
    while combinations(named) < combinations(values):
        others = [key for key in values if key not in named]
        named.append(max(others, key=lambda key: combinations([*named, key])))
    unnamed = frozenset(values.keys() - set(named))
    return [replace(arm, unnamed=unnamed) for arm in arms]


def _once(runs: Iterable[Run]) -> list[Run]:
    """The runs, and of one that was trained without probes and again with them, the latter.

    Both have the same numbers: together they would be two seeds where there is one.
    """
    kept: dict[str, Run] = {}
    for run in runs:
        if "probes" in run.record.config or identity(run) not in kept:
            kept[identity(run)] = run
    return list(kept.values())


def identity(run: Run) -> str:
    """What decides a run's numbers: the same, whether it was trained with probes or without."""
    others = {key: item for key, item in run.record.config.items() if key != "probes"}
    return _frozen([run.record.norm, run.record.placement, run.record.seed, others])


def facets(arms: Sequence[Arm]) -> list[Facet]:
    """One facet for every combination of settings, ordered by it.

    An arm that lacks a setting (a network without a norm has no `eps`) is in every facet that
    agrees with the settings it has, as the reference it is.
    """
    combinations = {_frozen(arm.settings): arm.settings for arm in arms}
    whole = [
        settings
        for settings in combinations.values()
        if not any(_is_part(settings, other) for other in combinations.values())
    ]
    return [
        Facet(
            settings,
            tuple(a for a in arms if a.settings == settings or _is_part(a.settings, settings)),
        )
        for settings in sorted(whole, key=_settings_order)
    ]


def describe(setting: tuple[str, Any]) -> str:
    """`lr=3e-3`, `depth=4`, `betas=[0.9, 0.95]`."""
    return f"{setting[0]}={format_value(setting[1])}"


def format_value(value: Any) -> str:
    """A configuration value as one would write it: 3e-3, 0.1, 128, true, null."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return short_number(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(format_value, value))}]"
    return printable_line(str(value))


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _options(run: Run) -> dict[str, str]:
    record = run.record
    own = {"norm": record.norm, "placement": record.placement, "data": record.data}
    return {**record.choices, **own}


def _settings(run: Run) -> dict[str, Any]:
    """Everything that could name an arm, apart from norm and placement: options, then keys."""
    settings: dict[str, Any] = {
        group: option for group, option in _options(run).items() if group not in _NAMED_APART
    }
    settings |= flatten(run.record.config)
    idle = [group for group in _NAMED_APART if getattr(run.record, group) == "any"]
    settings = {key: item for key, item in settings.items() if _group(key) not in idle}
    return {key: item for key, item in settings.items() if not _is_ignored(key)}


def _group(key: str) -> str:
    return re.split(r"[./@]", key)[0]


def _is_ignored(key: str) -> bool:
    return _group(key) in _IGNORED_GROUPS or key.split(".")[-1] == "seed"


def _varying(runs: Sequence[Run]) -> list[str]:
    """The settings that name an arm.

    A key of the configuration counts only if it differs between runs that took the same option in
    its group: another norm's other eps is part of that norm. One that nobody gave on a command
    line, and that follows from those which were given, is a consequence (the last learning rate
    follows from the first) and would only repeat them.
    """
    options = [_options(run) for run in runs]
    settings = [{key: _frozen(item) for key, item in _settings(run).items()} for run in runs]
    keys = list(dict.fromkeys(key for known in settings for key in known))

    def column(key: str) -> list[str | None]:
        return [known.get(key) for known in settings]

    differing = [
        key
        for key in keys
        if not _follows(
            column(key), [chosen.get(_group(key)) if "." in key else None for chosen in options]
        )
    ]
    given = set().union(*(re.findall(r"([\w./@]+)=", run.record.command) for run in runs))
    asked = [key for key in differing if "." not in key or key in given]
    causes = list(zip(*map(column, asked), strict=True)) if asked else [None] * len(runs)
    return [key for key in differing if key in asked or not _follows(column(key), causes)]


def _follows(effects: Sequence[object], causes: Sequence[object]) -> bool:
    """Whether equal causes always go with equal effects."""
    return len(set(zip(causes, effects, strict=True))) == len(set(causes))


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    last = [key.split(".")[-1] for key in keys]
    return {
        key: short if last.count(short) == 1 else key for key, short in zip(keys, last, strict=True)
    }


def _frozen(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _is_part(settings: Settings, of: Settings) -> bool:
    return len(settings) < len(of) and all(setting in of for setting in settings)


def _settings_order(settings: Settings) -> list[tuple[str, bool, Any]]:
    """Numbers by value, before everything else by text."""
    return [
        (name, not number, value if number else format_value(value))
        for name, value in settings
        for number in [isinstance(value, int | float)]
    ]


def _order(arm: Arm) -> tuple[bool, str, str, list[tuple[str, bool, Any]]]:
    return arm.norm == "none", arm.norm, arm.placement, _settings_order(arm.settings)
