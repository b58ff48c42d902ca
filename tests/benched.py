"""Contenders for the tests of the bench: what its workers and its own loop can be given."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from normlab.bench.worker import Turns
from normlab.errors import NormlabError


@dataclass
class Fake:
    """Costs what a function of its block's number says, and writes down what is done with it."""

    name: str
    diary: list[str]
    cost: Callable[[int], float] = float
    blocks: int = field(default=0)

    def start(self) -> None:
        self.diary.append(f"start {self.name}")

    def block(self) -> dict[str, float]:
        self.diary.append(self.name)
        self.blocks += 1
        return {"ms": self.cost(self.blocks)}

    def stop(self) -> None:
        self.diary.append(f"stop {self.name}")


def doubling(turns: Turns, factor: float) -> None:
    sys.stdout.write("a package that greets\n")
    for turn in turns:
        sys.stdout.write("and goes on talking\n")
        turns.report(twice=2 * turn["steps"] * factor, pid=float(os.getpid()))


def refusing(turns: Turns) -> None:
    raise NormlabError("it will not")


def breaking(turns: Turns) -> None:
    for _ in turns:
        raise ValueError("two\nlines")


def dying(turns: Turns) -> None:
    for _ in turns:
        os.write(2, b"last words\n")
        os._exit(7)


def threads(turns: Turns) -> None:
    import torch

    for _ in turns:
        turns.report(threads=torch.get_num_threads())
