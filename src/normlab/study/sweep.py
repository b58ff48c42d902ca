"""Hydra's sweeper for studies: plan, launch what is missing, end in figures whatever happens."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from normlab.archive.record import RunRecord, check_study_name
from normlab.archive.study import is_run_folder
from normlab.config.run_spec import RunSpec
from normlab.errors import ConfigError, NormlabError, describe_error
from normlab.study import workers
from normlab.study.allocation import Machine, allocate_runs
from normlab.study.parallel_runs import StudyLauncher
from normlab.study.plan import (
    ELSEWHERE,
    Plan,
    SweepRequest,
    check_writable,
    make_plan,
    make_study_folder,
)
from normlab.study.progress import format_outcome
from normlab.study.stack_allocation import StackAllocation, allocate_stacks
from normlab.study.stack_process import train_in_stacks
from normlab.terminal import has_fixed_width, open_terminal
from normlab.text import join_words, one_line, printable_line
from normlab.training import stopping

if TYPE_CHECKING:
    from normlab.analysis.experiment import StudyExperiments


# Measures without training. Arguments: the loader, the composed configuration, the overrides, the
# study's name. By `measure.name` of the configuration.
MeasurementExperiment = Callable[[ConfigLoader, DictConfig, Sequence[str], str], None]
MeasurementExperiments = Mapping[str, MeasurementExperiment]


@dataclass(frozen=True)
class Launch:
    """How the pending runs of a study are trained here, in words; and in stacks, if they are.

    `notes` are sentences about it that the user should know.
    """

    description: str = ""
    notes: Sequence[str] = ()
    stacks: StackAllocation | None = None
    alone: tuple[int, ...] = ()  # indices of runs that cannot be in a stack


class StudySweeper(Sweeper):
    """Carries a command from plan to figures through any of Hydra's launchers.

    The experiments are those that a configuration may name, set by the command. Processes that only
    train need none.
    """

    trained_experiments: ClassVar["StudyExperiments"] = {}
    measurement_experiments: ClassVar[MeasurementExperiments] = {}

    config: DictConfig
    hydra_context: HydraContext
    task_function: TaskFunction

    def __init__(
        self,
        params: dict[str, Any] | None = None,
        arms: list[str] | None = None,
        budgets: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        self.request = SweepRequest(params or {}, arms or (), budgets or {})

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra before `sweep`."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        """Train what the command asks for and has no result yet, then draw the study.

        An experiment that measures without training is carried out by its application.

        Raises:
            ConfigError: a combination cannot be trained; nothing was trained.
            NormlabError: runs failed; the others have their results, and so has the study.
        """
        if self.config.hydra.job.chdir:
            raise ConfigError(
                "hydra.job.chdir=true is not allowed, for output_dir and data.path are relative to "
                "the folder of the command; leave it out."
            )
        budget = str(self.config.hydra.runtime.choices.get("budget"))
        loader = self.hydra_context.config_loader
        arms, overrides = self.request.expand_arms(arguments, budget, loader)
        study = str(self.config.study)
        if not any(argument.lstrip("+").startswith("study=") for argument in arguments):
            study = self.request.study_name(study, budget)
        check_study_name(study)
        for key in ("sweep", "run"):
            check_writable(Path(str(self.config.hydra[key].dir)))
        if self.config.measure is not None:
            workers.stop_fork_server()  # nothing is trained
            run_experiment = self.measurement_experiments[self.config.measure.name]
            run_experiment(loader, self.config, overrides, study)
            return
        plan = make_plan(loader, self.config, overrides, study, arms)
        # Read once: another process may finish a run of this study at any time.
        pending = plan.pending()
        specs = [spec for _, spec in pending]
        terminal = open_terminal()
        launcher = self._instantiate_launcher(specs) if pending else None
        launch = self._prepare_launch(launcher, plan, specs) if launcher else Launch()
        # Hydra and OmegaConf can lose a signal's exception that is raised within their cleanup.
        stopping.raise_swallowed()
        announce_plan(terminal, plan, len(pending), launch.description)
        for note in launch.notes:
            terminal.print(f"  note    {note}", markup=False)
        results: Sequence[JobReturn] = []
        try:
            if launch.stacks is not None:
                results = train_in_stacks(specs, launch.alone, launch.stacks)
            elif launcher:
                results = launcher.launch([overrides for overrides, _ in pending], 0)
        except (ValueError, TypeError, RuntimeError) as error:
            # Of another's launcher, as for n_jobs=0, or Slurm's where there is no Slurm.
            if isinstance(launcher, StudyLauncher):
                raise
            raise ConfigError(
                f"the launcher failed ({type(error).__name__}: {one_line(error)}); correct "
                f"its keys hydra.launcher.…, or leave hydra/launcher out."
            ) from error
        finally:
            # Before the tables: what another process ends while they are drawn is not in them.
            missing = [spec for _, spec in plan.pending()]
            # Not in Hydra's on_multirun_end, which is not called where a job failed.
            problem = draw_study(terminal, plan, self.trained_experiments)
        _raise_failures(plan, missing, specs, results, problem)

    def _instantiate_launcher(self, pending: Sequence[RunSpec]) -> Launcher:
        return Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context,
            task_function=partial(  # type: ignore[call-arg]
                self.task_function,
                runs=len(pending),
                planned=frozenset(spec.id for spec in pending),
            ),
            config=self.config,
        )

    def _prepare_launch(self, launcher: Launcher, plan: Plan, pending: Sequence[RunSpec]) -> Launch:
        """Fail now where it is certain that a run would; tell normlab's own launcher what to do.

        Returns how the runs, at least one, share this machine, where they do.
        """
        check_writable(pending[0].study_folder)
        if not isinstance(launcher, StudyLauncher) or len(pending) == 1:
            name = self.config.hydra.runtime.choices["hydra/launcher"]
            stack = pending[0].config.trainer.stack
            if not isinstance(launcher, StudyLauncher) and stack not in ("auto", 1):
                raise ConfigError(
                    f"trainer.stack={stack} needs normlab's own launcher, and "
                    f"hydra/launcher={name} trains every run by itself; leave one of the two out."
                )
            warnings = workers.check_runs(pending, local=name in ("study", "basic")).warnings
            make_study_folder(pending[0].study_folder)
            return Launch(notes=warnings)
        # In a process of its own, for this one does without torch.
        check = workers.check_runs_in_process
        try:
            checked = workers.call_in_process(check, pending, dict(os.environ))
        except workers.ProcessDiedError as error:
            raise NormlabError(
                f"the process that checks the networks {error}, before anything was trained; "
                f"hydra/launcher=basic works without one."
            ) from error
        if isinstance(checked, NormlabError):
            raise checked
        make_study_folder(pending[0].study_folder)
        request, machine = checked.stacks, Machine.current()
        notes = [*checked.warnings, *([request.note] if request and request.note else [])]
        if request is not None and (request.groups or len(request.cards) > 1):
            stacks = allocate_stacks(pending, plan.vocabularies, request, machine)
            return Launch(str(stacks), notes, stacks, tuple(request.alone))
        allocation = allocate_runs(pending, plan.vocabularies, checked.devices, machine)
        launcher.specs = pending
        # A GPU's context and kernels are made once, in this process, for all runs.
        if allocation.jobs > 1 or checked.devices == {"cpu"}:
            launcher.allocation = allocation
        return Launch(str(allocation), notes)


def announce_plan(terminal: Console, plan: Plan, pending: int, allocation: str = "") -> None:
    """Print what varies, what is fixed, how many runs there are, how they share the machine."""

    def print_line(line: str) -> None:
        if has_fixed_width(terminal):
            width = terminal.width
            line = fill(line, width, subsequent_indent=" " * 10, break_on_hyphens=False)
        terminal.print(line, markup=False)

    count = len(plan.specs)
    print_line(f"study {plan.specs[0].config.study}: {count} run{'' if count == 1 else 's'}")
    for key, values in plan.varied.items():
        print_line(f"  varies  {key} = {', '.join(values)}")
    # What is common to all runs: the option of every group, and what was set by hand.
    fixed = {
        group: option
        for group, option in plan.specs[0].choices.items()
        if group not in plan.varied and all(s.choices[group] == option for s in plan.specs)
    } | plan.fixed
    print_line(f"  fixed   {', '.join(f'{key}={value}' for key, value in fixed.items())}")
    for combination, spec in plan.duplicates:
        same = spec.name.rpartition("-")[0]
        print_line(f"  left out  {combination}: the same network as {same}, which is trained once")
    if allocation:
        print_line(f"  runs    {allocation}")
    if pending < count:
        print_line(f"  {count - pending} already there, {pending} to train")
    for spec in plan.specs:
        record = spec.read_result()
        if record is not None:
            name = escape(printable_line(record.name))
            terminal.print(f"there {name}  {format_outcome(record)}")


def draw_study(terminal: Console, plan: Plan, experiments: "StudyExperiments") -> str:
    """Draw the study's figures, and print what it shows; returns why it could not, or nothing.

    It raises no error of its own: how the runs ended matters more.
    """
    # With matplotlib, which takes its time.
    from normlab.analysis.plot import print_report, write_study_report

    if not any(is_run_folder(spec.folder) for spec in plan.specs):
        return ""  # stopped before the first run began
    folder, config = plan.specs[0].study_folder, plan.specs[0].config
    try:
        print_report(
            write_study_report(folder, experiments, margin=config.margin, target=config.target)
        )
    except NormlabError as error:
        return str(error)
    except KeyboardInterrupt as interruption:
        if not plan.pending():
            interruption.args = ("draws the figures",)  # what the same command has left to do
        raise
    terminal.print(f"browse   tensorboard --logdir {folder.parent}", markup=False)
    return ""


def _raise_failures(
    plan: Plan,
    missing: Sequence[RunSpec],
    pending: Sequence[RunSpec],
    results: Sequence[JobReturn],
    problem: str,
) -> None:
    """Name every missing run, with what its job or else its record says of it."""
    # All of them: Hydra prints the first failure only.
    errors: dict[str, str] = {}
    elsewhere = set()  # ids of runs that another process trains
    for spec, result in zip(pending, results, strict=False):
        error = workers.job_error(result)
        if error is not None:
            errors[spec.id] = describe_error(error)
        elif result.status is JobStatus.COMPLETED and result.return_value == ELSEWHERE:
            elsewhere.add(spec.id)
    rows = [
        f"  {spec.name}: {errors.get(spec.id) or _recorded_reason(spec)}"
        for spec in missing
        if spec.id not in elsewhere
    ]
    left = [spec.name for spec in missing if spec.id in elsewhere]
    if left:
        names = join_words(left if len(left) <= 3 else [*left[:2], f"{len(left) - 2} more"])
        waiting = (
            f"{len(left)} of {len(plan.specs)} runs are not there yet, for another process trains "
            f"them: tables and figures are without {names}; once that has ended, the same command "
            f"trains what is missing and draws all."
        )
        problem = f"{waiting} {problem}".strip()
    if rows:
        raise NormlabError(
            f"{len(rows)} of {len(plan.specs)} runs did not finish; the same command tries them "
            "again:\n" + "\n".join([*rows, *([f"  {problem}"] if problem else [])])
        )
    if problem:
        raise NormlabError(problem)


def _recorded_reason(spec: RunSpec) -> str:
    try:
        record = RunRecord.read(spec.folder)
    except (OSError, NormlabError):
        return "it left no record"
    return record.reason or record.state
