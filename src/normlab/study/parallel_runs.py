"""Runs trained several at once: Hydra's launcher, and the parent of the processes that train."""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from normlab import output
from normlab.archive.record import RunRecord
from normlab.config.run_spec import RunSpec
from normlab.errors import NormlabError
from normlab.study.allocation import Allocation, choose_threads
from normlab.study.plan import ELSEWHERE
from normlab.study.progress import StudyProgress
from normlab.study.workers import (
    ALREADY_TRAINED,
    POLL_SECONDS,
    STOP_SECONDS,
    HydraJob,
    Stopped,
    Worker,
    describe_death,
    train_in_process,
)
from normlab.training import stopping


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
        # As Hydra's own launcher does: `hydra:` and `now:` in a configuration are resolved by it.
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        ordered = [
            HydraJob(self.config, overrides, number, self.hydra_context, self.task_function)
            for number, overrides in enumerate(job_overrides, initial_job_idx)
        ]
        if self.allocation is None or len(ordered) == 1:
            return [job.run() for job in ordered]
        jobs = []
        for index, (job, spec) in enumerate(zip(ordered, self.specs, strict=True)):
            threads = choose_threads(spec, self.allocation)
            jobs.append(Job([index], [spec], threads, job.train, dict(os.environ)))
        return ParallelRuns(self.allocation, jobs).train()


@dataclass
class Job:
    """Runs to be trained in one process, by their indices: a single one, or those of stacks.

    `train` gets the connection, and returns the result of each run: a list, or of a single run the
    result itself.
    """

    indices: Sequence[int]
    specs: Sequence[RunSpec]
    threads: int
    train: Callable[[Connection], Any]
    environment: dict[str, str]
    results: list[JobReturn] = field(default_factory=list)
    stop_requests: int = 0


class ParallelRuns:
    """Keeps as many jobs going as the allocation allows, until all have ended or a signal comes."""

    def __init__(self, allocation: Allocation, jobs: Sequence[Job]) -> None:
        self.allocation = allocation
        self.jobs = jobs
        self.waiting = deque(jobs)
        self.running: list[tuple[Job, Worker]] = []
        self.signals: list[int] = []
        self.deadline: float | None = None
        self.ended: set[int] = set()  # indices of runs whose end has been shown
        specs = dict(sorted(pair for job in jobs for pair in self._indexed_specs(job)))
        self.progress = StudyProgress(
            [spec.name for spec in specs.values()],
            [spec.config.trainer.max_steps for spec in specs.values()],
        )

    def train(self) -> list[JobReturn]:
        """Train them all; what each run came to, in the order of the indices."""
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
        results = {
            index: result
            for job in self.jobs
            for index, result in zip(job.indices, job.results, strict=True)
        }
        return [results[index] for index in sorted(results)]

    @staticmethod
    def _indexed_specs(job: Job) -> list[tuple[int, RunSpec]]:
        return list(zip(job.indices, job.specs, strict=True))

    def _note_signal(self, signum: int, frame: FrameType | None) -> None:
        # The processes have the states to save: signals are passed on to them.
        if not self.signals:
            output.write_error(stopping.ANNOUNCEMENT)
        self.signals.append(signum)

    def _start_waiting(self) -> None:
        threads = self.allocation.jobs * self.allocation.threads
        while self.waiting and not self.signals and len(self.running) < self.allocation.jobs:
            used = sum(job.threads for job, _ in self.running)
            if self.running and used + self.waiting[0].threads > threads:
                return  # a run that goes on with more threads than its share waits for them
            job = self.waiting.popleft()
            if len(job.indices) == 1:  # of more, the process says which begin
                self.progress.start(job.indices[0])
            worker = Worker(train_in_process, job.train, job.threads, job.environment)
            self.running.append((job, worker))

    def _forward_signals(self) -> None:
        for job, worker in self.running:
            while job.stop_requests < min(2, len(self.signals)):
                # The first asks to save and stop, the second to stop at once; more say nothing new.
                job.stop_requests += 1
                worker.request_stop(self.signals[0], at_once=job.stop_requests > 1)
        if len(self.signals) > 1:
            # Only after the second signal: before that, saving takes the time that it takes.
            self.deadline = self.deadline or time.monotonic() + STOP_SECONDS
            if time.monotonic() > self.deadline:
                self._kill()

    def _kill(self) -> None:
        for _, worker in self.running:
            worker.process.kill()

    def _show_progress(self) -> None:
        sentinels = [worker.process.sentinel for _, worker in self.running]
        # A connection whose other end is closed is always ready: once the result is here, only the
        # end of the process is waited for, or this would be a busy loop.
        open_ends = [worker.connection for _, worker in self.running if not worker.has_result]
        wait([*open_ends, *sentinels], POLL_SECONDS)
        for job, worker in self.running:
            self._show_messages(job, worker)

    def _show_messages(self, job: Job, worker: Worker) -> None:
        for kind, member, *values in worker.receive():
            index = job.indices[member]
            if kind == "update":
                self.progress.update(index, *values)
            elif kind == "start":
                self.progress.start(index, stacked=values[0])
            elif kind == "end":
                self._show_end(index, job.specs[member], *values)
            else:
                self.progress.say(index, *values)

    def _show_end(self, index: int, spec: RunSpec, state: str) -> None:
        if index in self.ended:
            return
        self.ended.add(index)
        if state not in (ALREADY_TRAINED, ELSEWHERE):
            with suppress(OSError, NormlabError):
                self.progress.finish(index, RunRecord.read(spec.folder))
        self.progress.end(index)

    def _collect_results(self) -> None:
        for job, worker in list(self.running):
            if worker.process.exitcode is None:
                continue
            self._show_messages(job, worker)  # what it sent last
            self.running.remove((job, worker))
            results = worker.result
            # A process that was stopped or died has one result, or none, for all of its runs.
            if not isinstance(results, list):
                results = [results] * len(job.indices)
            job.results = [
                self._read_result(index, spec, worker, result)
                for (index, spec), result in zip(self._indexed_specs(job), results, strict=True)
            ]
            worker.connection.close()

    def _read_result(self, index: int, spec: RunSpec, worker: Worker, result: Any) -> JobReturn:
        if isinstance(result, str):
            self._show_end(index, spec, result)
            return _job_return(JobStatus.COMPLETED, result)
        self.progress.end(index)
        if isinstance(result, NormlabError):
            return _job_return(JobStatus.FAILED, result)
        if spec.read_result() is not None:  # of a stack whose process died later
            return _job_return(JobStatus.COMPLETED, ALREADY_TRAINED)
        if isinstance(result, Stopped):
            reason = f"stopped by {signal.Signals(result.signum).name}"
        elif self.deadline is not None and time.monotonic() > self.deadline:
            reason = "its process did not stop, and was killed"
        else:
            death = describe_death(worker.process.exitcode)
            reason = f"its process {death}; the same command goes on where it was"
        if not (isinstance(result, Stopped) and self.signals):
            self.progress.say(index, reason)
        return _job_return(JobStatus.FAILED, NormlabError(reason))


def _job_return(status: JobStatus, value: str | NormlabError) -> JobReturn:
    job = JobReturn(status=status)
    job.return_value = value
    return job
