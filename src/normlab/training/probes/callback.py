"""Probes while a run trains: before the update of every so many steps, and of the last."""

from typing import Any

from torch import Tensor

from normlab.training.lightning import pl
from normlab.training.probes.activations import Readings, activations, plain
from normlab.training.probes.parameters import (
    Weights,
    copied,
    gradient_norms,
    norm_parameters,
    update_ratios,
)
from normlab.training.recorder import Recorder


class Probes(pl.Callback):
    """Measures at steps 0, `every`, 2 · `every`, … and the last, and writes to TensorBoard.

    All of a step's points are written between two optimizer steps, and nothing is carried over, so
    a run that goes on from a saved state writes each of them once. Comes after the recorder, whose
    clock it stops: speed is that of training.
    """

    def __init__(self, every: int, steps: int, recorder: Recorder) -> None:
        self.every = every
        self.last = steps - 1
        self.recorder = recorder
        self._step: int | None = None  # the step that is being measured
        self._readings: Readings = {}
        self._several: dict[tuple[str, str], Tensor] = {}
        self._before: Weights = {}

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure the weights that the step begins with, on its first batch."""
        step = trainer.global_step
        if not self.recorder.between_steps or (step % self.every and step != self.last):
            return
        with self.recorder.clock_stopped():
            with trainer.precision_plugin.forward_context():
                self._readings = activations(module.model, batch[0])
            readings, self._several = norm_parameters(module.model)
            self._readings |= readings
            self._before = copied(module.model)
        self._step = step

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Any, optimizer: Any) -> None:
        """Measure the gradients of the whole step, which nothing has clipped yet."""
        if self._step is not None:
            with self.recorder.clock_stopped():
                self._readings |= gradient_norms(module.model)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure the update, and write all."""
        if self._step is None or not self.recorder.between_steps:
            return
        with self.recorder.clock_stopped():
            self._readings |= update_ratios(module.model, self._before)
            logger = self.recorder.logger
            logger.probes(plain(self._readings), self._step)
            for (quantity, site), values in self._several.items():
                logger.histogram(quantity, site, values, self._step)
        self._step, self._readings, self._several, self._before = None, {}, {}, {}
