"""What a command asks for: every combination composed, checked and named before anything trains."""

import itertools
import json
import logging
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from normlab.archive.files import check_study_files, sync_to_disk
from normlab.archive.lock import supports_locks
from normlab.archive.record import RunRecord
from normlab.config.gate import check_sweep_entry
from normlab.config.run_spec import RunSpec, changed_text_message
from normlab.config.user_sources import changed_modules, digest_user_sources
from normlab.errors import ConfigError, NormlabError
from normlab.study.composition import RunComposer
from normlab.text import excerpt, join_words, suggest_closest

# What is the same for all runs of a command: where they go, and what an experiment asks for.
_SINGLE_KEYS = (
    *("study", "output_dir", "experiment", "sweep", "measure", "figure"),
    *("jobs", "margin", "target", "trainer.stack"),
)
MOST_RUNS = 10_000  # of a command: each is composed and checked before the first is trained
ELSEWHERE = "elsewhere"  # the state of a run that another process trains


Overrides = tuple[str, ...]


@dataclass(frozen=True)
class SweepRequest:
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

    def study_name(self, name: str, budget: str) -> str:
        """The study's name: runs of different budgets do not compare."""
        return f"{name}-{budget}" if self.budgets else name

    def expand_arms(
        self, arguments: Sequence[str], budget: str, loader: ConfigLoader | None = None
    ) -> tuple[list[Overrides], list[str]]:
        """The arms, and every other override: the command line's, before the experiment's own.

        Where the experiment has arms, `norm=` and `placement=` on the command line are arms beside
        them.

        Raises:
            ConfigError: the experiment has no such budget, or its sweep is not one.
        """
        self.check_types()
        keys = {_override_key(word): word for word in arguments}
        # What is swept is also what `sweep=` asks for, and that is the user's word.
        values = {**self._values_of_budget(keys.get("budget", ""), budget), **self.params}
        swept = [f"{key}={value}" for key, value in values.items() if key not in keys]
        arms = [tuple(arm.split()) for arm in self.arms]
        if not arms:
            return [()], [*swept, *arguments]
        named = {_override_key(word) for arm in arms for word in arm}
        additions = [
            _split_alternatives(word, loader) for word in arguments if _override_key(word) in named
        ]
        if additions:
            arms += [arm for arm in itertools.product(*additions) if arm not in arms]
        return arms, [*swept, *(word for word in arguments if _override_key(word) not in named)]

    def check_types(self) -> None:
        """Refuse a sweep of other types than the attributes', or one that sets more than keys.

        Raises:
            ConfigError: naming the value and what is allowed.
        """
        if isinstance(self.arms, str) or not isinstance(self.arms, Sequence):
            raise _sweep_error(
                "arms", self.arms, "a list of texts, as [norm=rmsnorm placement=pre]"
            )
        for arm in self.arms:
            if not isinstance(arm, str):
                raise _sweep_error("arms", arm, "a list of texts, as [norm=rmsnorm placement=pre]")
            for word in arm.split():
                check_sweep_entry(word)
        params = [("params", self.params)]
        if not isinstance(self.budgets, Mapping):
            raise _sweep_error("budgets", self.budgets, "values by key for every option of budget")
        params += [(f"budgets.{name}", values) for name, values in self.budgets.items()]
        for name, values in params:
            if not isinstance(values, Mapping):
                raise _sweep_error(name, values, "values by key, as {seed: '0,1,2'}")
            for key, value in values.items():
                if not isinstance(value, str | int | float):
                    raise _sweep_error(f"{name}.{key}", value, "a value, or text as '0,1,2'")
                check_sweep_entry(f"{key}={value}")

    def _values_of_budget(self, argument: str, budget: str) -> Mapping[str, Any]:
        if not self.budgets:
            return {}
        # Any syntax: of budget=glob(*) Hydra composes the default, and would sweep over all.
        is_sweep = bool(argument) and (
            OverridesParser.create().parse_override(argument).is_sweep_override()
        )
        if is_sweep or budget not in self.budgets:
            raise ConfigError(
                f"{argument or f'budget={budget}'} is no size of this experiment; "
                f"{suggest_closest(budget, self.budgets, 'budget=')}give one of "
                f"{', '.join(f'budget={name}' for name in self.budgets)}."
            )
        return self.budgets[budget]


@dataclass(frozen=True)
class ExpandedOverrides:
    """What the arguments of a command come to.

    Attributes:
        combinations: overrides for every combination of the values asked for.
        varied: the values of each key that has several, in order.
        fixed: the value of each other key.
    """

    combinations: tuple[Overrides, ...]
    varied: Mapping[str, list[str]]
    fixed: Mapping[str, str]


@dataclass
class Plan:
    """The runs of a command, and what it varies: keys with more than one value, in order."""

    varied: dict[str, list[str]] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    runs: list[tuple[list[str], RunSpec]] = field(default_factory=list)
    # Combinations that turned out to be a run already planned: what they vary, and that run.
    duplicates: list[tuple[str, RunSpec]] = field(default_factory=list)

    vocabularies: dict[str, int] = field(default_factory=dict)  # tokens of each run's data, by id

    @property
    def specs(self) -> list[RunSpec]:
        """The runs without the overrides that make them."""
        return [spec for _, spec in self.runs]

    def pending(self) -> list[tuple[list[str], RunSpec]]:
        """The runs that are not there yet."""
        return [(overrides, spec) for overrides, spec in self.runs if spec.read_result() is None]


def make_plan(
    loader: ConfigLoader,
    master: DictConfig,
    arguments: Sequence[str],
    study: str,
    arms: Sequence[tuple[str, ...]] = ((),),
    *,
    with_data: bool = True,
) -> Plan:
    """Expand, compose and check every combination of the arguments, for every arm.

    `master` is the configuration Hydra composed for the sweep, `study` the name that all of its
    runs share; an arm is overrides that go together.

    Raises:
        ConfigError: a combination cannot be trained; nothing has been written.
        HydraException: an override cannot be read or composed.
    """
    plan = Plan()
    seen: dict[str, RunSpec] = {}
    for word in (word for arm in arms for word in arm):
        key, _, value = word.partition("=")
        values = plan.varied.setdefault(key, [])
        values += [] if value in values else [value]
    expanded = expand_overrides(loader, arguments)
    plan.varied |= expanded.varied
    plan.fixed |= expanded.fixed
    _check_run_count([len(arms), len(expanded.combinations)])
    composer = RunComposer(loader, master)
    for combination in ((*arm, *rest) for arm in arms for rest in expanded.combinations):
        overrides = [*combination, f"study={study}"]
        spec = composer.compose(overrides)
        if spec.id in seen:
            varied = [word for word in combination if word.partition("=")[0] in plan.varied]
            plan.duplicates.append((" ".join(varied), seen[spec.id]))
            continue
        seen[spec.id] = spec
        plan.runs.append((overrides, spec))
    plan.vocabularies = _check_data(plan.specs) if with_data else {}
    return plan


def check_repeated_keys(
    overrides: Sequence[str], flag: str = "", single: Collection[str] = _SINGLE_KEYS
) -> None:
    """Refuse a key that is given twice: of the two values, Hydra takes the last and says nothing.

    `flag` is what a command needs to take several values, of all keys that are not `single`.

    Raises:
        ConfigError: with both values, and how to ask for both.
    """
    first: dict[str, str] = {}
    for word in overrides:
        name, sign, value = word.partition("=")
        key = name.strip().lstrip("+")
        if not sign or key.startswith("~"):
            continue
        if key in first:
            values = [first[key], value]
            if "[" not in first[key] + value:  # none of the values is a list itself
                values = list(dict.fromkeys(",".join(values).split(",")))
            both = f"{key}={','.join(values)}"
            several = f", or {excerpt(both)}{flag} to compare both"
            if key in single or key.startswith("hydra") or first[key] == value:
                several = ""
            raise ConfigError(
                f"{excerpt(key)} is given twice, {excerpt(f'{key}={first[key]}')} and "
                f"{excerpt(f'{key}={value}')}; give it once{several}."
            )
        first[key] = value


def expand_overrides(loader: ConfigLoader, arguments: Sequence[str]) -> ExpandedOverrides:
    """Overrides for every combination of the values asked for, and what varies.

    Raises:
        ConfigError: a sweep is not a list of values.
        HydraException: an override cannot be read.
    """
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(arguments))
    options, varied, fixed = [], {}, {}
    for override in parsed:
        key = override.get_key_element()
        if override.is_sweep_override():
            values = varied[key] = _swept_values(override)
            options.append([f"{key}={value}" for value in values])
        else:
            value = fixed[key] = override.get_value_element_as_str()
            options.append([key if override.is_delete() and not value else f"{key}={value}"])
    # Before the product is written out: ten keys with ten values would fill the memory.
    _check_run_count([len(values) for values in options])
    return ExpandedOverrides(tuple(itertools.product(*options)), varied, fixed)


def _check_run_count(counts: Sequence[int]) -> None:
    """Refuse a command that asks for more than `MOST_RUNS` runs, the product of the counts."""
    runs = math.prod(counts)
    if runs > MOST_RUNS:
        factors = " × ".join(str(count) for count in counts if count > 1)
        raise ConfigError(
            f"the command asks for {runs:,} runs ({factors}), and the most is {MOST_RUNS:,}; give "
            f"fewer values, and the others in further commands."
        )


def _swept_values(override: Override) -> list[str]:
    key = override.get_key_element()
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line} is not a list of values; "
            f"sweep over a,b,c or range(0,3) or glob(*)."
        )
    if key in _SINGLE_KEYS or key.startswith("hydra"):
        raise ConfigError(
            f"{override.input_line} gives several values, but a command has one {key}; give one "
            f"value, and the others in further commands."
        )
    # Not listed whole: range(0,10**12) is refused as soon as it has too many.
    values = list(map(str, itertools.islice(override.sweep_string_iterator(), MOST_RUNS + 1)))
    if len(values) > MOST_RUNS:
        raise ConfigError(
            f"{override.input_line} gives more than {MOST_RUNS:,} values, the most runs of a "
            f"command; give fewer, and the others in further commands."
        )
    if not values:
        raise ConfigError(
            f"{override.input_line} matches nothing; a glob goes over the options of a group, as "
            f"in norm=glob(*rms*)."
        )
    return values


def _check_data(specs: Sequence[RunSpec]) -> dict[str, int]:
    """Open every source once: a missing file or a text too short must stop the study here.

    Returns the vocabulary of each run, by its id.
    """
    from normlab.data import build_source

    sources: dict[str, tuple[str | None, int]] = {}
    vocabularies = {}
    for spec in specs:
        data, context = spec.plain["data"], spec.config.model.context
        key = json.dumps([data, context])
        if key not in sources:
            source = build_source(data, context)
            sources[key] = source.digest, source.vocabulary
        digest, vocabularies[spec.id] = sources[key]
        record = spec.read_result()
        if record is not None:
            if record.data_digest != digest:
                raise ConfigError(changed_text_message(spec))
            check_same_sources(spec, record)
    return vocabularies


def check_same_sources(spec: RunSpec, record: RunRecord) -> None:
    """Refuse a result of classes whose source files have changed since. Raises ConfigError."""
    if not record.sources:
        return  # else torch would be imported for every user's class, where nothing is trained
    if changed := changed_modules(record.sources, digest_user_sources(spec.plain)):
        raise ConfigError(
            f"{spec.folder}: the source of {join_words(changed)} has changed since it was trained; "
            f"give the new source a study of its own, study=…, or delete that folder to train the "
            f"run again"
        )


def _sweep_error(name: str, value: Any, allowed: str) -> ConfigError:
    return ConfigError(
        f"hydra.sweeper.{name}={excerpt(value)} is not allowed; it must be {allowed}."
    )


def _override_key(override: str) -> str:
    return override.split("=")[0].lstrip("+~")


def _split_alternatives(override: str, loader: ConfigLoader | None) -> list[str]:
    """`norm=a,b` as `norm=a` and `norm=b`."""
    (parsed,) = OverridesParser.create(config_loader=loader).parse_overrides([override])
    if not parsed.is_sweep_override():
        return [override]
    return [f"{_override_key(override)}={value}" for value in _swept_values(parsed)]


def check_writable(folder: Path) -> None:
    """Ask before torch is imported, and before anything is made, whether results can be kept.

    Raises:
        NormlabError: they cannot.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        problem = "cannot be written" if existing.is_dir() else "is not a folder"
        raise NormlabError(
            f"{folder} cannot hold results, because {existing} {problem}; give a place that can be "
            f"written with output_dir=…"
        )


def make_study_folder(folder: Path) -> None:
    """Make the folder, and say what its file system lacks.

    Raises:
        NormlabError: it cannot be made, or something is in the way of the study's files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_study_files(folder)
        durable, locks = sync_to_disk(folder), supports_locks(folder)
    except OSError as error:
        raise NormlabError(
            f"{folder} cannot be made ({error.strerror}); give a place that can be written with "
            f"output_dir=…"
        ) from error
    log = logging.getLogger("normlab")
    if not durable:
        log.warning(
            "note: the file system of %s cannot flush folders: after a crash of the machine the "
            "last files may be missing",
            folder,
        )
    if not locks:
        log.warning(
            "note: the file system of %s has no locks: do not train the same study from two "
            "machines at once",
            folder,
        )
