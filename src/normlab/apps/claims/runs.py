"""What claims rest on: studies composed without torch and trained as a user would, measurements.

One study or measurement that fails leaves the others; the verdicts of its claims say why.
"""

import importlib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Quote, QuotedString

from normlab.analysis.arms import flatten_keys
from normlab.apps.claims.claim import Claim
from normlab.apps.claims.measurements import (
    define_measurement,
    read_measurement,
    store_measurement,
    take_measurement,
)
from normlab.apps.claims.record import StoredMeasurement
from normlab.apps.claims.regime import (
    BudgetReach,
    LossRange,
    check_attainable,
    define_budgets,
    find_loss_range,
    find_reach,
)
from normlab.apps.claims.run_archive import archive_path, read_archive, write_archive
from normlab.apps.study_process import run_study_command
from normlab.archive import tags
from normlab.archive.events import Events
from normlab.archive.record import SETTLED_STATES, RunRecord
from normlab.archive.study import Run, read_study
from normlab.config.compose import composed_config
from normlab.errors import ConfigError, NormlabError, explain_failed_import
from normlab.study.plan import SweepRequest, make_plan
from normlab.text import one_line

if TYPE_CHECKING:
    from rich.console import Console

_LOSSES = (tags.TRAIN_LOSS, tags.VALIDATION_LOSS)


class NoEstimateError(Exception):
    """Why there is no number to judge: a sentence."""


@dataclass(frozen=True)
class ClaimData:
    """What one claim rests on: runs, a measurement, or why there is neither.

    Attributes:
        runs: those that the claim's study asks for; one not trained yet has the state `running`.
        measurement: what was measured without training.
        problem: why there is nothing; empty where there is something.
        command: what trains or measures it again.
        reach: what the claim's experiment trains, by budget; none where that is not known.
        definitions: all that decides what is trained or measured, by budget; none if not known.
        date, machine: of the runs, where they were read from files; empty where they are of today.
    """

    runs: tuple[Run, ...] = ()
    measurement: StoredMeasurement | None = None
    problem: str = ""
    command: str = ""
    reach: Mapping[str, BudgetReach] = field(default_factory=dict)
    definitions: Mapping[str, Any] = field(default_factory=dict)
    date: str = ""
    machine: str = ""


@dataclass(frozen=True)
class StudyOptions:
    """How claims' studies are composed, and where they go.

    Attributes:
        budget: an option of conf/budget.
        output_dir: the folder of the studies' folders.
        config_dir: a folder with configuration of the user's own.
        source: a folder that `--export` has written, whose runs and measurements are judged in
            place of training and measuring; None: train and measure.
    """

    budget: str
    output_dir: Path
    config_dir: Path | None = None
    source: Path | None = None

    @property
    def flags(self) -> list[str]:
        """The flags of a command line, before or after its overrides."""
        return [] if self.config_dir is None else ["--config-dir", str(self.config_dir)]

    def overrides(self, experiment: str) -> list[str]:
        """The overrides for `train.py`, the output folder quoted for Hydra."""
        folder = str(self.output_dir)
        # Hydra's grammar takes a space, a letter beyond ASCII, and more, only in quotes.
        if not re.fullmatch(r"[\w./+-]+", folder, re.ASCII):
            folder = QuotedString(folder, Quote.single).with_quotes()
        return [f"experiment={experiment}", f"budget={self.budget}", f"output_dir={folder}"]

    def arguments(self, experiment: str) -> list[str]:
        """What to give `train.py`."""
        return [*self.flags, *self.overrides(experiment)]

    def command(self, experiment: str) -> str:
        """What a user would type."""
        return shlex.join(["python", "train.py", *self.arguments(experiment)])


@dataclass(frozen=True)
class PlannedStudy:
    """A study of claims, before its runs begin.

    Attributes:
        folder: where its runs go.
        records: its runs, by id.
        pending: how many have no result yet.
        problem: why there are none; empty where there are some.
        reach: what the experiment trains, by budget.
        definitions: all that decides what is trained, by budget.
        losses: between which losses its runs end; None where that is not known.
    """

    folder: Path = Path()
    records: dict[str, RunRecord] = field(default_factory=dict)
    pending: int = 0
    problem: str = ""
    reach: Mapping[str, BudgetReach] = field(default_factory=dict)
    definitions: Mapping[str, Any] = field(default_factory=dict)
    losses: LossRange | None = None

    def read_runs(self, with_probes: bool = False) -> tuple[Run, ...]:
        """The study's runs; one that left nothing readable as it was planned.

        Of their scalars losses are read, with `with_probes` all.
        """
        if not self.records:
            return ()
        try:
            # All curves of 1000 runs take 423 MiB, the two of the losses 201.
            study = read_study(self.folder, None if with_probes else _LOSSES)
        except NormlabError:  # no run has left anything that can be read
            runs = {}
        else:
            runs = {run.record.id: run for run in study.runs}
        return tuple(
            runs.get(id_, Run(self.folder / record.name, record, Events()))
            for id_, record in self.records.items()
        )


def plan_study(experiment: str, options: StudyOptions, *, with_data: bool = True) -> PlannedStudy:
    """The runs of an experiment. One that cannot be composed, or has no data, says why."""
    overrides = options.overrides(experiment)
    budgets: dict[str, Any] = {}
    try:
        with composed_config(overrides, options.config_dir) as (loader, master):
            sweeper = master.hydra.sweeper
            sweep = SweepRequest(sweeper.params, sweeper.arms, sweeper.budgets)
            sweep.check_types()
            budgets["reach"] = find_reach(sweep, master)
            budgets["definitions"] = define_budgets(sweep, loader, master)
            arms, swept = sweep.expand_arms(overrides, options.budget)
            study = sweep.study_name(str(master.study), options.budget)
            plan = make_plan(loader, master, swept, study, arms, with_data=with_data)
    except NormlabError as error:
        return PlannedStudy(problem=str(error).rstrip("."), **budgets)
    records = {}
    for spec in plan.specs:
        norm, placement, data = (spec.choices[key] for key in ("norm", "placement", "data"))
        names = spec.id, spec.name, norm, placement, data
        records[spec.id] = RunRecord(*names, spec.config.seed, spec.choices, spec.plain)
    folder = options.output_dir / study
    return PlannedStudy(
        folder, records, len(plan.pending()), **budgets, losses=find_loss_range(plan)
    )


def train_study(experiment: str, options: StudyOptions) -> str:
    """Train what is missing of an experiment in a process of its own, which shows its progress.

    Returns why it did not get to the end; empty where it did.
    """
    code = run_study_command(options.arguments(experiment))
    return "" if code == 0 else f"{options.command(experiment)} exited with code {code}"


def parse_arm(arm: str) -> dict[str, str]:
    """`norm=layernorm optimizer.lr=1e-3` by key.

    Raises:
        NoEstimateError: a word of it is no key=value.
    """
    words = [word.partition("=") for word in arm.split()]
    if not words or not all(sign for _, sign, _ in words):
        raise NoEstimateError(f"{arm!r} names no arm; write key=value, as in norm=rmsnorm")
    return {key: value for key, _, value in words}


def select_runs(runs: Iterable[Run], arm: str) -> list[Run]:
    """The runs that have all of the arm's keys. Raises NoEstimateError, as `parse_arm`."""
    keys = parse_arm(arm)
    return [run for run in runs if _has_keys(run.record, keys)]


def select_ended_runs(runs: Iterable[Run], arm: str) -> list[Run]:
    """The same, where there are some and all have ended: finished, or diverged.

    Raises:
        NoEstimateError: there is none, or one has not ended.
    """
    selected = select_runs(runs, arm)
    if not selected:
        raise NoEstimateError(f"no run has {arm}")
    pending = [run.record for run in selected if run.record.state not in SETTLED_STATES]
    if pending:
        reason = next((record.reason for record in pending if record.reason), "not trained yet")
        raise NoEstimateError(
            f"{len(pending)} of {len(selected)} runs with {arm} have not ended ({reason})"
        )
    return selected


def _has_keys(record: RunRecord, keys: Mapping[str, str]) -> bool:
    return all(_has_value(record, *item) for item in keys.items())


def _has_value(record: RunRecord, key: str, value: str) -> bool:
    # A network without norms is the same at every placement: its record has `any`.
    if key in ("norm", "placement"):
        return getattr(record, key) in (value, "any")
    if "." not in key:
        return record.choices.get(key) == value
    setting: Any = flatten_keys(record.config).get(key)
    # Before the numbers: to Python a bool is an int, and True equals 1.0.
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
            study = studies[claim.experiment]
            check_arms(name, claim, study, options.budget)
            check_attainable(name, claim, study.reach, study.losses)
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
    runs: dict[tuple[str, bool], tuple[Run, ...]] = {}  # by experiment, with probes or without
    for name, claim in claims.items():
        if claim.measurement is not None:
            measurement, problem = stored[claim.measurement], failures.get(claim.measurement, "")
            data[name] = _measured_data(claim.measurement, measurement, problem, command(name))
            continue
        study, key = studies[str(claim.experiment)], (str(claim.experiment), claim.needs_probes)
        if key not in runs:
            runs[key] = study.read_runs(claim.needs_probes)
        data[name] = ClaimData(
            runs[key], None, study.problem, command(name), study.reach, study.definitions
        )
    return data


def _measured_data(
    name: str, measurement: StoredMeasurement | None, problem: str, command: str
) -> ClaimData:
    """What a claim rests on that trains nothing."""
    definitions = define_measurement(name)
    return ClaimData((), measurement, problem, command, definitions=definitions)


def read_claim_data(
    claims: Mapping[str, Claim],
    options: StudyOptions,
    source: Path,
    command: Callable[[str], str],
) -> dict[str, ClaimData]:
    """What each claim rests on, from a folder that `--export` has written; nothing is trained.

    Raises:
        ConfigError: the budgets of an experiment do not reach a claim's regime, or the folder has
            nothing of what is asked for.
        NormlabError: a file is damaged.
    """
    experiments = dict.fromkeys(c.experiment for c in claims.values() if c.experiment)
    studies = {name: plan_study(name, options, with_data=False) for name in experiments}
    archives = {}
    for name in experiments:
        with suppress(FileNotFoundError):
            archives[name] = read_archive(archive_path(source, name, options.budget))
    if experiments and not archives and not any(c.measurement for c in claims.values()):
        path = archive_path(source, next(iter(experiments)), options.budget)
        raise ConfigError(
            f"{path} does not exist, so there is nothing to judge; give --from the folder that "
            f"--export has written at budget={options.budget}."
        )
    data = {}
    for name, claim in claims.items():
        if claim.experiment is None:
            measurement = str(claim.measurement)
            stored = read_measurement(measurement, options.budget, source)
            missing = f"{source} has no measurement of {measurement} with the current settings"
            problem = "" if stored else missing
            data[name] = _measured_data(measurement, stored, problem, command(name))
            continue
        study, archive = studies[claim.experiment], archives.get(claim.experiment)
        check_attainable(name, claim, study.reach, study.losses)
        basis = ClaimData(command=command(name), reach=study.reach, definitions=study.definitions)
        if archive is None:
            path = archive_path(source, claim.experiment, options.budget)
            data[name] = replace(basis, problem=f"{path} does not exist")
        elif {run.record.id for run in archive.runs} != study.records.keys():
            path = archive_path(source, claim.experiment, options.budget)
            problem = study.problem or (
                f"{path} holds other runs than experiment={claim.experiment} asks for now"
            )
            data[name] = replace(basis, problem=problem)
        else:
            data[name] = replace(
                basis, runs=archive.runs, date=archive.date, machine=archive.machine
            )
    return data


def export_claim_data(
    claims: Mapping[str, Claim],
    data: Mapping[str, ClaimData],
    options: StudyOptions,
    folder: Path,
    remedy: str,
) -> tuple[list[Path], list[str]]:
    """Write the runs and measurements that claims rest on.

    Of an experiment that has runs without a result nothing is written, so that the file of an
    earlier command, which may have had all, stays. `remedy` ends the sentence of an error.

    Returns:
        the files, and the experiments that were left out.

    Raises:
        NormlabError: one cannot be written.
    """
    paths = []
    left_out = []
    runs: dict[str, tuple[Run, ...]] = {}
    for name, claim in claims.items():
        measurement = data[name].measurement
        if measurement is not None:
            paths.append(store_measurement(measurement, options.budget, folder, remedy))
            continue
        experiment = str(claim.experiment)
        # Those of a claim that looks at probes have more curves.
        if data[name].runs and (claim.needs_probes or experiment not in runs):
            runs[experiment] = data[name].runs
    for experiment, members in runs.items():
        if any(run.record.state not in SETTLED_STATES for run in members):
            left_out.append(experiment)
            continue
        path = archive_path(folder, experiment, options.budget)
        write_archive(path, members, remedy)
        paths.append(path)
    return list(dict.fromkeys(paths)), left_out


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
    with explain_failed_import():  # without torch, none can be made
        importlib.import_module("torch")
    try:
        return take_measurement(name, options.budget, options.output_dir), ""
    except NormlabError as error:
        return None, str(error).rstrip(".")
    except Exception as error:  # whatever a measurement stumbles over: the others go on
        message = one_line(error)
        return None, f"{name} could not be measured ({type(error).__name__}: {message})"


def check_arms(name: str, claim: Claim, study: PlannedStudy, budget: str) -> None:
    """Refuse an arm that no run of the claim's study has; `budget` is the study's.

    Raises:
        ConfigError: naming the arm and those that the study has.
    """
    if study.problem:
        return
    for arm in claim.arms:
        try:
            keys = parse_arm(arm)
        except NoEstimateError as error:
            raise ConfigError(f"claim={name}: {error}.") from error
        if not any(_has_keys(record, keys) for record in study.records.values()):
            arms = dict.fromkeys(
                f"norm={record.norm} placement={record.placement}"
                for record in study.records.values()
            )
            raise ConfigError(
                f"claim={name}: no run of experiment={claim.experiment} has {arm} at "
                f"budget={budget}; its arms are {', '.join(arms)}."
            )
