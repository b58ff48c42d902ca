"""What a run tells whoever watches it, without knowing who that is."""

from typing import Protocol


class Display(Protocol):
    """A place to show how a run goes on."""

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Called at every `trainer.log_every` steps, and between slow ones; nats per token."""

    def say(self, sentence: str) -> None:
        """Called with what a user should know of a run that is not as it was left."""
