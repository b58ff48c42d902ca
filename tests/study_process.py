"""Studies in processes of their own, to be killed, stopped and starved, and what became of them."""

import csv
import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from normlab.archive.record import RunRecord, read_result
from normlab.training import stopping
from tiny_run import TINY, keep_last

ROOT = Path(__file__).resolve().parents[1]

# Dropout draws, two batches make a step, and neither logging nor validation divides the run.
STUDY = (
    *("-m", *TINY, "norm=rmsnorm,layernorm"),
    *("model.dropout=0.1", "trainer.accumulate=2", "trainer.save_seconds=0"),
    *("trainer.max_steps=40", "trainer.val_every=9", "trainer.log_every=4"),
)


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code as a shell tells it, and what it wrote."""

    code: int
    out: str
    err: str


_running: list["Process"] = []


def end_processes() -> None:
    """Leave no process behind, also where a test failed."""
    while _running:
        process = _running.pop()
        process.kill()
        process.end()


class Process:
    """`python train.py ARGUMENTS`, under way.

    A forked one is the same program begun with its imports done: where a test starts many.
    """

    def __init__(self, place: Path, *arguments: str, forked: bool = False, **environment: str):
        place.mkdir(parents=True, exist_ok=True)
        arguments = tuple(keep_last(arguments))
        _running.append(self)
        stem = f"{time.monotonic_ns()}"
        self._files = [place / f"{stem}.{name}" for name in ("out", "err")]
        self._forked = self._started = None
        if forked:
            server = multiprocessing.get_context("forkserver")
            server.set_forkserver_preload(["study_process_imports"])
            self._forked = server.Process(target=_train, args=(arguments, self._files))
            self._forked.start()
            self.pid = self._forked.pid or 0
            return
        with self._files[0].open("w") as out, self._files[1].open("w") as err:
            self._started = subprocess.Popen(
                [sys.executable, "train.py", *arguments],
                cwd=ROOT,
                env=environment_here(**environment),
                stdout=out,
                stderr=err,
            )
        self.pid = self._started.pid

    @property
    def alive(self) -> bool:
        if self._forked:
            return self._forked.is_alive()
        return self._started is not None and self._started.poll() is None

    def send(self, signum: int) -> None:
        if self.alive:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """kill -9, to it and to all that it has started."""
        if self.alive:
            with suppress(psutil.NoSuchProcess):
                whole = psutil.Process(self.pid)
                for process in [whole, *whole.children(recursive=True)]:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()

    def end(self, seconds: float = 240) -> Ended:
        """Wait for its end."""
        if self._forked:
            self._forked.join(seconds)
            code = self._forked.exitcode
        else:
            assert self._started is not None
            code = self._started.wait(seconds)
        assert code is not None, "it does not end"
        out, err = (path.read_text() if path.exists() else "" for path in self._files)
        return Ended(128 - code if code < 0 else code, out, err)

    def until(self, happens: Callable[[], object], seconds: float = 120) -> bool:
        """Wait until something happens; False if the process ends before."""
        deadline = time.monotonic() + seconds
        while self.alive:
            if happens():
                return True
            assert time.monotonic() < deadline, "it never happens"
            time.sleep(0.002)
        return False


def environment_here(**more: str) -> dict[str, str]:
    """The environment of a process that runs these sources."""
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    if first := more.pop("PYTHONPATH", ""):
        paths.insert(0, first)
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), **more}


def _train(arguments: tuple[str, ...], files: list[Path]) -> None:
    # The fork server may be that of an earlier command, which has blocked them in it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping.SIGNALS)
    for descriptor, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(ROOT)
    sys.argv = ["train.py", *arguments]
    runpy.run_path("train.py", run_name="__main__")


def read_records(study: Path) -> dict[str, RunRecord]:
    """The records of a study's runs, by the run's name; those that can be read."""
    found = {path.parent.name: read_result(path.parent) for path in study.glob("*/run.json")}
    return {name: record for name, record in found.items() if record is not None}


def list_drafts(folder: Path) -> list[Path]:
    """What is being written below a folder, or was when a writer was killed."""
    # Not rglob: a folder may vanish while it is read.
    return [
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if name.startswith(".") and name.endswith(".part")
    ]


def read_rows(study: Path) -> list[dict[str, str]]:
    """`runs.csv` without what two equal runs may differ in: times, and where they were trained."""
    apart = ("command", "tokens_per_second", "train_seconds", "started", "ended")
    with (study / "runs.csv").open() as lines:
        return [
            {key: cell for key, cell in row.items() if key not in (*apart, "config.output_dir")}
            for row in csv.DictReader(lines)
        ]


def random_pauses(seed: int, longest: float) -> Iterator[float]:
    """Random times to wait, the same for the same seed."""
    generator = random.Random(seed)
    while True:
        yield generator.uniform(0, longest)


def shell_code(signum: int) -> int:
    return 128 + signal.Signals(signum)
