"""Hydra's sweeper for studies: plan, launch what is missing, end in figures whatever happens."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from normlab.archive.record import RunRecord, check_study_name
from normlab.config.run_spec import RunSpec
from normlab.errors import ConfigError, NormlabError
from normlab.study import applications, engine, warm
from normlab.study.experiment import Asked
from normlab.study.launcher import StudyLauncher
from normlab.study.place import check_place, make_folder
from normlab.study.plan import ELSEWHERE, Plan, is_settled, make_plan

if TYPE_CHECKING:
    from normlab.study.share import Share


class StudySweeper(Sweeper):
    """Carries a command from plan to figures through any of Hydra's launchers."""

    config: DictConfig
    hydra_context: HydraContext
    task_function: TaskFunction

    def __init__(
        self,
        params: dict[str, Any] | None = None,
        arms: list[str] | None = None,
        budgets: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        self.asked = Asked(params or {}, arms or (), budgets or {})

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra before `sweep`."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        """Train what the command asks for and is not there yet, then draw the study.

        An experiment that measures without training is carried out by its application.

        Raises:
            ConfigError: a combination cannot be trained; nothing was trained.
            NormlabError: runs failed; the others are there, and so are the figures.
        """
        budget = str(self.config.hydra.runtime.choices.get("budget"))
        arms, overrides = self.asked.overrides(arguments, budget)
        study = str(self.config.study)
        if not any(argument.startswith("study=") for argument in arguments):
            study = self.asked.study(study, budget)
        check_study_name(study)
        for key in ("sweep", "run"):
            check_place(Path(str(self.config.hydra[key].dir)))
        loader = self.hydra_context.config_loader
        if self.config.measure is not None:
            run_measurement = applications.measured_experiments[self.config.measure.name]
            run_measurement(loader, self.config, overrides, study)
            return
        from normlab.study.terminal import Terminal

        plan = make_plan(loader, self.config, overrides, study, arms)
        pending = plan.pending()
        terminal = Terminal()
        launcher = self._launcher(len(pending)) if pending else None
        share = prepared(launcher, plan) if launcher else None
        terminal.announce(plan, len(pending), str(share or ""))
        results: Sequence[JobReturn] = []
        try:
            if launcher:
                results = launcher.launch([job for job, _ in pending], 0)
        finally:
            undrawn = terminal.conclude(plan, applications.study_experiments)
        _raise_failures(plan, [spec for _, spec in pending], results, undrawn)

    def _launcher(self, runs: int) -> Launcher:
        return Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context,
            task_function=partial(self.task_function, runs=runs),  # type: ignore[call-arg]
            config=self.config,
        )


def prepared(launcher: Launcher, plan: Plan) -> "Share | None":
    """Fail now where it is certain that a run would; tell normlab's own launcher what to do.

    Returns how the runs share this machine, where they do.
    """
    pending = [spec for _, spec in plan.pending()]
    if not isinstance(launcher, StudyLauncher) or len(pending) == 1:
        get_ready(pending, local=isinstance(launcher, BasicLauncher))
        return None
    from normlab.study.share import Machine, shared

    folder = pending[0].study_folder
    check_place(folder)
    devices = _asked(pending)
    make_folder(folder)
    launcher.specs = pending
    share = shared(pending, plan.vocabularies, set(devices), Machine.here())
    # A GPU's context and kernels are made once, in this process, for all runs.
    launcher.share = share if share.jobs > 1 or set(devices) == {"cpu"} else None
    return share


def _asked(pending: Sequence[RunSpec]) -> list[str]:
    """What `get_ready` asks, asked in another process: this one does without torch."""
    from pebble import ProcessExpired

    from normlab.study import worker

    future = engine.call(worker.check, pending, dict(os.environ))
    try:
        answer = future.result()
    except ProcessExpired as expired:
        raise NormlabError(
            f"the process that tries the networks ended with code {expired.exitcode}, before "
            f"anything was trained; hydra/launcher=basic works without one."
        ) from expired
    finally:
        future.cancel()  # type: ignore[no-untyped-call]
    if isinstance(answer, ConfigError):
        raise answer
    devices: list[str] = answer
    return devices


def get_ready(pending: Sequence[RunSpec], local: bool) -> None:
    """Fail now, before anything is trained, where it is certain that a run would fail.

    Only `local` runs train on this machine, and need the device that they ask for to be here.
    """
    folder = pending[0].study_folder
    check_place(folder)
    # These import torch, which the runs are about to need.
    warm.load()
    from normlab.training.build import check_networks
    from normlab.training.hardware import resolve_device

    check_networks(pending)
    if local:
        for spec in pending:
            resolve_device(spec.config.trainer)
    make_folder(folder)


def _raise_failures(
    plan: Plan, pending: Sequence[RunSpec], results: Sequence[JobReturn], problem: str
) -> None:
    """Name every run that has no result, with what its job or else its record says of it."""
    raised = {spec.id: _raised(result) for spec, result in zip(pending, results, strict=False)}
    elsewhere = _elsewhere(pending, results)
    rows = [
        f"  {spec.name}: {raised.get(spec.id) or _recorded(spec)}"
        for spec in plan.specs
        if not is_settled(spec) and spec.id not in elsewhere
    ]
    left = [spec for spec in plan.specs if spec.id in elsewhere and not is_settled(spec)]
    if left:
        waiting = (
            f"{len(left)} of {len(plan.specs)} runs are not there yet, for another process trains "
            f"them; once that has ended, the same command trains what is missing and draws all."
        )
        problem = f"{waiting} {problem}".strip()
    if rows:
        raise NormlabError(
            f"{len(rows)} of {len(plan.specs)} runs did not finish; the same command tries them "
            "again:\n" + "\n".join([*rows, *([f"  {problem}"] if problem else [])])
        )
    if problem:
        raise NormlabError(problem)


def _elsewhere(pending: Sequence[RunSpec], results: Sequence[JobReturn]) -> set[str]:
    """The ids of runs that another process trains."""
    return {
        spec.id
        for spec, result in zip(pending, results, strict=False)
        if result.status is JobStatus.COMPLETED and result.return_value == ELSEWHERE
    }


def _raised(result: JobReturn) -> str:
    """What the job raised; asked for its value, Hydra would print a line of its own first."""
    error = result._return_value if result.status is JobStatus.FAILED else None
    if error is None or isinstance(error, NormlabError):
        return str(error or "")
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _recorded(spec: RunSpec) -> str:
    try:
        record = RunRecord.read(spec.folder)
    except (OSError, NormlabError):
        return "it left no record"
    return record.reason or record.state
