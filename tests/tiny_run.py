"""A run so small that a test can train it, and displays that show nothing."""

import os
import signal
from collections.abc import Sequence

TINY = (
    "model.depth=2",
    "model.width=16",
    "model.heads=2",
    "model.context=16",
    "data.batch_size=4",
    "data.validation_windows=16",
    "trainer.max_steps=6",
    "trainer.val_every=3",
    "trainer.log_every=2",
    "trainer.precision=32-true",
    "trainer.threads=1",
)


def keep_last(arguments: Sequence[str]) -> list[str]:
    """The arguments without a key that a later one sets again, as a key of TINY that a test sets.

    On a command line a key may be given once.
    """
    keys = [word.partition("=")[0] if "=" in word else "" for word in arguments]
    return [
        word
        for at, (key, word) in enumerate(zip(keys, arguments, strict=True))
        if not key or key not in keys[at + 1 :]
    ]


class SilentDisplay:
    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        pass

    def say(self, sentence: str) -> None:
        pass


class InterruptingDisplay(SilentDisplay):
    """A display that sends this process a signal when a step has been shown, as a user would."""

    def __init__(self, after: int, signum: int = signal.SIGINT) -> None:
        self.after = after
        self.signum = signum
        self.sent = False

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        if step >= self.after and not self.sent:
            self.sent = True
            os.kill(os.getpid(), self.signum)
