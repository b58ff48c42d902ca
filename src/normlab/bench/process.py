"""A contender in a process of its own, which sleeps on a pipe while the others are measured."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Timer
from typing import IO, Any

from normlab.errors import NormlabError

# A block, or a set-up, that takes longer will not end.
LIMIT_SECONDS = 600.0


@dataclass
class Process:
    """Runs `module:function` of the protocol in a fresh Python process.

    Attributes:
        arguments: for the function, as JSON can hold them.
        turn: what every block is asked for.
        threads: of its torch; None leaves it to torch.
        environment: variables that are different for this contender.
    """

    name: str
    function: str
    arguments: dict[str, Any]
    turn: dict[str, Any] = field(default_factory=dict)
    threads: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    _child: subprocess.Popen[str] | None = None
    _errors: IO[str] | None = None

    def start(self) -> None:
        """Start the process and wait until it is set up.

        Raises:
            NormlabError: it could not be set up.
        """
        threads = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
        # Open as long as the process lives, which is no block of code.
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._child = subprocess.Popen(
            [sys.executable, "-m", "normlab.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **threads, **self.environment},
        )
        self._ask({"function": self.function, "arguments": self.arguments})

    def block(self) -> dict[str, float]:
        """One block of the kind that `turn` says."""
        return self.ask(self.turn)

    def ask(self, turn: dict[str, Any]) -> dict[str, float]:
        """One block of another kind.

        Raises:
            NormlabError: the process fell, said why it cannot, or took too long.
        """
        return self._ask(turn)

    def stop(self) -> None:
        """End the process: politely, then not."""
        if self._child is not None:
            child, self._child = self._child, None
            try:
                child.communicate(timeout=20)  # closes its input, which ends its turns
            except (subprocess.TimeoutExpired, BrokenPipeError):
                child.kill()
                child.wait()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _ask(self, order: dict[str, Any]) -> dict[str, float]:
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        timer = Timer(LIMIT_SECONDS, child.kill)
        timer.start()
        try:
            child.stdin.write(json.dumps(order) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        answer = json.loads(line) if line.endswith("\n") else {"error": self._last_words(child)}
        if "error" in answer:
            raise NormlabError(f"the contender {self.name} failed: {answer['error']}")
        return dict(answer)

    def _last_words(self, child: subprocess.Popen[str]) -> str:
        child.wait()
        assert self._errors is not None
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return f"it ended with code {child.returncode} ({lines[-1] if lines else 'saying nothing'})"


def installed(package: str) -> bool:
    """Whether a package can be imported here, without importing it."""
    return importlib.util.find_spec(package) is not None
