"""What is measured, and the one way to measure: a block of each in turn, round after round."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Protocol

Quantities = Mapping[str, float]
Samples = dict[str, list[dict[str, float]]]

# Threads of a parallel region that has ended go on spinning for some milliseconds.
REST_SECONDS = 0.05


class Contender(Protocol):
    """Something whose cost is measured beside others."""

    @property
    def name(self) -> str:
        """What tells it apart, in tables and files."""

    def start(self) -> None:
        """Make everything ready; called once, maybe beside another contender's start."""

    def block(self) -> Quantities:
        """Do the work once, and say what it cost."""

    def stop(self) -> None:
        """Leave nothing behind; called in any case, also without a start."""


def interleave(
    contenders: Sequence[Contender],
    rounds: int,
    warm_up: int = 1,
    rest: float = REST_SECONDS,
    progress: Callable[[str], None] = lambda sentence: None,
) -> Samples:
    """Measure A B C A B C …: for each contender, its quantities in each of so many rounds.

    The rounds of `warm_up` come first and are not kept; nothing else runs for `rest` seconds
    before a block.

    Raises:
        NormlabError: a contender could not be started, or fell.
    """
    samples: Samples = {contender.name: [] for contender in contenders}
    with ExitStack() as stack:
        for contender in contenders:
            stack.callback(contender.stop)
        progress(f"starting {len(contenders)} contenders")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda contender: contender.start(), contenders))
        for number in range(-warm_up, rounds):
            for contender in contenders:
                which = f"round {number + 1} of {rounds}" if number >= 0 else "warm-up"
                progress(f"{which}: {contender.name}")
                time.sleep(rest)
                found = contender.block()
                if number >= 0:
                    samples[contender.name].append(dict(found))
    return samples
