"""What a command asks for: every combination composed, checked and named before anything trains."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from normlab.archive.record import read_result
from normlab.config.formula import is_formula
from normlab.config.run_spec import RunSpec, changed_text_message, make_run_spec
from normlab.config.validation import check_against_file
from normlab.errors import ConfigError

# What is the same for all runs of a command: where they go, and what an experiment asks for.
_SINGLE = ("study", "output_dir", "experiment", "sweep", "measure", "figure", "jobs")
ELSEWHERE = "elsewhere"  # the state of a run that another process trains


@dataclass
class Plan:
    """The runs of a command, and what it varies: keys with more than one value, in order."""

    varied: dict[str, list[str]] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    runs: list[tuple[list[str], RunSpec]] = field(default_factory=list)
    # Combinations that turned out to be a run already planned: what they vary, and that run.
    combined: list[tuple[str, RunSpec]] = field(default_factory=list)

    vocabularies: dict[str, int] = field(default_factory=dict)  # tokens of each run's data, by id

    @property
    def specs(self) -> list[RunSpec]:
        """The runs without the overrides that make them."""
        return [spec for _, spec in self.runs]

    def pending(self) -> list[tuple[list[str], RunSpec]]:
        """The runs that are not there yet."""
        return [(overrides, spec) for overrides, spec in self.runs if not is_settled(spec)]


def make_plan(
    loader: ConfigLoader,
    master: DictConfig,
    arguments: Sequence[str],
    study: str,
    arms: Sequence[tuple[str, ...]] = ((),),
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
    others = list(combinations(loader, arguments, plan))
    for combination in ((*arm, *other) for arm in arms for other in others):
        overrides = [*combination, f"study={study}"]
        spec = specified(loader, master, overrides)
        if spec.id in seen:
            varied = [word for word in combination if word.partition("=")[0] in plan.varied]
            plan.combined.append((" ".join(varied), seen[spec.id]))
            continue
        seen[spec.id] = spec
        plan.runs.append((overrides, spec))
    plan.vocabularies = _checked_data(plan.specs)
    return plan


def combinations(
    loader: ConfigLoader, arguments: Sequence[str], plan: Plan
) -> Iterator[tuple[str, ...]]:
    """Overrides for every combination of the values asked for; `plan` is told what varies.

    Raises:
        ConfigError: a sweep is not a list of values.
        HydraException: an override cannot be read.
    """
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(arguments))
    return itertools.product(*[_values(override, plan) for override in parsed])


def specified(loader: ConfigLoader, master: DictConfig, overrides: Sequence[str]) -> RunSpec:
    """The run that these overrides of `master` make; those of `norm.*` are held to its file.

    Raises:
        ConfigError: it cannot be trained.
        HydraException: an override cannot be composed.
    """
    composed, choices = _compose(loader, master, overrides)
    arguments = [override for override in overrides if override.lstrip("+~").startswith("norm.")]
    if arguments:
        others = [override for override in overrides if override not in arguments]
        reference, _ = _compose(loader, master, others)
        given, expected = (
            OmegaConf.to_container(config.norm, resolve=True) for config in (composed, reference)
        )
        # A formula's parameters and constants are the user's to add; `make_run_spec` checks them.
        if not is_formula(given):
            check_against_file("norm", given, expected)
    return make_run_spec(composed, choices)


def is_settled(spec: RunSpec) -> bool:
    """Whether the run is there with a result: finished, or diverged."""
    return read_result(spec.folder) is not None


def _values(override: Override, plan: Plan) -> list[str]:
    key = override.get_key_element()
    if not override.is_sweep_override():
        value = override.get_value_element_as_str()
        plan.fixed[key] = value
        return [f"{key}={value}" if value else key]
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line} is not a list of values; "
            f"sweep over a,b,c or range(0,3) or glob(*)."
        )
    if key in _SINGLE or key.startswith("hydra"):
        raise ConfigError(
            f"{override.input_line} gives several values, but a command has one {key}; give one "
            f"value, and the others in further commands."
        )
    values = [str(value) for value in override.sweep_string_iterator()]
    if not values:
        raise ConfigError(
            f"{override.input_line} matches nothing; a glob goes over the options of a group, as "
            f"in norm=glob(*rms*)."
        )
    plan.varied[key] = values
    return [f"{key}={value}" for value in values]


def _compose(
    loader: ConfigLoader, master: DictConfig, overrides: Sequence[str]
) -> tuple[DictConfig, Mapping[str, str]]:
    composed = loader.load_sweep_config(master, list(overrides))
    choices = dict(composed.hydra.runtime.choices)
    with open_dict(composed):
        del composed["hydra"]
    return composed, choices


def _checked_data(specs: Sequence[RunSpec]) -> dict[str, int]:
    """Open every source once: a missing file or a text too short must stop the study here.

    Returns the vocabulary of each run, by its id.
    """
    from normlab.data import build_source

    found: dict[str, tuple[str | None, int]] = {}
    vocabularies = {}
    for spec in specs:
        data, context = spec.plain["data"], spec.config.model.context
        key = json.dumps([data, context])
        if key not in found:
            source = build_source(data, context)
            found[key] = source.digest, source.vocabulary
        digest, vocabularies[spec.id] = found[key]
        record = read_result(spec.folder)
        if record is not None and record.data_digest != digest:
            raise ConfigError(changed_text_message(spec))
    return vocabularies
