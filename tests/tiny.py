"""A run so small that a test can train it, and a display that shows nothing."""

TINY = (
    "model.depth=2",
    "model.width=16",
    "model.heads=2",
    "model.context=16",
    "data.batch_size=4",
    "data.validation_sequences=16",
    "trainer.max_steps=6",
    "trainer.val_every=3",
    "trainer.log_every=2",
    "trainer.precision=32-true",
    "trainer.threads=1",
)


class Silent:
    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        pass
