"""What claims rest on: studies composed without torch and trained as a user would, measurements.

One study or measurement that fails leaves the others; the verdicts of its claims say why.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normlab.analysis.arms import flatten_keys
from normlab.apps.claims.claim import Claim, Quantity
from normlab.apps.claims.measurements import read_measurement, take_measurement
from normlab.apps.claims.record import StoredMeasurement
from normlab.apps.study_process import run_study_command
from normlab.archive import tags
from normlab.archive.events import Events
from normlab.archive.record import SETTLED_STATES, RunRecord
from normlab.archive.study import Run, read_study
from normlab.config.compose import composed_config
from normlab.errors import ConfigError, NormlabError
from normlab.study.plan import Plan, SweepRequest, make_plan

if TYPE_CHECKING:
    from rich.console import Console

_LOSSES = (tags.TRAIN_LOSS, tags.VALIDATION_LOSS)


class NoBasisError(Exception):
    """Why a claim has nothing to rest on: a sentence."""


@dataclass(frozen=True)
class ClaimData:
    """What one claim rests on: runs, a measurement, or why there is neither.

    Attributes:
        runs: those that the claim's study asks for; one not trained yet has the state `running`.
        measurement: what was measured without training.
        problem: why there is nothing; empty where there is something.
        command: what trains or measures it again.
    """

    runs: tuple[Run, ...] = ()
    measurement: StoredMeasurement | None = None
    problem: str = ""
    command: str = ""


@dataclass(frozen=True)
class StudyOptions:
    """How claims' studies are composed, and where they go.

    Attributes:
        budget: an option of conf/budget.
        output_dir: the folder of the studies' folders.
        config_dir: a folder with configuration of the user's own.
    """

    budget: str
    output_dir: Path
    config_dir: Path | None = None

    @property
    def flags(self) -> list[str]:
        """The flags of a command line, before or after its overrides."""
        return [] if self.config_dir is None else ["--config-dir", str(self.config_dir)]

    def overrides(self, experiment: str) -> list[str]:
        """The overrides for `train.py`, the output folder quoted for Hydra."""
        folder = str(self.output_dir)
        if not re.fullmatch(r"[\w./+-]+", folder):
            folder = "'{}'".format(folder.replace("\\", "\\\\").replace("'", "\\'"))
        return [f"experiment={experiment}", f"budget={self.budget}", f"output_dir={folder}"]

    def arguments(self, experiment: str) -> list[str]:
        """What to give `train.py`."""
        return [*self.flags, *self.overrides(experiment)]

    def command(self, experiment: str) -> str:
        """What a user would type."""
        return shlex.join(["python", "train.py", *self.arguments(experiment)])


@dataclass(frozen=True)
class PlannedStudy:
    """A study of claims: its folder, its runs before they begin, by id, and why there are none."""

    folder: Path = Path()
    records: dict[str, RunRecord] = field(default_factory=dict)
    pending: int = 0
    problem: str = ""

    def read_runs(self, with_probes: bool = False) -> tuple[Run, ...]:
        """The study's runs; one that left nothing readable as it was planned.

        Of their scalars losses are read, with `with_probes` all.
        """
        if not self.records:
            return ()
        try:
            study = read_study(self.folder, None if with_probes else _LOSSES)
        except NormlabError:  # no run has left anything that can be read
            runs = {}
        else:
            runs = {run.record.id: run for run in study.runs}
        return tuple(
            runs.get(id_, Run(self.folder / record.name, record, Events()))
            for id_, record in self.records.items()
        )


def plan_study(experiment: str, options: StudyOptions) -> PlannedStudy:
    """The runs of an experiment. One that cannot be composed, or has no data, says why."""
    try:
        plan, folder = _compose_study(experiment, options)
    except NormlabError as error:
        return PlannedStudy(problem=str(error).rstrip("."))
    records = {}
    for spec in plan.specs:
        norm, placement, data = (spec.choices[key] for key in ("norm", "placement", "data"))
        names = spec.id, spec.name, norm, placement, data
        records[spec.id] = RunRecord(*names, spec.config.seed, spec.choices, spec.plain)
    return PlannedStudy(folder, records, len(plan.pending()))


def _compose_study(experiment: str, options: StudyOptions) -> tuple[Plan, Path]:
    overrides = options.overrides(experiment)
    with composed_config(overrides, options.config_dir) as (loader, master):
        sweeper = master.hydra.sweeper
        sweep = SweepRequest(sweeper.params, sweeper.arms, sweeper.budgets)
        arms, swept = sweep.expand_arms(overrides, options.budget)
        study = sweep.study_name(str(master.study), options.budget)
        return make_plan(loader, master, swept, study, arms), options.output_dir / study


def train_study(experiment: str, options: StudyOptions) -> str:
    """Train what is missing of an experiment in a process of its own, which shows its progress.

    Returns why it did not get to the end; empty where it did.
    """
    code = run_study_command(options.arguments(experiment))
    return "" if code == 0 else f"{options.command(experiment)} left with code {code}"


def parse_arm(arm: str) -> dict[str, str]:
    """`norm=layernorm optimizer.lr=1e-3` by key.

    Raises:
        NoBasisError: a word of it is no key=value.
    """
    words = [word.partition("=") for word in arm.split()]
    if not words or not all(sign for _, sign, _ in words):
        raise NoBasisError(f"{arm!r} names no arm; write key=value, as in norm=rmsnorm")
    return {key: value for key, _, value in words}


def select_runs(runs: Iterable[Run], arm: str) -> list[Run]:
    """The runs that have all of the arm's keys. Raises NoBasisError, as `parse_arm`."""
    keys = parse_arm(arm)
    return [run for run in runs if all(_run_has(run.record, *item) for item in keys.items())]


def select_ended_runs(runs: Iterable[Run], arm: str) -> list[Run]:
    """The same, where there are some and all have ended: finished, or diverged.

    Raises:
        NoBasisError: there is none, or one has not ended.
    """
    selected = select_runs(runs, arm)
    if not selected:
        raise NoBasisError(f"no run has {arm}")
    pending = [run.record for run in selected if run.record.state not in SETTLED_STATES]
    if pending:
        reason = next((record.reason for record in pending if record.reason), "not trained yet")
        raise NoBasisError(
            f"{len(pending)} of {len(selected)} runs with {arm} have not ended ({reason})"
        )
    return selected


def _run_has(record: RunRecord, key: str, value: str) -> bool:
    if key in ("norm", "placement"):
        return getattr(record, key) in (value, "any")
    if "." not in key:
        return record.choices.get(key) == value
    setting: Any = flatten_keys(record.config).get(key)
    if isinstance(setting, bool) or setting is None:
        return value == {True: "true", False: "false", None: "null"}[setting]
    if isinstance(setting, int | float):
        try:
            return float(value) == setting  # 1e-3 is 0.001
        except ValueError:
            return False
    return str(setting) == value


def collect_claim_data(
    claims: Mapping[str, Claim],
    options: StudyOptions,
    command: Callable[[str], str],
    terminal: "Console",
) -> dict[str, ClaimData]:
    """What each claim rests on, by name, trained and measured where it is missing.

    `command` gives what a user types for one claim.

    Raises:
        ConfigError: a claim names an arm that its study does not have; nothing was trained.
        NormlabError: a stored measurement is damaged.
    """
    experiments = dict.fromkeys(c.experiment for c in claims.values() if c.experiment)
    measurements = dict.fromkeys(c.measurement for c in claims.values() if c.measurement)
    studies = {experiment: plan_study(experiment, options) for experiment in experiments}
    for name, claim in claims.items():
        if claim.experiment is not None:
            _check_arms(name, claim, studies[claim.experiment])
    stored = {
        name: read_measurement(name, options.budget, options.output_dir) for name in measurements
    }
    missing = [name for name, measurement in stored.items() if measurement is None]
    _print_plan(terminal, studies, len(claims), len(stored), len(missing))
    failures: dict[str, str] = {}  # by measurement
    for name in missing:  # before this machine is busy with training
        terminal.print(f"measure  {name}", markup=False)
        stored[name], failures[name] = _try_measurement(name, options)
        if failures[name]:
            terminal.print(f"note: {failures[name]}", markup=False)
    for name, study in studies.items():
        if study.pending:
            terminal.print(f"\n$ {options.command(name)}", markup=False)
            if failure := train_study(name, options):
                terminal.print(f"note: {failure}", markup=False)
    data = {}
    for name, claim in claims.items():
        if claim.measurement is not None:
            problem = failures.get(claim.measurement, "")
            data[name] = ClaimData((), stored[claim.measurement], problem, command(name))
        else:
            study = studies[str(claim.experiment)]
            with_probes = getattr(claim.test, "quantity", None) is Quantity.growth
            runs = study.read_runs(with_probes)
            data[name] = ClaimData(runs, None, study.problem, command(name))
    return data


def _print_plan(
    terminal: "Console",
    studies: Mapping[str, PlannedStudy],
    claims: int,
    measurements: int,
    missing: int,
) -> None:
    runs = sum(len(study.records) for study in studies.values())
    pending = sum(study.pending for study in studies.values())
    terminal.print(
        f"claims {claims}; runs {runs}, {pending} of them to train; measurements "
        f"{measurements}, {missing} of them to make",
        markup=False,
    )
    for name, study in studies.items():
        if study.problem:
            terminal.print(f"note: {name}: {study.problem}", markup=False)


def _try_measurement(name: str, options: StudyOptions) -> tuple[StoredMeasurement | None, str]:
    """The measurement, or None and why it could not be made."""
    try:
        return take_measurement(name, options.budget, options.output_dir), ""
    except NormlabError as error:
        return None, str(error).rstrip(".")
    except Exception as error:  # whatever a measurement stumbles over: the others go on
        message = " ".join(str(error).split())
        return None, f"{name} could not be measured ({type(error).__name__}: {message})"


def _check_arms(name: str, claim: Claim, study: PlannedStudy) -> None:
    """Refuse, before anything is trained, an arm that no run of the claim's study has."""
    if study.problem:
        return
    runs = study.read_runs()
    for arm in claim.arms:
        try:
            selected = select_runs(runs, arm)
        except NoBasisError as error:
            raise ConfigError(f"claim={name}: {error}.") from error
        if not selected:
            arms = dict.fromkeys(
                f"norm={record.norm} placement={record.placement}"
                for record in study.records.values()
            )
            raise ConfigError(
                f"claim={name}: no run of experiment={claim.experiment} has {arm}; its arms are "
                f"{', '.join(arms)}."
            )
