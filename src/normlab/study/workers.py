"""Where runs train: in this process, or several at once, each in a process that can die alone.

A process that trains is forked from a server that has imported torch already, so that it starts at
once. Where there is no fork server (Windows), or it cannot start, it is started afresh. Parent and
process share one connection and nothing else: no lock or queue that a killed one could leave held.
Up go progress, sentences and the result; down go signals.
"""

import gc
import importlib
import io
import logging
import multiprocessing
import os
import select
import shlex
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

import psutil
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import (
    JobReturn,
    JobRuntime,
    JobStatus,
    configure_log,
    run_job,
    setup_globals,
)
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from normlab import output
from normlab.archive.lock import RunLockedError
from normlab.archive.record import RunRecord
from normlab.config.compose import register_schemas
from normlab.config.run_spec import RunSpec, make_run_spec
from normlab.errors import NormlabError, explain_failed_import
from normlab.study.allocation import Allocation, choose_threads
from normlab.study.plan import ELSEWHERE
from normlab.study.progress import StudyProgress
from normlab.training import stopping

ALREADY_TRAINED = "there"  # what a job returns that has nothing to do
# How long (seconds) processes may take to stop at once.
STOP_SECONDS = 10.0
# How long (seconds) a process whose parent has died may take to save its state.
ORPHAN_SECONDS = 30.0
# The parent looks at new signals after this (seconds), at the latest.
POLL_SECONDS = 0.1
# A run's progress is not sent more often than this (seconds).
REFRESH_SECONDS = 0.2
# How long (seconds) a sentence waits for a parent that is busy; progress does not wait.
SEND_SECONDS = 1.0
# macOS has a fork server too, but its own libraries do not survive a fork.
FORKS = sys.platform.startswith("linux")


def import_training() -> None:
    """Import what training needs; it takes seconds, so what is wrong is found before.

    Garbage is not looked for meanwhile, which is a fifth of the time, nor later among what is
    imported, which would slow every process that is forked from this one.
    """
    if "normlab.training.run" in sys.modules:
        return
    gc.disable()
    try:
        with explain_failed_import():
            importlib.import_module("normlab.training.run")
        gc.freeze()
    finally:
        gc.enable()


# Training in this process


def train_job(
    composed: DictConfig, runs: int = 1, display: "ConnectionDisplay | None" = None
) -> str:
    """Hydra's task: train a run of a study of `runs`, unless it has a result. Returns its state.

    The state of a run that another process trains is `elsewhere`. `display` is where the run
    reports, where it is not this process that shows it.
    """
    spec = make_run_spec(composed, HydraConfig.get().runtime.choices)
    if spec.read_result() is not None:
        return ALREADY_TRAINED
    job = HydraConfig.get().job
    number = 1 if OmegaConf.is_missing(job, "num") else int(job.num) + 1
    return train_with_progress(spec, number, runs, shlex.join(sys.argv), display)


def train_with_progress(
    spec: RunSpec,
    number: int,
    runs: int,
    command: str,
    display: "ConnectionDisplay | None" = None,
) -> str:
    """Train run `number` of `runs` in this process, and show it. Returns its state."""
    output.secure_streams()  # another launcher of Hydra's may have begun this process
    import_training()
    from normlab.training.run import train

    if display is not None:
        try:
            return train(spec, command, display).state
        except RunLockedError as error:
            display.say(str(error))
            return ELSEWHERE
    steps = [spec.config.trainer.max_steps]
    with StudyProgress([spec.name], steps, first=number, total=runs) as progress:
        progress.start(0)
        try:
            record = train(spec, command, progress.display(0))
        except RunLockedError as error:
            progress.say(0, str(error))
            return ELSEWHERE
        progress.finish(0, record)
    return record.state


def check_runs(pending: Sequence[RunSpec], local: bool) -> list[str]:
    """Fail now, before anything is trained, where it is certain that a run would fail.

    Only `local` runs train on this machine, and need the device that they ask for to be here.
    Returns their devices.

    Raises:
        ConfigError: a network cannot be built, or a device is not here.
    """
    import_training()
    from normlab.training.build import check_networks
    from normlab.training.hardware import resolve_device

    check_networks(pending)
    return [resolve_device(spec.config.trainer) for spec in pending] if local else []


# The fork server

_server: psutil.Process | None = None
_server_failed = False  # it was tried, and could not start


def start_fork_server() -> bool:
    """Let the fork server start, and import, while this process does something else.

    Returns whether there is one.
    """
    global _server, _server_failed
    if not FORKS or _server_failed:
        return False
    forkserver.set_forkserver_preload(["normlab.study.fork_server_imports"])
    # What is started here leaves signals for later: Ctrl-C reaches it too, as it imports.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
    try:
        resource_tracker.ensure_running()
        children = set(psutil.Process().children()) if _server is None else set()
        forkserver.ensure_running()
        if _server is None:
            _server = next(iter(set(psutil.Process().children()) - children), None)
    except OSError as error:  # its socket is a file in TMPDIR, with at most 107 characters
        _server_failed = True
        logging.getLogger("normlab").warning(
            "runs start a little slower: no fork server can be started with its socket in %s (%s);"
            " another TMPDIR would help",
            os.environ.get("TMPDIR", "TMPDIR"),
            error.strerror or error,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return not _server_failed


def stop_fork_server() -> None:
    """Stop the fork server, which would go on importing for a command that was a mistake.

    Multiprocessing ends it only with this process, and after its imports.
    """
    global _server
    if _server is not None:
        with suppress(psutil.Error):
            _server.kill()
        _server = None


# Processes


@dataclass(frozen=True)
class Stopped:
    """The result of a process that a signal stopped."""

    signum: int


class ProcessDiedError(Exception):
    """A process ended without a result; the message is how."""


class Worker:
    """A process that computes `function(connection, *arguments)` and sends its result."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("forkserver" if start_fork_server() else "spawn")
        self.connection, process_end = context.Pipe()
        self.process = context.Process(  # type: ignore[attr-defined]
            target=_send_result, args=(process_end, function, arguments), daemon=True
        )
        self.process.start()
        process_end.close()
        self.result: Any = None
        self.has_result = False

    def receive(self) -> Iterator[tuple[Any, ...]]:
        """The messages that have come, but for the result, which is kept."""
        with suppress(EOFError, OSError):
            while self.connection.poll():
                kind, *values = self.connection.recv()
                if kind == "result":
                    (self.result,), self.has_result = values, True
                else:
                    yield kind, *values

    def request_stop(self, signum: int, at_once: bool) -> None:
        """Have the process do what a signal asks for, or a second one."""
        with suppress(OSError):
            self.connection.send((signum, at_once))


def call_in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(connection, *arguments)` in a process of its own.

    Raises:
        ProcessDiedError: the process sent no result.
    """
    worker = Worker(function, *arguments)
    try:
        while not worker.has_result and worker.process.is_alive():
            wait([worker.connection, worker.process.sentinel])
            list(worker.receive())
        list(worker.receive())
    finally:
        worker.process.kill()
        worker.process.join()
    if not worker.has_result:
        raise ProcessDiedError(_describe_death(worker.process.exitcode))
    return worker.result


def _send_result(
    connection: Connection, function: Callable[..., Any], arguments: Sequence[Any]
) -> None:
    try:
        result = function(connection, *arguments)
    except Exception as error:
        result = NormlabError(describe_error(error))
    finally:
        # Only the result is left: with a parent that has gone, it would end in a traceback.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    with suppress(OSError):
        connection.send(("result", result))


def _prepare_process(environment: Mapping[str, str]) -> None:
    """Take the environment of the parent, which the fork server may be older than."""
    if FORKS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping.SIGNALS)
    output.secure_streams()
    os.environ.clear()
    os.environ.update(environment)
    register_schemas()
    setup_globals()


def check_runs_in_process(
    connection: Connection, specs: Sequence[RunSpec], environment: Mapping[str, str]
) -> list[str] | NormlabError:
    """`check_runs`, in a process of its own: its devices, or the error that it raises."""
    for signum in {*stopping.SIGNALS} - {signal.SIGTERM}:
        signal.signal(signum, signal.SIG_IGN)  # the parent hears it, and ends this process
    _prepare_process(environment)
    try:
        return check_runs(specs, local=True)
    except NormlabError as error:  # as it is, with its exit code
        return error


@dataclass(frozen=True)
class TrainingOrder:
    """A job of Hydra's, as its process gets it."""

    config: DictConfig
    hydra_context: HydraContext
    task_function: Callable[..., Any]
    threads: int
    environment: dict[str, str]


def train_in_process(connection: Connection, order: TrainingOrder) -> str | NormlabError | Stopped:
    """Carry out a job as Hydra's own launcher would: what it returned, or why it failed."""
    stopping.follow_parent()
    threading.Thread(target=_follow_requests, args=(connection,), daemon=True).start()
    try:
        _prepare_process(order.environment)
        import_training()
        import torch

        torch.set_num_threads(order.threads)
        Singleton.instance(JobRuntime).set("name", order.config.hydra.job.name)
        display = ConnectionDisplay(connection)
        job = run_job(
            hydra_context=order.hydra_context,
            task_function=partial(order.task_function, display=display),
            config=order.config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    except KeyboardInterrupt as interruption:
        return Stopped(stopping.signal_of(interruption))
    finally:
        stopping.ignore_signals()
    error = job_error(job)
    if error is None:
        return str(job.return_value)
    # Only what can travel: an error of some package's own becomes a sentence.
    return error if isinstance(error, NormlabError) else NormlabError(describe_error(error))


def _follow_requests(connection: Connection) -> None:
    """Stop when the parent asks for it; when it is gone, save and stop."""
    while True:
        try:
            signum, at_once = connection.recv()
        except (EOFError, OSError):
            break
        stopping.request_stop(signal.Signals(signum), at_once)
    stopping.request_stop(signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)


class ConnectionDisplay:
    """Reports a run to the parent process; it never waits long, and never fails."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sent_at = -REFRESH_SECONDS

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Send the progress, now and then."""
        if time.monotonic() - self._sent_at >= REFRESH_SECONDS:
            self._sent_at = time.monotonic()
            self._send(("update", step, loss, tokens_per_second), patience=0)

    def say(self, sentence: str) -> None:
        """Send a sentence."""
        self._send(("say", sentence), patience=SEND_SECONDS)

    def _send(self, message: tuple[Any, ...], patience: float) -> None:
        with suppress(OSError):
            # Windows cannot be asked; there a parent that does not listen is waited for.
            if os.name == "nt" or select.select([], [self._connection], [], patience)[1]:
                self._connection.send(message)


# Hydra's launcher


class StudyLauncher(Launcher):
    """Trains jobs as its `allocation` says; without it, or with one job, in this process."""

    def __init__(self) -> None:
        self.allocation: Allocation | None = None
        self.specs: Sequence[RunSpec] = ()

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra before `launch`."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Train the jobs; what each returned or raised, in their order.

        Raises:
            KeyboardInterrupt: a signal stopped them, and their states are saved.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        configs = [
            self._compose_job(overrides, number)
            for number, overrides in enumerate(job_overrides, initial_job_idx)
        ]
        if self.allocation is None or len(configs) == 1:
            return [
                run_job(
                    hydra_context=self.hydra_context,
                    task_function=self.task_function,
                    config=config,
                    job_dir_key="hydra.sweep.dir",
                    job_subdir_key="hydra.sweep.subdir",
                )
                for config in configs
            ]
        jobs = []
        for index, (config, spec) in enumerate(zip(configs, self.specs, strict=True)):
            threads = choose_threads(spec, self.allocation)
            order = TrainingOrder(
                config, self.hydra_context, self.task_function, threads, dict(os.environ)
            )
            jobs.append(Job(index, spec, order))
        return ParallelRuns(self.allocation, jobs).train()

    def _compose_job(self, overrides: Sequence[str], number: int) -> DictConfig:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config


@dataclass
class Job:
    """A run to be trained, and the process that does it."""

    index: int
    spec: RunSpec
    order: TrainingOrder
    worker: Worker | None = None
    result: JobReturn = field(default_factory=JobReturn)
    stop_requests: int = 0


class ParallelRuns:
    """Keeps as many runs going as the allocation allows, until all have ended or a signal comes."""

    def __init__(self, allocation: Allocation, jobs: Sequence[Job]) -> None:
        self.allocation = allocation
        self.jobs = jobs
        self.waiting = deque(jobs)
        self.running: list[tuple[Job, Worker]] = []
        self.signals: list[int] = []
        self.deadline: float | None = None
        self.progress = StudyProgress(
            [job.spec.name for job in jobs], [job.spec.config.trainer.max_steps for job in jobs]
        )

    def train(self) -> list[JobReturn]:
        """Train them all."""
        with stopping.handle_signals(self._note_signal), self.progress:
            try:
                while self.running or (self.waiting and not self.signals):
                    self._start_waiting()
                    self._forward_signals()
                    self._show_progress()
                    self._collect_results()
            finally:
                self._kill()
        if self.signals:
            raise stopping.interruption_for(self.signals[0])
        return [job.result for job in self.jobs]

    def _note_signal(self, signum: int, frame: FrameType | None) -> None:
        # The processes have the states to save: signals are passed on to them.
        if not self.signals:
            output.write_error(stopping.ANNOUNCEMENT)
        self.signals.append(signum)

    def _start_waiting(self) -> None:
        threads = self.allocation.jobs * self.allocation.threads
        while self.waiting and not self.signals and len(self.running) < self.allocation.jobs:
            used = sum(job.order.threads for job, _ in self.running)
            if self.running and used + self.waiting[0].order.threads > threads:
                return  # a run that goes on with more threads than its share waits for them
            job = self.waiting.popleft()
            self.progress.start(job.index)
            self.running.append((job, Worker(train_in_process, job.order)))

    def _forward_signals(self) -> None:
        for job, worker in self.running:
            while job.stop_requests < min(2, len(self.signals)):
                job.stop_requests += 1
                worker.request_stop(self.signals[0], at_once=job.stop_requests > 1)
        if len(self.signals) > 1:
            self.deadline = self.deadline or time.monotonic() + STOP_SECONDS
            if time.monotonic() > self.deadline:
                self._kill()

    def _kill(self) -> None:
        for _, worker in self.running:
            worker.process.kill()

    def _show_progress(self) -> None:
        sentinels = [worker.process.sentinel for _, worker in self.running]
        open_ends = [worker.connection for _, worker in self.running if not worker.has_result]
        wait([*open_ends, *sentinels], POLL_SECONDS)
        for job, worker in self.running:
            self._show_messages(job, worker)

    def _show_messages(self, job: Job, worker: Worker) -> None:
        for kind, *values in worker.receive():
            if kind == "update":
                self.progress.update(job.index, *values)
            else:
                self.progress.say(job.index, *values)

    def _collect_results(self) -> None:
        for job, worker in list(self.running):
            if worker.process.exitcode is None:
                continue
            self._show_messages(job, worker)  # what it sent last
            self.running.remove((job, worker))
            job.result = self._read_result(job, worker)
            self.progress.end(job.index)
            worker.connection.close()

    def _read_result(self, job: Job, worker: Worker) -> JobReturn:
        result = worker.result
        if isinstance(result, str):
            if result not in (ALREADY_TRAINED, ELSEWHERE):
                with suppress(OSError, NormlabError):
                    self.progress.finish(job.index, RunRecord.read(job.spec.folder))
            return _job_return(JobStatus.COMPLETED, result)
        if isinstance(result, NormlabError):
            return _job_return(JobStatus.FAILED, result)
        if isinstance(result, Stopped):
            reason = f"stopped by {signal.Signals(result.signum).name}"
        elif self.deadline is not None and time.monotonic() > self.deadline:
            reason = "its process did not stop, and was killed"
        else:
            death = _describe_death(worker.process.exitcode)
            reason = f"its process {death}; the same command goes on where it was"
        if not (isinstance(result, Stopped) and self.signals):
            self.progress.say(job.index, reason)
        return _job_return(JobStatus.FAILED, NormlabError(reason))


def _job_return(status: JobStatus, value: str | NormlabError) -> JobReturn:
    job = JobReturn(status=status)
    job.return_value = value
    return job


def job_error(job: JobReturn) -> Exception | None:
    """What a job raised, if it failed."""
    if job.status is not JobStatus.FAILED:
        return None
    with redirect_stderr(io.StringIO()):  # Hydra prints a line of its own before it raises
        try:
            job.return_value  # noqa: B018
        except Exception as error:
            return error
    return None


def describe_error(error: Exception) -> str:
    """An error on one line, with its class unless it is normlab's own."""
    message = " ".join(str(error).split())
    return str(error) if isinstance(error, NormlabError) else f"{type(error).__name__}: {message}"


def _describe_death(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
