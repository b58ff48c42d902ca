"""One run of a study in a process of its own: it tells its parent how it goes, and obeys it."""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig

from normlab import output
from normlab.archive.record import RunRecord
from normlab.config.run_spec import RunSpec
from normlab.errors import ConfigError, NormlabError
from normlab.study import engine, warm
from normlab.training import stopping

# How long (seconds) a process whose parent has died may take to save its state.
ALONE = 30.0
# A line is not shown more often than this (seconds).
REFRESH = 0.2
# How long (seconds) a sentence waits for a parent that is busy; a number does not wait.
PATIENCE = 1.0

STOP, STOP_AT_ONCE = b"stop", b"at once"


@dataclass(frozen=True)
class Order:
    """A job of Hydra's, and how to speak with the parent about it."""

    number: int
    config: DictConfig
    task_function: Callable[..., Any]
    threads: int | None
    environment: dict[str, str]
    wire: socket.socket  # datagrams to the parent: who is killed while it writes blocks nobody
    control: Connection  # STOP or STOP_AT_ONCE with a signal; its end is the parent's


@dataclass(frozen=True)
class Stopped:
    """The answer of a process that a signal stopped."""

    signum: int


def register() -> None:
    """What Hydra knows in the front door's process, for a job's configuration to be resolved."""
    from normlab.study.main import register as register_door

    register_door()
    setup_globals()


def check(specs: Sequence[RunSpec], environment: Mapping[str, str]) -> list[str] | ConfigError:
    """The devices that these runs will train on, or why one of them cannot be trained."""
    for signum in {*stopping.SIGNALS} - {signal.SIGTERM}:
        signal.signal(signum, signal.SIG_IGN)  # the parent hears it, and ends this process
    _settle(environment)
    try:
        from normlab.training.build import check_networks
        from normlab.training.hardware import resolve_device

        check_networks(specs)
        return [resolve_device(spec.config.trainer) for spec in specs]
    except ConfigError as error:
        return error
    finally:
        _say_no_more()


def work(order: Order) -> JobReturn | Stopped:
    """Carry out a job as Hydra's own launcher would."""
    stopping.serve()
    threading.Thread(target=_listen, args=(order.control,), daemon=True).start()
    try:
        _settle(order.environment)
        return _portable(_job(order))
    except KeyboardInterrupt as stop:
        return Stopped(stopping.signal_of(stop))
    finally:
        stopping.ignore()
        _say_no_more()


def _say_no_more() -> None:
    """Only the answer is left: with a parent that has gone, it would end in a traceback."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _settle(environment: Mapping[str, str]) -> None:
    engine.hear()
    output.secure()
    os.environ.clear()
    os.environ.update(environment)
    register()
    warm.load()


def _job(order: Order) -> JobReturn:
    import torch

    if order.threads is not None:
        torch.set_num_threads(order.threads)
    Singleton.instance(JobRuntime).set("name", order.config.hydra.job.name)
    return run_job(
        hydra_context=HydraContext(_loader(), Callbacks(order.config)),
        task_function=partial(order.task_function, lines=partial(Line, order.wire, order.number)),
        config=order.config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def _loader() -> ConfigLoaderImpl:
    """A job is composed already; a callback may ask for the loader all the same."""
    return ConfigLoaderImpl(ConfigSearchPathImpl())


def _listen(control: Connection) -> None:
    """Do as the parent says; when it is gone, save and stop."""
    while True:
        try:
            word, _, number = control.recv_bytes().partition(b":")
        except (EOFError, OSError):
            break
        stopping.ask(signal.Signals(int(number)), at_once=word == STOP_AT_ONCE)
    stopping.ask(signal.SIGTERM)
    time.sleep(ALONE)
    os._exit(1)


def _portable(job: JobReturn) -> JobReturn:
    """Only what can travel: an error of some package's own becomes one of ours."""
    value = job._return_value
    if isinstance(value, str | NormlabError):
        return job
    said = f"{type(value).__name__}: {' '.join(str(value).split())}"
    return JobReturn(status=JobStatus.FAILED, _return_value=NormlabError(said))


class Line:
    """The line of a run, shown by the parent; it never waits long, and never fails."""

    def __init__(
        self, wire: socket.socket, index: int, name: str, number: int, runs: int, max_steps: int
    ) -> None:
        self._wire = wire
        self._index = index
        self._shown = -REFRESH
        wire.setblocking(False)

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Move the line."""
        if time.monotonic() - self._shown >= REFRESH:
            self._shown = time.monotonic()
            self._send(["update", step, loss, tokens_per_second])

    def say(self, sentence: str) -> None:
        """A line that stays."""
        deadline = time.monotonic() + PATIENCE
        while not self._send(["say", sentence]) and time.monotonic() < deadline:
            time.sleep(0.02)

    def finish(self, record: RunRecord) -> None:
        """The parent reads the record."""

    def _send(self, message: list[Any]) -> bool:
        with suppress(OSError):
            self._wire.send(json.dumps([self._index, *message]).encode())
            return True
        return False
