"""Follows a run: curves to TensorBoard, divergence, speed, and what the record will say."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from normlab.archive import tags
from normlab.archive.record import BestNumbers
from normlab.training.hardware import wait_for_cuda
from normlab.training.lightning import pl
from normlab.training.module import ValidationLoss
from normlab.training.tensorboard import RunLogger

# Steps in a row above the limit before a run counts as diverged: one bad batch is not enough.
DIVERGENCE_PATIENCE_STEPS = 20
# Slow batches are shown at least this often (seconds), between what is logged.
LONGEST_SILENCE_SECONDS = 15.0


class Display(Protocol):
    """Where a run reports how it goes on, without knowing who watches."""

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Called at every `trainer.log_every` steps, and between slow ones; nats per token."""

    def say(self, sentence: str) -> None:
        """Called with what a user should know of a run that is not as it was left."""


@dataclass
class Progress:
    """How far a run has come; losses in nats per token."""

    step: int = 0
    train_loss: float | None = None  # of the last finite step
    val_loss: float | None = None  # None when not finite, and so the next two
    selection_loss: float | None = None
    test_loss: float | None = None
    val_step: int | None = None
    best: BestNumbers = field(default_factory=BestNumbers)
    diverged_step: int | None = None
    reason: str | None = None
    tokens: int = 0
    train_seconds: float = 0.0

    def is_improved_by(self, loss: float) -> bool:
        """Whether a validation loss is lower than all before it."""
        best = self.best.val_loss
        return math.isfinite(loss) and (best is None or loss < best)

    @property
    def tokens_per_second(self) -> float | None:
        """Speed of training alone, without validation and checkpoints."""
        return self.tokens / self.train_seconds if self.train_seconds else None


@dataclass
class PlainRecorderState:
    """What a recorder needs to go on between two steps, without the steps still to be logged."""

    progress: Progress
    above: int
    tokens: int
    elapsed: float


class Recorder(pl.Callback):
    """Reads the losses of the last steps together, so that no step waits for the device."""

    def __init__(
        self,
        logger: RunLogger,
        display: Display,
        interval: int,
        limit: float,
        accumulate: int,
        scaled: bool = False,
    ) -> None:
        """`scaled`: a step whose gradients overflow is left out, and the scale made smaller."""
        self.logger = logger
        self.display = display
        self.interval = interval
        self.limit = limit
        self.accumulate = accumulate
        self.scaled = scaled
        self.progress = Progress()
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._micro: list[Tensor] = []
        self._above = 0
        self._tokens = 0
        self._elapsed = 0.0  # seconds of training since the last flush, before a stop
        self._clock = time.perf_counter()
        self._displayed_at = time.monotonic()

    @property
    def between_steps(self) -> bool:
        """Whether no optimizer step is under way."""
        return not self._micro

    def state_dict(self) -> dict[str, Any]:
        """What it needs to go on between two steps, with the losses that are still to be logged."""
        elapsed = time.perf_counter() - self._clock
        plain = PlainRecorderState(self.progress, self._above, self._tokens, elapsed)
        return {
            **asdict(plain),
            "losses": torch.stack(self._losses) if self._losses else None,
            "norms": torch.stack(self._norms) if self._norms else None,
        }

    def restore_state(
        self, state: PlainRecorderState, waiting: tuple[Tensor, Tensor] | None
    ) -> None:
        """Go on from a saved state; `waiting` are losses and norms that are still to be logged."""
        self.progress = deepcopy(state.progress)
        losses, norms = waiting or ((), ())
        self._losses, self._norms = list(losses), list(norms)
        self._above, self._tokens, self._elapsed = state.above, state.tokens, state.elapsed

    def keep_steps(self, losses: Tensor, norms: Tensor, tokens: int, elapsed: float) -> None:
        """Keep optimizer steps, (n,) losses and gradient norms, that are still to be logged.

        They replace those that were kept; `tokens` and `elapsed` seconds are what they took.
        """
        self._losses, self._norms = list(losses), list(norms)
        self._tokens = tokens
        self._clock = time.perf_counter() - elapsed

    @contextmanager
    def clock_stopped(self) -> Iterator[None]:
        """Do something that is no training."""
        wait_for_cuda()  # steps that it has still to compute are training
        began = time.perf_counter()
        yield
        wait_for_cuda()
        self._clock += time.perf_counter() - began

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock after everything is built; a saved state was read onto the CPU."""
        self._losses = [loss.to(module.device) for loss in self._losses]
        self._norms = [norm.to(module.device) for norm in self._norms]
        self._clock = time.perf_counter() - self._elapsed

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep the loss; every so many optimizer steps read what was kept."""
        self._tokens += batch[0].numel()
        self._micro.append(outputs["loss"].detach())
        if time.monotonic() - self._displayed_at >= LONGEST_SILENCE_SECONDS:
            # Lightning has divided the loss by the number of batches in a step.
            loss = float(self._micro[-1]) * self.accumulate
            speed = self._tokens / (time.perf_counter() - self._clock)
            self._show(trainer.global_step, loss, speed)
        if len(self._micro) < self.accumulate:
            return
        self._losses.append(torch.stack(self._micro).sum())
        self._norms.append(module.gradient_norm)  # type: ignore[arg-type]
        self._micro.clear()
        if len(self._losses) >= self.interval:
            self._flush(trainer, module)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Read what is kept, and stop the clock of training."""
        self._flush(trainer, module)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show that a slow validation goes on, by its own loss."""
        if time.monotonic() - self._displayed_at >= LONGEST_SILENCE_SECONDS:
            speed = self.progress.tokens_per_second or 0.0
            self._show(trainer.global_step, module.mean_so_far(), speed)  # type: ignore[operator]

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write the validation loss of these weights; start the clock of training again."""
        self.record_validation(module.validation_loss, trainer.global_step)  # type: ignore[arg-type]
        self._clock = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Read what is still kept."""
        self._flush(trainer, module)

    def record_validation(self, loss: ValidationLoss, step: int) -> None:
        """Write the validation loss of the weights after `step` updates."""
        progress = self.progress
        progress.val_step = step
        progress.val_loss, progress.selection_loss, progress.test_loss = (
            number if math.isfinite(number) else None
            for number in (loss.all_windows, loss.selection, loss.test)
        )
        if progress.is_improved_by(loss.all_windows):
            progress.best = BestNumbers(loss.all_windows, step)
        self.logger.write_scalar(tags.VALIDATION_LOSS, loss.all_windows, step)
        if progress.best.val_loss is not None:
            self.logger.write_scalar(tags.BEST_VALIDATION_LOSS, progress.best.val_loss, step)

    def _flush(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not self._losses:
            return
        # The one wait for the device.
        losses, norms = torch.stack((torch.stack(self._losses), torch.stack(self._norms))).tolist()
        self._losses.clear()
        self._norms.clear()
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        tokens, self._tokens = self._tokens, 0
        optimizer = module.optimizers(use_pl_optimizer=False)
        # The schedule has already moved on; this is the rate of the next update.
        rate = optimizer.param_groups[0]["lr"]  # type: ignore[union-attr]
        self.record_steps(losses, norms, tokens, seconds, rate)
        if self.progress.diverged_step is not None:
            trainer.should_stop = True

    def record_steps(
        self, losses: list[float], norms: list[float], tokens: int, seconds: float, rate: float
    ) -> None:
        """Write the losses (nats per token) and gradient norms of the next optimizer steps.

        `tokens` and `seconds` are what these steps took, `rate` is the learning rate after them.
        Where a step has diverged, `progress.diverged_step` says which.
        """
        progress = self.progress
        progress.train_seconds += seconds
        progress.tokens += tokens
        speed = tokens / seconds
        first = progress.step
        for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), first):
            self._check_divergence(loss, norm, step)
            self.logger.write_scalar(tags.TRAIN_LOSS, loss, step)
        progress.step = first + len(losses)
        self.logger.write_scalar(tags.GRADIENT_NORM, norms[-1], progress.step - 1)
        self.logger.write_scalar(tags.LEARNING_RATE, rate, progress.step)
        self.logger.write_scalar(tags.TOKENS_PER_SECOND, speed, progress.step - 1)
        self._show(progress.step, losses[-1], speed)

    def _show(self, step: int, loss: float, speed: float) -> None:
        self._displayed_at = time.monotonic()
        self.display.update(step, loss, speed)

    def _check_divergence(self, loss: float, norm: float, step: int) -> None:
        progress = self.progress
        if progress.diverged_step is not None:
            return
        self._above = self._above + 1 if loss > self.limit else 0
        if not math.isfinite(loss):
            progress.diverged_step = step
            progress.reason = f"the loss of step {step} is {loss}"
        elif not math.isfinite(norm) and not self.scaled:
            progress.diverged_step = step
            progress.reason = f"the gradient norm of step {step} is {norm}"
        elif self._above >= DIVERGENCE_PATIENCE_STEPS:
            progress.diverged_step = step
            progress.reason = (
                f"the loss stood above {self.limit:.3g} for {DIVERGENCE_PATIENCE_STEPS} steps"
            )
        else:
            progress.train_loss = loss
