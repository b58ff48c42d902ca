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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

import psutil
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from normlab import output
from normlab.archive.lock import RunLockedError
from normlab.config.compose import register_schemas
from normlab.config.run_spec import RunSpec
from normlab.config.specify import make_run_spec
from normlab.errors import NormlabError, describe_error, explain_failed_import
from normlab.study.plan import ELSEWHERE
from normlab.study.progress import StudyProgress
from normlab.study.stack_allocation import StackRequest
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


# Of this process or the fork server: torch, once it is half imported, fails with other words.
_failed_import: NormlabError | None = None


def import_training() -> None:
    """Import what training needs; it takes seconds, so what is wrong is found before.

    Garbage is not looked for meanwhile, which is a fifth of the time, nor later among what is
    imported, which would slow every process that is forked from this one.
    """
    global _failed_import
    if "normlab.training.run" in sys.modules:
        return
    if _failed_import is not None:
        raise _failed_import
    gc.disable()
    try:
        with explain_failed_import():
            importlib.import_module("normlab.training.run")
        # Else the collector of a forked process visits all objects of torch: the check of the
        # networks took 0.6 s instead of 0.2.
        gc.freeze()
    except NormlabError as error:
        _failed_import = error
        raise
    finally:
        gc.enable()


# Training in this process


def train_job(
    composed: DictConfig,
    runs: int = 1,
    planned: frozenset[str] | None = None,
    display: "ConnectionDisplay | None" = None,
) -> str:
    """Hydra's task: train a run of a study of `runs`, unless it has a result. Returns its state.

    The state of a run that another process trains is `elsewhere`. `display` is where the run
    reports, where it is not this process that shows it.
    """
    spec = make_run_spec(composed, HydraConfig.get().runtime.choices)
    # Jobs are composed as they begin, from files that may have been edited since the plan.
    if planned is not None and spec.id not in planned:
        raise NormlabError(
            "a file of the configuration has changed since the command began, and asks for another "
            f"run ({spec.name}); nothing was trained"
        )
    if spec.read_result() is not None:
        return ALREADY_TRAINED
    job = HydraConfig.get().job
    # Hydra numbers the jobs of a sweep only.
    number = 1 if OmegaConf.is_missing(job, "num") else int(job.num) + 1
    return train_with_progress(spec, number, runs, shlex.join(sys.argv), display)


def train_with_progress(
    spec: RunSpec,
    number: int,
    runs: int,
    command: str,
    display: "ConnectionDisplay | None" = None,
    stacked: bool | None = None,
) -> str:
    """Train run `number` of `runs` in this process, and show it. Returns its state.

    `stacked` trains it as a stack of one, or not; None does so for a single run where that is
    faster. Of several runs, each is trained alone.
    """
    output.secure_streams()  # another launcher of Hydra's may have begun this process
    import_training()
    from normlab.training.run import train as train_alone
    from normlab.training.stack_run import gains_from_stack, train_single

    if stacked is None:
        stacked = runs == 1 and gains_from_stack(spec)
    train = train_single if stacked else train_alone
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


@dataclass(frozen=True)
class CheckedRuns:
    """What is certain about runs before they train: their devices, and how they can be stacked.

    `stacks` is None where each is trained alone, as it was always done. `warnings` are sentences
    about what will not be trained, though it looks so.
    """

    devices: set[str]
    stacks: StackRequest | None = None
    warnings: list[str] = field(default_factory=list)


def check_runs(pending: Sequence[RunSpec], local: bool) -> CheckedRuns:
    """Fail now, before anything is trained, where it is certain that a run would fail.

    Only `local` runs train on this machine, and need the device that they ask for to be here.

    Raises:
        ConfigError: a network cannot be built, a device is not here, or no runs can be stacked
            where that was asked for.
    """
    import_training()
    from normlab.training.build import check_networks
    from normlab.training.hardware import resolve_device

    warnings = check_networks(pending)
    if not local:
        return CheckedRuns(set(), warnings=warnings)
    devices = {resolve_device(spec.config.trainer) for spec in pending}
    return CheckedRuns(devices, _request_stacks(pending, devices), warnings)


def _request_stacks(pending: Sequence[RunSpec], devices: set[str]) -> StackRequest | None:
    from normlab.training.hardware import free_card_memory
    from normlab.training.stack_groups import check_explicit_request, plan_stacks

    size = pending[0].config.trainer.stack
    # Decided before cards are asked for their memory, which opens a context on every one.
    if size == 1 or len(pending) < 2 or (size == "auto" and devices != {"cuda"}):
        return None
    plan = plan_stacks(pending)
    reason = next((f"{pending[i].name}: {why}" for i, why in plan.obstacles.items()), "")
    cards = tuple(free_card_memory()) if devices == {"cuda"} else ()
    if size == "auto":
        # Arms are compared: all of them are trained in the same way, or the caveat says so.
        if plan.obstacles:
            note = f"all runs are trained alone, for {reason}"
            return StackRequest([], list(range(len(pending))), note, cards)
    else:
        check_explicit_request(size, pending, plan)
    count = f"{len(plan.obstacles)} of {len(pending)} runs are trained alone"
    note = f"{count}, for {reason}" if reason else ""
    return StackRequest(plan.groups, list(plan.obstacles), note, cards)


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
    # Before the signals are blocked, for it leaves them unblocked.
    resource_tracker.ensure_running()
    # The server leaves signals to this process and to those that train: Ctrl-C, or a SIGTERM to the
    # whole group, reaches it too, and without it nobody learns how its processes end.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
    try:
        # The standard library does not tell which process is its server: it is the new child.
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
        # The process has a copy. While this one is open, its end could not be seen on `connection`.
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
    """`function(connection, *arguments)` in a process of its own. Raises ProcessDiedError."""
    worker = Worker(function, *arguments)
    try:
        while not worker.has_result and worker.process.is_alive():
            wait([worker.connection, worker.process.sentinel])
            list(worker.receive())
        # What it sent after the last look, before it ended.
        list(worker.receive())
    finally:
        worker.process.kill()
        worker.process.join()
    if not worker.has_result:
        raise ProcessDiedError(describe_death(worker.process.exitcode))
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


def prepare_process(environment: Mapping[str, str]) -> None:
    """Take the environment of the parent, which the fork server may be older than."""
    if FORKS:
        # Blocked since before the fork: the fork server is started with them blocked.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping.SIGNALS)
    output.secure_streams()
    os.environ.clear()
    os.environ.update(environment)
    register_schemas()
    setup_globals()


def check_runs_in_process(
    connection: Connection, specs: Sequence[RunSpec], environment: Mapping[str, str]
) -> CheckedRuns | NormlabError:
    """`check_runs`, in a process of its own: its result, or the error that it raises."""
    for signum in {*stopping.SIGNALS} - {signal.SIGTERM}:
        signal.signal(signum, signal.SIG_IGN)  # the parent hears it, and ends this process
    prepare_process(environment)
    try:
        return check_runs(specs, local=True)
    except NormlabError as error:  # as it is, with its exit code
        return error


@dataclass(frozen=True)
class HydraJob:
    """One job of a command: `overrides` of `master`, the configuration composed for the command."""

    master: DictConfig
    overrides: Sequence[str]
    number: int  # from 0
    hydra_context: HydraContext
    task_function: Callable[..., Any]

    def run(self, **arguments: Any) -> JobReturn:
        """Carry it out as Hydra's own launcher would: what it returned or raised.

        `arguments` are passed to the task too. The job is composed only here, by the process that
        trains it: that takes 0.1 to 0.3 s, which a study of many runs would wait for before the
        first began.
        """
        config = self.hydra_context.config_loader.load_sweep_config(
            self.master, list(self.overrides)
        )
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = self.number
        # Hydra and OmegaConf can lose a signal's exception that is raised within their cleanup.
        stopping.raise_swallowed()
        return run_job(
            hydra_context=self.hydra_context,
            task_function=partial(self.task_function, **arguments),
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )

    def train(self, connection: Connection) -> str | NormlabError:
        """Carry it out in a process of its own: what it returned, or why it failed."""
        # Hydra keeps the name in a singleton of each process; run_job puts it into the result.
        Singleton.instance(JobRuntime).set("name", self.master.hydra.job.name)
        result = self.run(display=ConnectionDisplay(connection))
        error = job_error(result)
        if error is None:
            return str(result.return_value)
        # Only what can travel: an error of some package's own becomes a sentence.
        return error if isinstance(error, NormlabError) else NormlabError(describe_error(error))


def train_in_process(
    connection: Connection,
    train: Callable[[Connection], Any],
    threads: int,
    environment: Mapping[str, str],
) -> Any:
    """What `train(connection)` returns, in a process that follows its parent; or `Stopped`."""
    follow_parent(connection)
    try:
        prepare_process(environment)
        import_training()
        import torch

        torch.set_num_threads(threads)
        return train(connection)
    except KeyboardInterrupt as interruption:
        return Stopped(stopping.signal_of(interruption))
    finally:
        stopping.ignore_signals()


def follow_parent(connection: Connection) -> None:
    """Stop when the parent asks for it, or is gone, and for no other reason."""
    stopping.follow_parent()
    threading.Thread(target=_follow_requests, args=(connection,), daemon=True).start()


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
    # sys.exit would end this thread, and not the process.
    os._exit(1)


class ConnectionDisplay:
    """Reports a run to the parent process; it never waits long, and never fails.

    `member` says which run of the process's job it is.
    """

    def __init__(self, connection: Connection, member: int = 0) -> None:
        self._connection = connection
        self._member = member
        self._sent_at = -REFRESH_SECONDS

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Send the progress, now and then."""
        if time.monotonic() - self._sent_at >= REFRESH_SECONDS:
            self._sent_at = time.monotonic()
            self._send(("update", self._member, step, loss, tokens_per_second), patience=0)

    def say(self, sentence: str) -> None:
        """Send a sentence."""
        self._send(("say", self._member, sentence), patience=SEND_SECONDS)

    def start_stack(self, runs: int) -> None:
        """Say that a stack of so many runs begins with this one."""
        self._send(("start", self._member, runs), patience=SEND_SECONDS)

    def end(self, state: str) -> None:
        """Say how the run ended, where the job goes on with others."""
        self._send(("end", self._member, state), patience=SEND_SECONDS)

    def _send(self, message: tuple[Any, ...], patience: float) -> None:
        with suppress(OSError):
            # Windows cannot be asked; there a parent that does not listen is waited for.
            if os.name == "nt" or select.select([], [self._connection], [], patience)[1]:
                self._connection.send(message)


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


def describe_death(code: int | None) -> str:
    """How a process ended that sent no result."""
    if code == 255:  # multiprocessing's answer where it cannot know
        return "ended in a way that is not known, for the fork server that began it has died"
    if code is None or code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
