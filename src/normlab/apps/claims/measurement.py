"""What a measurement without training is: a function from a size to series of numbers."""

from collections.abc import Callable
from dataclasses import dataclass

Series = dict[str, list[float]]


@dataclass(frozen=True)
class Size:
    """How much is measured: seeds, blocks of the deepest model, rounds of a timing."""

    seeds: int
    depth: int
    rounds: int


SIZES = {
    "quick": Size(seeds=10, depth=32, rounds=15),
    "standard": Size(seeds=20, depth=32, rounds=60),
    "full": Size(seeds=30, depth=64, rounds=300),
}


@dataclass(frozen=True)
class Measurement:
    """A function from size to series, what it measures in a line, what a series goes over.

    The version goes up when the function comes to measure something else: what was kept is then
    measured again.
    """

    measure: Callable[[Size], Series]
    setup: str
    over: str = "seed"
    version: int = 1
