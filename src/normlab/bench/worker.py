"""The other end of process.py: calls one contender's function and hands it its turns."""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from typing import IO, Any

from normlab.errors import NormlabError


class Turns:
    """What a contender is asked for, one block at a time."""

    def __init__(self, orders: IO[str], answers: IO[str]) -> None:
        self._orders = orders
        self._answers = answers

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The turns, until there are no more; asking for the first says that all is set up."""
        self.report()
        while (turn := self.wait()) is not None:
            yield turn

    def wait(self) -> dict[str, Any] | None:
        """The next turn, when it comes; None when there are no more."""
        line = self._orders.readline()
        return dict(json.loads(line)) if line else None

    def report(self, **quantities: float | str) -> None:
        """Answer a turn with what it cost (or, before the first, that all is set up)."""
        self._answers.write(json.dumps(quantities) + "\n")
        self._answers.flush()


def main() -> None:
    """Read one order from stdin, then turns; answer on stdout, where nothing else may write."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a package that prints must not answer for the contender
    turns = Turns(sys.stdin, answers)
    order = turns.wait()
    if order is None:
        return
    module, _, name = order["function"].partition(":")
    try:
        getattr(importlib.import_module(module), name)(turns, **order["arguments"])
    except NormlabError as error:
        turns.report(error=str(error))
    except Exception as error:
        turns.report(error=f"{type(error).__name__}: {' '.join(str(error).split())}")
        raise


def peak_mib() -> float:
    """The most memory this process has held so far, in MiB."""
    try:
        # ru_maxrss would begin at what the parent held when it started this process.
        with open("/proc/self/status", encoding="ascii") as lines:
            return next(float(line.split()[1]) for line in lines if "VmHWM" in line) / 1024
    except FileNotFoundError:  # not Linux
        import resource

        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    main()
