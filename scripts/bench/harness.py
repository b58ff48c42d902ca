"""How everything here is timed: one block of each contender in turn, round after round.

Whatever slows the machine then slows all contenders, and a ratio is taken inside a round. What
trains or reads does so in a process of its own, which waits while the others are timed.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

from normlab.errors import ConfigError, NormlabError
from normlab.text import one_line

Block = dict[str, float]  # what a block cost, by quantity
Samples = dict[str, list[Block]]  # by contender, a block for each round
RunBlock = Callable[[], Block]

ROOT = Path(__file__).resolve().parents[2]
# The threads of a parallel region that ended go on spinning for some milliseconds.
PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Settings:
    """The command line; None and empty leave the choice to the suite."""

    quick: bool = False
    rounds: int | None = None
    threads: int | None = None
    shapes: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    progress: Callable[[str], None] = lambda sentence: None

    def choose_rounds(self, standard: int, quick: int) -> int:
        """The user's number of rounds, or the suite's."""
        return self.rounds or (quick if self.quick else standard)

    def choose_shapes(
        self, allowed: Sequence[str], standard: Sequence[str], quick: Sequence[str]
    ) -> list[str]:
        """The user's names of sizes, or the suite's.

        Raises:
            ConfigError: a name is not among the allowed ones.
        """
        for name in set(self.shapes).difference(allowed):
            raise ConfigError(
                f"--shapes {name} does not exist in this suite; choose from {', '.join(allowed)}."
            )
        return list(self.shapes or (quick if self.quick else standard))


class Contender:
    """Something whose cost is compared with that of others."""

    name: str

    def start(self) -> None:
        """Begin to set up; the first block waits until that is done."""

    def run_block(self) -> Block:
        """Do the work once; returns the cost."""
        raise NotImplementedError

    def stop(self) -> None:
        """Release everything; also called where `start` was not."""


def interleave(
    contenders: Sequence[Contender],
    rounds: int,
    progress: Callable[[str], None] = lambda sentence: None,
    warmup: int = 1,
) -> Samples:
    """Time A B C A B C …; the blocks of `warmup` rounds before are thrown away.

    Raises:
        NormlabError: a contender failed.
    """
    samples: Samples = {contender.name: [] for contender in contenders}
    with ExitStack() as stack:
        for contender in contenders:
            stack.callback(contender.stop)
            # All set up at the same time; a first block waits for its set-up.
            contender.start()
        # The first blocks are slow: caches, allocators and clocks are cold.
        for number in range(-warmup, rounds):
            for contender in contenders:
                title = f"round {number + 1} of {rounds}" if number >= 0 else "warm-up"
                progress(f"{title}: {contender.name}")
                time.sleep(PAUSE_SECONDS)
                block = contender.run_block()
                if number >= 0:
                    samples[contender.name].append(block)
    return samples


@dataclass
class TimedCommand(Contender):
    """A Python command, timed from its start to its end in a new folder.

    Attributes:
        words: what follows `python`; `{folder}` is the new folder, `{root}` the checkout.
        code: the exit code it must have.
        until: where set, the time ends when this is true of the folder, and the command is killed.
    """

    name: str
    words: Sequence[str]
    code: int = 0
    threads: int | None = None
    until: Callable[[Path], bool] | None = None

    def run_block(self) -> Block:
        """Seconds from start to end.

        Raises:
            NormlabError: the command ended with another code, or before `until`.
        """
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
            began = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *(word.format(folder=folder, root=ROOT) for word in self.words)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **thread_variables(self.threads)},
                start_new_session=True,  # its own processes are killed with it
            )
            try:
                if self.until is None:
                    # Without a timeout, which would look for the end every 50 ms.
                    succeeded = process.wait() == self.code
                else:
                    while not (succeeded := self.until(Path(folder))) and process.poll() is None:
                        time.sleep(0.01)
                seconds = time.perf_counter() - began
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            if not succeeded:
                output.seek(0)
                last = (output.read().strip().splitlines() or ["no output"])[-1]
                raise NormlabError(f"{self.name} ended with code {process.returncode}: {last}")
        return {"seconds": seconds}


@dataclass
class WorkerProcess(Contender):
    """A contender in a Python process of its own.

    Attributes:
        set_up: a module's function that is called in the process; it returns what does a block.
        arguments: of `set_up`.
        environment: variables of the process beside those of this one.
    """

    name: str
    set_up: Callable[..., RunBlock]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    _pool: ProcessPoolExecutor | None = None

    def start(self) -> None:
        """Start the process, which sets itself up."""
        # Not forked: its memory would begin with that of all that is imported here.
        self._pool = ProcessPoolExecutor(1, get_context("spawn"))
        # The process starts with the first submission, and inherits the variables of that moment.
        with patch.dict(os.environ, {**thread_variables(self.threads), **self.environment}):
            self._setting_up = self._pool.submit(_set_up_worker, self.set_up, dict(self.arguments))

    def run_block(self) -> Block:
        """The cost of one block.

        Raises:
            NormlabError: the process failed.
        """
        assert self._pool is not None
        try:
            self._setting_up.result()
            return self._pool.submit(_run_worker_block).result()
        except Exception as error:
            reason = one_line(f"{type(error).__name__}: {error}")
            raise NormlabError(f"the contender {self.name} failed: {reason}") from error

    def stop(self) -> None:
        """End the process."""
        if self._pool is not None:
            # Python's own way out takes seconds where torch is loaded.
            with suppress(BrokenExecutor):
                self._pool.submit(os._exit, 0)
            self._pool.shutdown()


_worker: dict[str, RunBlock] = {}  # in a worker: what does a block


def _set_up_worker(set_up: Callable[..., RunBlock], arguments: dict[str, Any]) -> None:
    _worker["run_block"] = set_up(**arguments)


def _run_worker_block() -> Block:
    return _worker["run_block"]()


def thread_variables(threads: int | None) -> dict[str, str]:
    """Environment variables with which torch takes so many threads; None: torch's default."""
    return {} if threads is None else {"OMP_NUM_THREADS": str(threads)}


def read_peak_memory() -> float:
    """The most memory this process has held so far, in MiB, on Linux.

    Not ru_maxrss, which would begin at what the parent held when it started this process.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024
