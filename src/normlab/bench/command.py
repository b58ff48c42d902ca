"""A whole command as a contender: what a user types, timed from its start to its end."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from normlab import config
from normlab.archive import tags
from normlab.archive.events import EVENT_FILES, read_events
from normlab.errors import NormlabError

LIMIT_SECONDS = 900.0
_POLL_SECONDS = 0.01


def root() -> Path:
    """The checkout, where train.py and scripts/ stand.

    Raises:
        NormlabError: normlab is installed without them.
    """
    top = config.conf_folder().parent
    if not (top / "train.py").is_file():
        raise NormlabError(
            "train.py is not beside conf/, so commands cannot be timed; run bench.py in a checkout."
        )
    return top


@dataclass
class Command:
    """Runs a command in an empty folder every time, and waits for its end.

    Attributes:
        words: after python; `{folder}` is the empty folder, `{root}` the checkout.
        code: that it must end with.
        until: when given, it is timed until this says that what it waits for is there, and ended.
    """

    name: str
    words: Sequence[str]
    code: int = 0
    threads: int | None = None
    until: Callable[[Path], bool] | None = None

    def start(self) -> None:
        """Nothing is kept between blocks."""

    def stop(self) -> None:
        """Nothing is kept between blocks."""

    def block(self) -> dict[str, float]:
        """Seconds of the whole command, or until what it waits for is there.

        Raises:
            NormlabError: it ended with another code, or took too long.
        """
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as said:
            places = {"folder": folder, "root": str(root())}
            words = [sys.executable, *(word.format(**places) for word in self.words)]
            threads = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
            began = time.perf_counter()
            child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, **threads},
                start_new_session=True,  # so that its own children can be ended with it
            )
            try:
                there = self._wait(child, Path(folder), began)
                seconds = time.perf_counter() - began
            finally:
                _end(child)
            if not there and (child.returncode != self.code or self.until is not None):
                said.seek(0)
                last = (said.read().strip().splitlines() or ["saying nothing"])[-1]
                raise NormlabError(f"{self.name} ended with code {child.returncode}: {last}")
        return {"seconds": seconds}

    def _wait(self, child: subprocess.Popen[bytes], folder: Path, began: float) -> bool:
        """Whether what it waits for is there; without such a thing, until the command ends."""
        if self.until is None:
            try:
                child.wait(LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                raise NormlabError(f"{self.name} took over {LIMIT_SECONDS:.0f} s.") from None
            return False
        while child.poll() is None and time.perf_counter() - began < LIMIT_SECONDS:
            if self.until(folder):
                return True
            time.sleep(_POLL_SECONDS)
        return False


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End a command and whatever it started."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def trained(folder: Path) -> bool:
    """Whether the event file of a run below the folder holds the loss of a training step."""
    runs = {path.parent for path in folder.rglob(EVENT_FILES)}
    return any(tags.TRAIN_LOSS in read_events(run).scalars for run in runs)
