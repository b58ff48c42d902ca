"""Runs grouped into arms: everything that was chosen, apart from the seed."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from normlab.archive.record import (
    NEUTRAL_KEYS,
    NEUTRAL_TRAINER_KEYS,
    SETTLED_STATES,
    RunRecord,
    arm_name_parts,
    short_number,
)
from normlab.archive.study import Run
from normlab.text import printable_line

SEPARATOR = " · "

# A budget names arms: it decides how long they train. Probes measure, and change no number.
_IGNORED_GROUPS = {*NEUTRAL_KEYS, "hydra", "probes"} - {"budget"}
_IGNORED_KEYS = {f"trainer.{key}" for key in NEUTRAL_TRAINER_KEYS}
_NAME_GROUPS = ("norm", "placement")
_MOST_SETTINGS = 3  # settings in the name of an arm, unless it takes more to tell the arms apart

Settings = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Arm:
    """Runs that differ in nothing but their seed.

    `settings` are the other things that vary in the study, as (short name, value); `unnamed` are
    those left out of the name, as others distinguish the arms: see `name_arms`.
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
        return SEPARATOR.join([self.name, *_format_named(self.settings, self.unnamed)])

    @property
    def final_losses(self) -> list[float]:
        """Final validation loss of the finished runs, in nats per token."""
        losses = [run.record.final.val_loss for run in self.with_state("finished")]
        return [loss for loss in losses if loss is not None]

    @property
    def best_losses(self) -> list[float]:
        """Lowest validation loss of the finished runs, in nats per token."""
        losses = [run.record.best.val_loss for run in self.with_state("finished")]
        return [loss for loss in losses if loss is not None]

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
        # The same settings are unnamed in all arms of a study.
        return SEPARATOR.join(_format_named(self.settings, self.arms[0].unnamed))


def group_runs(runs: Iterable[Run]) -> list[Arm]:
    """Group runs into arms, ordered by norm (`none` last), placement and settings."""
    runs = _drop_repeated_runs(runs)
    naming = list(map(_naming_settings, runs))
    keys = _varying_keys(runs, naming)
    last_parts = [key.split(".")[-1] for key in keys]
    names = {
        key: part if last_parts.count(part) == 1 else key
        for key, part in zip(keys, last_parts, strict=True)
    }
    single_runs = [
        Arm(
            run.record.norm,
            run.record.placement,
            tuple((names[key], named[key]) for key in keys if key in named),
            (run,),
        )
        for run, named in zip(runs, naming, strict=True)
    ]
    arms = merge_arms(single_runs)
    arms.sort(
        key=lambda arm: (arm.norm == "none", arm.norm, arm.placement, _settings_order(arm.settings))
    )
    return name_arms(arms)


def merge_arms(arms: Iterable[Arm]) -> list[Arm]:
    """Arms of equal norm, placement and settings as one, with the runs of all."""
    merged: dict[str, Arm] = {}
    for arm in arms:
        # As text, because settings may be lists, which no dictionary takes as keys.
        identity = _json_text([arm.norm, arm.placement, arm.settings])
        runs = merged[identity].runs if identity in merged else ()
        merged[identity] = replace(arm, runs=runs + arm.runs)
    return list(merged.values())


def name_arms(arms: Sequence[Arm]) -> list[Arm]:
    """The arms, named by all of few settings, or of many by a few that tell them apart.

    Runs of unlike commands in one study differ in many keys at once; named by all of them, nobody
    could read which is which. The settings themselves stay with the arms.
    """
    settings_of = [dict(arm.settings) for arm in arms]
    values = {
        key: [_json_text(settings[key]) if key in settings else None for settings in settings_of]
        for key in dict.fromkeys(key for settings in settings_of for key in settings)
    }

    def combinations(keys: Iterable[str]) -> int:
        return len(set(zip(*(values[key] for key in keys), strict=True)))

    if len(values) <= _MOST_SETTINGS:
        return [replace(arm, unnamed=frozenset()) for arm in arms]
    # One after the other, each time the setting that tells most arms apart: the fewest of all
    # could only be found by trying every set of settings.
    named: list[str] = []
    while combinations(named) < combinations(values):
        unused = [key for key in values if key not in named]
        named.append(max(unused, key=lambda key: combinations([*named, key])))
    unnamed = frozenset(values.keys() - set(named))
    return [replace(arm, unnamed=unnamed) for arm in arms]


def _drop_repeated_runs(runs: Iterable[Run]) -> list[Run]:
    """The runs, and of one that was trained without probes and again with them, the latter.

    Both have the same numbers: together they would be two seeds where there is one. One without a
    result takes the place of none that has one.
    """

    def rank(run: Run) -> tuple[bool, bool]:
        return run.record.state in SETTLED_STATES, "probes" in run.record.config

    kept: dict[str, Run] = {}
    for run in runs:
        identity = run_identity(run)
        if rank(run) > rank(kept.setdefault(identity, run)):
            kept[identity] = run
    return list(kept.values())


def run_identity(run: Run) -> str:
    """What decides a run's numbers: the same, whether it was trained with probes or without."""
    without = {*NEUTRAL_KEYS, "probes"}
    config = {key: item for key, item in run.record.config.items() if key not in without}
    if isinstance(trainer := config.get("trainer"), dict):
        config["trainer"] = {k: v for k, v in trainer.items() if k not in NEUTRAL_TRAINER_KEYS}
    return _json_text([run.record.norm, run.record.placement, run.record.seed, config])


def split_facets(arms: Sequence[Arm]) -> list[Facet]:
    """One facet for every combination of settings, ordered by it.

    An arm that lacks a setting (a network without a norm has no `eps`) is in every facet that
    agrees with the settings it has, as the reference it is.
    """
    combinations = {_json_text(arm.settings): arm.settings for arm in arms}
    complete = [
        settings
        for settings in combinations.values()
        if not any(_is_subset(settings, other) for other in combinations.values())
    ]
    return [
        Facet(
            settings,
            tuple(a for a in arms if a.settings == settings or _is_subset(a.settings, settings)),
        )
        for settings in sorted(complete, key=_settings_order)
    ]


def _format_named(settings: Settings, unnamed: frozenset[str]) -> list[str]:
    return [format_setting(setting) for setting in settings if setting[0] not in unnamed]


def format_setting(setting: tuple[str, Any]) -> str:
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


def flatten_keys(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten_keys(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def chosen_options(record: RunRecord) -> dict[str, str]:
    """The option of every group, those that have a field of their own included."""
    named_groups = {"norm": record.norm, "placement": record.placement, "data": record.data}
    return {**record.choices, **named_groups}


def _naming_settings(run: Run) -> dict[str, Any]:
    """Everything that could name an arm, apart from norm and placement: options, then keys."""
    settings: dict[str, Any] = {
        group: option
        for group, option in chosen_options(run.record).items()
        if group not in _NAME_GROUPS
    }
    settings |= flatten_keys(run.record.config)
    # A norm or placement called `any` makes no difference to the network, nor do its keys.
    idle = [group for group in _NAME_GROUPS if getattr(run.record, group) == "any"]
    ignored = {*_IGNORED_GROUPS, *idle}
    return {
        key: item
        for key, item in settings.items()
        if _key_group(key) not in ignored
        and key not in _IGNORED_KEYS
        and key.split(".")[-1] != "seed"
    }


def _key_group(key: str) -> str:
    return re.split(r"[./@]", key)[0]


def _varying_keys(runs: Sequence[Run], naming: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings that name an arm, of the `_naming_settings` of each run.

    A key of the configuration counts only if it differs between runs that took the same option in
    its group: another norm's other eps is part of that norm. One that nobody gave on a command
    line, and that follows from those which were given, is a consequence (the last learning rate
    follows from the first) and would only repeat them.
    """
    options = [chosen_options(run.record) for run in runs]
    settings = [{key: _json_text(item) for key, item in of_run.items()} for of_run in naming]
    keys = list(dict.fromkeys(key for of_run in settings for key in of_run))

    def column(key: str) -> list[str | None]:
        return [of_run.get(key) for of_run in settings]

    # A key with a dot belongs to a group, whose option may explain it; one without stands alone.
    differing = [
        key
        for key in keys
        if not _follows_from(
            column(key), [chosen.get(_key_group(key)) if "." in key else None for chosen in options]
        )
    ]
    # What was typed is a cause. Where no command tells, two keys that differ are both named.
    typed = set().union(*(re.findall(r"([\w./@]+)=", run.record.command) for run in runs))
    chosen_keys = [key for key in differing if "." not in key or key in typed]
    causes = (
        list(zip(*map(column, chosen_keys), strict=True)) if chosen_keys else [None] * len(runs)
    )
    return [
        key for key in differing if key in chosen_keys or not _follows_from(column(key), causes)
    ]


def _follows_from(effects: Sequence[object], causes: Sequence[object]) -> bool:
    """Whether equal causes always go with equal effects."""
    # Then no cause occurs in two different pairs.
    return len(set(zip(causes, effects, strict=True))) == len(set(causes))


def _json_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _is_subset(settings: Settings, of: Settings) -> bool:
    return len(settings) < len(of) and all(setting in of for setting in settings)


def _settings_order(settings: Settings) -> list[tuple[str, bool, Any]]:
    """Numbers by value, before everything else by text."""
    return [
        (name, not number, value if number else format_value(value))
        for name, value in settings
        for number in [isinstance(value, int | float)]
    ]
