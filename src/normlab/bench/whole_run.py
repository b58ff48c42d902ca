"""What runs in the worker of `step` that trains as train.py does: Lightning, logging, records."""

import tempfile
import time

from normlab.bench.compose import specified
from normlab.bench.worker import Turns, peak_mib
from normlab.errors import NormlabError
from normlab.training.run import train

# So that a run goes on for as long as it is measured.
ENDLESS = ("trainer.max_steps=1000000", "trainer.val_every=1000000", "trainer.save_seconds=1e9")


def whole(turns: Turns, overrides: list[str]) -> None:
    """A run of normlab's own; turns ask for so many `steps`, a multiple of `trainer.log_every`."""
    with tempfile.TemporaryDirectory() as folder:
        spec = specified([*overrides, f"output_dir={folder}", *ENDLESS])
        turnstile = _Turnstile(turns)
        record = train(spec, "bench", turnstile)
        if not turnstile.left:
            raise NormlabError(record.reason or record.state)


class _LeftError(Exception):
    pass


class _Turnstile:
    """A display that holds the run between two turns, and times it between two updates."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.left = False
        self._first = self._last = 0
        self._began = 0.0

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        if step < self._last:
            return
        seconds = time.perf_counter() - self._began
        if self._last:
            done = step - self._first
            self.turns.report(ms=1000 * seconds / done, rss_mib=peak_mib())
        else:
            self.turns.report()  # the first steps are there: set up
        turn = self.turns.wait()
        if turn is None:
            self.left = True
            raise _LeftError
        self._first, self._last = step, step + turn["steps"]
        self._began = time.perf_counter()

    def say(self, sentence: str) -> None:
        pass
