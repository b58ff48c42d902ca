"""A learner's file checked: it runs in a process of its own, under a limit of time and memory."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from normlab.apps.learn.check_process import READY_FILE, RESULT_FILE
from normlab.apps.learn.exercises import Exercise
from normlab.archive.files import read_text, suggest_closest_path
from normlab.errors import ConfigError, NormlabError
from normlab.text import excerpt, printable

_POLL_SECONDS = 0.05
# Until torch is imported: on a busy machine that takes some ten seconds.
_MOST_START_SECONDS = 300.0
# What a check was stopped at: the import of torch, or the learner's file; or it was not stopped.
_Late = Literal["", "start", "time"]
_MOST_PRINTED = 2_000  # characters of the file's own output that are shown


@dataclass(frozen=True)
class CheckResult:
    """What a check has measured.

    Attributes:
        passed: whether the solution is right.
        sentence: the mistake, with numbers; empty where there is none.
        printed: what the file wrote to the terminal.
    """

    passed: bool
    sentence: str
    printed: str = ""


def refuse_other_file(path: Path, exercise: Exercise) -> None:
    """Refuse what is no file, or not of the exercise's kind, before anything is started.

    Raises:
        ConfigError: with what to do.
    """
    if not path.is_file():
        raise ConfigError(
            f"{excerpt(path)} is not a file; {suggest_closest_path(path)}`normlab-learn start "
            f"{exercise.name}` makes outputs/learn/{exercise.file_name}."
        )
    if path.suffix != exercise.suffix:
        raise ConfigError(
            f"{excerpt(path)} does not end in {exercise.suffix}, as the file of the exercise "
            f"{exercise.name} does; give that file."
        )


def check_file(path: Path, exercise: Exercise, seconds: float) -> CheckResult:
    """Run the learner's file, which exists, and measure its solution.

    `seconds` limits the time after torch is imported.

    Raises:
        NormlabError: the process could not be started.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _start_process(exercise.name, path.resolve(), folder) as process:
            late = _wait_for_process(process, folder, seconds)
        return _read_verdict(folder, process.returncode, late, seconds)


@contextmanager
def _start_process(exercise: str, path: Path, folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """The process; whatever happens, it and what it has started are gone in the end."""
    # -P: a file named torch.py in the current folder must not take torch's place. -B: the learner's
    # folder holds what the learner writes, and no compiled files.
    command = [sys.executable, "-P", "-B", "-m", "normlab.apps.learn.check_process"]
    # No GPU: what it maps would not fit into the limit of memory, and no exercise needs one. UTF-8,
    # because that is how the output is read here; a lone surrogate is printed as a question mark.
    environment = {
        **os.environ,
        "PYTHONIOENCODING": "utf-8:replace",
        "CUDA_VISIBLE_DEVICES": "",
    }
    # A file and no pipe: nobody reads while the check runs, and a full pipe would stop the process.
    with (folder / "printed").open("wb") as printed:
        try:
            process = subprocess.Popen(
                [*command, exercise, str(path), str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C is for this process, which ends that one
            )
        except OSError as error:
            raise NormlabError(
                f"the file cannot be checked, because no process can be started "
                f"({error.strerror}); close other programs, then try again."
            ) from error
        try:
            yield process
        finally:
            _end_process(process)


def _end_process(process: "subprocess.Popen[bytes]") -> None:
    """End it, and what it has started, which is in the group of its own session.

    What it has started may go on where it has ended by itself.
    """
    if hasattr(os, "killpg"):
        # No process is left in the group; on macOS, none but one that has ended.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
    process.wait()


def _wait_for_process(process: "subprocess.Popen[bytes]", folder: Path, limit: float) -> _Late:
    """What took too long; the clock of the check starts when torch is imported."""
    began = time.monotonic()
    allowed = _MOST_START_SECONDS
    is_ready = False
    while process.poll() is None:
        if not is_ready and (folder / READY_FILE).exists():
            is_ready, began, allowed = True, time.monotonic(), limit
        if time.monotonic() - began > allowed:
            return "time" if is_ready else "start"
        time.sleep(_POLL_SECONDS)
    return ""


def _read_verdict(folder: Path, code: int, late: _Late, limit: float) -> CheckResult:
    output = (folder / "printed").read_bytes()  # the process may not write much
    # A character takes up to 4 bytes in UTF-8.
    printed = printable(output[: 4 * _MOST_PRINTED].decode("utf-8", "replace"))
    printed_excerpt = printed if len(printed) <= _MOST_PRINTED else f"{printed[:_MOST_PRINTED]}…"
    if late == "start":
        sentence = (
            f"the check could not start within {_MOST_START_SECONDS:g} s, because torch was still "
            f"being imported; try again when the machine is less busy."
        )
    elif late == "time":
        sentence = f"the check was stopped after {limit:g} s; is there a loop that does not end?"
    else:
        try:
            verdict = json.loads(read_text(folder / RESULT_FILE))
            return CheckResult(verdict["passed"], verdict["sentence"], printed_excerpt)
        except (OSError, ValueError):
            sentence = _describe_end(output, code)
    return CheckResult(False, sentence, printed_excerpt)


def _describe_end(output: bytes, code: int) -> str:
    """How a process ended that has left no verdict, and the last line that it printed."""
    how = f"ended with code {code}"
    if code < 0:  # the number of the signal that ended it
        name = next((s.name for s in signal.Signals if s == -code), f"signal {-code}")
        how = f"crashed ({name})"
        if name == "SIGKILL":
            how = "was killed (SIGKILL), by the file or because memory ran out,"
    end = printable(output[-_MOST_PRINTED:].decode("utf-8", "replace")).strip()
    last = f"; it last printed: {excerpt(end.splitlines()[-1], 200)}" if end else ""
    return f"the process that ran the file {how} before the check was over{last}."
