"""The runs of a study, each in a process that can die alone: started, shown, stopped."""

import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from json import loads
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from pebble import ProcessExpired, ProcessFuture

from normlab import output
from normlab.archive.record import RunRecord
from normlab.config.run_spec import RunSpec
from normlab.errors import NormlabError
from normlab.study import engine, worker
from normlab.study.board import Board
from normlab.study.launcher import StudyLauncher
from normlab.study.plan import ELSEWHERE
from normlab.study.share import Share
from normlab.training import stopping

# How long (seconds) a process may take to stop at once.
AT_ONCE = 10.0
# What the launcher looks at new signals, messages and ends after, at the latest (seconds).
WAKE = 0.1


@dataclass
class Job:
    """One run to be trained, and the process that does it."""

    number: int
    overrides: list[str]
    spec: RunSpec
    threads: int
    future: ProcessFuture[Any] | None = None
    control: Connection | None = None
    result: JobReturn | None = None
    told: list[bytes] = field(default_factory=list)

    def tell(self, word: bytes, signum: int) -> None:
        """Say it to the process, once."""
        if self.control is not None and word not in self.told:
            self.told.append(word)
            with suppress(OSError):
                self.control.send_bytes(word + b":%d" % signum)


class SideBySide:
    """Keeps as many runs going as the share allows, until all have ended or a signal comes."""

    def __init__(
        self, launcher: StudyLauncher, share: Share, jobs: Sequence[Job], first: int
    ) -> None:
        self.launcher = launcher
        self.share = share
        self.jobs = jobs
        self.first = first
        self.waiting = deque(jobs)
        self.running: list[Job] = []
        self.signals: list[int] = []
        self.deadline: float | None = None
        self.wire, self.far_end = _wire()
        names = [job.spec.name for job in jobs]
        self.board = Board(names, [job.spec.config.trainer.max_steps for job in jobs])

    def run(self) -> list[JobReturn]:
        """Train them all."""
        with self._hearing(), self.board:
            try:
                while self.running or (self.waiting and not self.signals):
                    self._start_what_fits()
                    self._pass_signals_on()
                    self._show(WAKE)
                    self._collect()
            finally:
                self._kill()
                self.wire.close()
                self.far_end.close()
        if self.signals:
            raise stopping.stop(self.signals[0])
        return [job.result or JobReturn() for job in self.jobs]

    def _start_what_fits(self) -> None:
        room = self.share.jobs * self.share.threads
        while self.waiting and not self.signals and len(self.running) < self.share.jobs:
            taken = sum(job.threads for job in self.running)
            if self.running and taken + self.waiting[0].threads > room:
                return  # a run that goes on with more threads than its share waits for room
            job = self.waiting.popleft()
            self._start(job)
            self.running.append(job)

    def _start(self, job: Job) -> None:
        task = self.launcher.task_function
        assert task is not None
        control, job.control = Pipe(duplex=False)
        number = self.first + job.number
        order = worker.Order(
            number=job.number,
            config=self.launcher.composed(job.overrides, number),
            task_function=task,
            threads=job.threads,
            environment=dict(os.environ),
            wire=self.far_end,
            control=control,
        )
        self.board.start(job.number)
        job.future = engine.call(worker.work, order)
        control.close()

    def _pass_signals_on(self) -> None:
        if not self.signals:
            return
        first = self.signals[0]
        for job in self.running:
            job.tell(worker.STOP, first)
            if len(self.signals) > 1:
                job.tell(worker.STOP_AT_ONCE, first)
        if len(self.signals) > 1:
            self.deadline = self.deadline or time.monotonic() + AT_ONCE
            if time.monotonic() > self.deadline:
                self._kill()

    def _kill(self) -> None:
        for job in self.running:
            assert job.future is not None
            job.future.cancel()  # type: ignore[no-untyped-call]

    def _show(self, seconds: float) -> None:
        """Show what the processes say."""
        while select.select([self.wire], [], [], seconds)[0]:
            seconds = 0
            with suppress(OSError, ValueError):
                run, what, *words = loads(self.wire.recv(65536))
                if what == "update":
                    self.board.update(run, *words)
                else:
                    self.board.say(run, *words)

    def _collect(self) -> None:
        for job in [job for job in self.running if job.future and job.future.done()]:
            self._show(0)  # what it said last
            self.running.remove(job)
            job.result = self._result(job)
            self.board.end(job.number)
            if job.control is not None:
                job.control.close()

    def _result(self, job: Job) -> JobReturn:
        assert job.future is not None
        try:
            answer = job.future.result()
        except ProcessExpired as expired:
            return self._failed(job, f"its process {_death(expired.exitcode)}")
        except CancelledError:
            return self._failed(job, "its process did not stop, and was killed")
        except Exception as error:  # of the way there and back, as of what cannot be pickled
            return self._failed(job, f"{type(error).__name__}: {' '.join(str(error).split())}")
        if isinstance(answer, worker.Stopped):
            name = signal.Signals(answer.signum).name
            return self._failed(job, f"stopped by {name}", quietly=bool(self.signals))
        result: JobReturn = answer
        if result.status is JobStatus.COMPLETED and result._return_value not in (
            "there",
            ELSEWHERE,
        ):
            with suppress(OSError, NormlabError):
                self.board.finish(job.number, RunRecord.read(job.spec.folder))
        return result

    def _failed(self, job: Job, why: str, quietly: bool = False) -> JobReturn:
        if not quietly:
            self.board.say(job.number, why)
        return JobReturn(status=JobStatus.FAILED, _return_value=NormlabError(why))

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        """Signals are noted, and passed on: the processes have the states to save."""
        before = {signum: signal.getsignal(signum) for signum in stopping.SIGNALS}

        def note(signum: int, frame: FrameType | None) -> None:
            if not self.signals:
                output.write_error(stopping.ANNOUNCEMENT)
            self.signals.append(signum)

        try:
            for signum in before:
                signal.signal(signum, note)
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


def _wire() -> tuple[socket.socket, socket.socket]:
    """Two ends for datagrams: each is whole, or lost."""
    if hasattr(socket, "AF_UNIX"):
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near, far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    near.bind(("127.0.0.1", 0))
    far.bind(("127.0.0.1", 0))
    far.connect(near.getsockname())
    near.connect(far.getsockname())  # takes nothing from anybody else
    return near, far


def _death(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with code {code}; the same command goes on where it was"
    name = signal.Signals(-code).name
    why = " (out of memory?)" if name == "SIGKILL" else ""
    return f"was killed by {name}{why}; the same command goes on where it was"
