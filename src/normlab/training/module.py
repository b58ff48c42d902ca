"""What Lightning trains: batches by step, loss, AdamW and its learning-rate schedule."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.config.schema import Decay, ScheduleConfig, TrainConfig
from normlab.data import IGNORED, Batch, Source
from normlab.norms.norms import widen_precision
from normlab.training.compilation import compiler_error
from normlab.training.lightning import pl

Pair = tuple[Tensor, Tensor]


class TrainingBatches:
    """Batch i is a function of (seed, i): every run sees the same, and can go on exactly.

    `pinned` puts them where a GPU copies from while it computes.
    """

    def __init__(
        self, source: Source, seed: int, count: int, first: int = 0, pinned: bool = False
    ) -> None:
        self.source = source
        self.seed = seed
        self.count = count
        self.first = first
        self.pinned = pinned

    def __len__(self) -> int:
        # Of the full run: a run that continues after its last step must not have an empty loader.
        return self.count

    def __iter__(self) -> Iterator[Pair]:
        for index in range(self.first, self.count):
            tokens, targets = to_tensors(self.source.batch(self.seed, index))
            if self.pinned:
                tokens, targets = tokens.pin_memory(), targets.pin_memory()
            yield tokens, targets


class ValidationBatches:
    """The fixed validation windows, the same for every run on this data."""

    def __init__(self, source: Source) -> None:
        self.pairs = [to_tensors(batch) for batch in source.validation()]

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)


def to_tensors(batch: Batch) -> Pair:
    """Tokens and targets, each (B, T) int64, sharing the batch's memory."""
    return torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)


# Progress of the decay, 0 to 1, to how much of it is done.
_DECAYED: dict[Decay, Callable[[float], float]] = {
    Decay.constant: lambda progress: 0.0,
    Decay.linear: lambda progress: progress,
    Decay.cosine: lambda progress: (1 - math.cos(math.pi * progress)) / 2,
}


def learning_rate_factor(schedule: ScheduleConfig, step: int, max_steps: int) -> float:
    """Factor of the learning rate in the update after `step` updates, out of `max_steps`.

    Warm-up rises linearly to 1 (the first update already moves), then the rate stays at 1 until
    the last `decay_share` of the run, over which it falls to `final_ratio`.
    """
    warmup = round(schedule.warmup * max_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    start = max(warmup, round((1 - schedule.decay_share) * max_steps))
    progress = min(1.0, max(0.0, (step - start) / max(1, max_steps - start)))
    return 1 - (1 - schedule.final_ratio) * _DECAYED[schedule.decay](progress)


@dataclass(frozen=True)
class ValidationLoss:
    """Mean losses over validation windows, in nats per token; NaN where there are no windows.

    A study over learning rates takes each arm's best rate by `selection`, over the windows of even
    index, and compares the arms by `test`, over the others: a rate that suits some windows by
    chance is then no advantage.
    """

    all_windows: float
    selection: float
    test: float


class ValidationSums:
    """Adds up losses of validation windows; each scored token weighs the same."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []  # (..., 2) of each batch: windows of even index, of odd
        self._scored: list[Tensor] = []  # (2,)
        self._windows = 0

    def add(self, losses: Tensor, targets: Tensor) -> None:
        """Add a batch of windows: losses (..., B, T) in nats and targets (B, T)."""
        even = self._windows % 2
        halves = slice(even, None, 2), slice(1 - even, None, 2)
        scored = targets != IGNORED
        self._sums.append(torch.stack([losses[..., half, :].sum((-2, -1)) for half in halves], -1))
        self._scored.append(torch.stack([scored[half].sum() for half in halves]))
        self._windows += len(targets)

    def means(self) -> Tensor:
        """(..., 3) fp64: over all windows so far, those of even and those of odd index."""
        # First to the CPU: MPS has no float64.
        sums = torch.stack(self._sums).cpu().double().sum(0)
        scored = torch.stack(self._scored).cpu().sum(0)
        return torch.cat([sums.sum(-1, keepdim=True) / scored.sum(), sums / scored], -1)


class LanguageModel(pl.LightningModule):
    """Next-token prediction with any model from tokens (B, T) to logits (B, T, V)."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.gradient_norm = torch.zeros(())  # before clipping, of the last update
        self.validation_loss = ValidationLoss(math.nan, math.nan, math.nan)  # of the last one
        self._sums = ValidationSums()

    def training_step(self, batch: Any, index: int) -> Tensor:
        """Mean loss of a batch, in nats per token."""
        return self._loss(batch, "mean")

    def on_validation_epoch_start(self) -> None:
        """Start the mean over the whole of the validation windows."""
        self._sums = ValidationSums()

    def validation_step(self, batch: Any, index: int) -> None:
        """Add a batch to the mean."""
        self._sums.add(self._loss(batch, "none").view_as(batch[1]), batch[1])

    def on_validation_epoch_end(self) -> None:
        """The mean over all windows."""
        self.validation_loss = ValidationLoss(*self._sums.means().tolist())

    def mean_so_far(self) -> float:
        """Of the validation that is under way, in nats per token."""
        return self._sums.means()[0].item()

    def configure_optimizers(self) -> Any:
        """AdamW, with weight decay on matrices only, and a schedule that moves every step."""
        config = self.config
        parameters = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {
                "params": [p for p in parameters if p.dim() >= 2],
                "weight_decay": config.optimizer.weight_decay,
            },
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        first, second = config.optimizer.betas
        optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.optimizer.lr,
            betas=(first, second),
            eps=config.optimizer.eps,
            # With 16-mixed the gradients are unscaled before they are clipped; the fused kernel
            # would do so after it.
            fused=self.device.type in ("cpu", "cuda") and config.trainer.precision != "16-mixed",
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: learning_rate_factor(config.schedule, step, config.trainer.max_steps),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the global norm, and keep that norm (one pass over the gradients, no sync)."""
        self.gradient_norm = nn.utils.clip_grad_norm_(
            self.parameters(), clip_limit(self.config), foreach=True
        )

    def _loss(self, batch: Any, reduction: str) -> Tensor:
        tokens, targets = batch
        return token_loss(self.model(tokens), targets, reduction)


def token_loss(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """Cross-entropy in nats, over targets that are not IGNORED; in fp32 or more.

    `logits` are (B, T, vocabulary), `targets` (B, T); `reduction` is that of `F.cross_entropy`.
    """
    return F.cross_entropy(
        widen_precision(logits.flatten(0, 1)),
        targets.flatten(),
        ignore_index=IGNORED,
        reduction=reduction,
    )


def clip_limit(config: TrainConfig) -> float:
    """The largest norm of the gradient; infinite where it is not clipped."""
    limit = config.trainer.gradient_clip
    return float("inf") if limit is None else limit


def compile_model(
    trainer: pl.Trainer, module: LanguageModel, training: Pair, validation: Pair, graphs: bool
) -> None:
    """Compile the module's model for both kinds of batch.

    With `graphs`, into CUDA graphs: a step's kernels are then launched as one.

    What torch has compiled before, in this run or another, it finds in its own cache on disk.
    Weights, gradients and random numbers are left as they were.

    Raises:
        NormlabError: it cannot be compiled here; `module.model` is then one that is not compiled.
    """
    module.to(trainer.strategy.root_device)
    torch.compiler.reset()  # what was compiled for other runs counts towards a limit
    # In place: the module that torch.compile(model) returns puts `_orig_mod.` before every name in
    # a checkpoint.
    module.model.compile(mode="reduce-overhead" if graphs else None)
    try:
        with _fork_random(trainer):
            _run_training_pass(trainer, module, training)
            _run_validation_pass(trainer, module, validation)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        module.zero_grad(set_to_none=True)
        module.model = copy(module.model)  # the same weights, without what `compile` has added
        raise compiler_error("this model", error) from error


def prepare_uncompiled_step(
    trainer: pl.Trainer, module: LanguageModel, training: Pair
) -> Callable[[], None]:
    """A function that takes a step's forward and backward pass, to be timed; taken once already.

    Weights, gradients and random numbers are left as they were.
    """
    module.to(trainer.strategy.root_device)

    def take_step() -> None:
        with _fork_random(trainer):
            _run_training_pass(trainer, module, training)

    take_step()
    return take_step


def _fork_random(trainer: pl.Trainer) -> AbstractContextManager[None]:
    """Random numbers are afterwards what they were, on the CPU and on the run's own card."""
    device = trainer.strategy.root_device
    # By default fork_rng opens a context on every card of the machine.
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


# Both in Lightning's own contexts: in another one the model would be compiled once more.


def _run_training_pass(trainer: pl.Trainer, module: LanguageModel, batch: Pair) -> None:
    batch = _move_batch(module, batch)
    with trainer.precision_plugin.forward_context():
        module.train()
        loss = module.training_step(batch, 0)
    torch.autograd.backward(loss)
    module.zero_grad(set_to_none=True)


def _run_validation_pass(trainer: pl.Trainer, module: LanguageModel, batch: Pair) -> None:
    batch = _move_batch(module, batch)
    module.eval()
    try:
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            module.on_validation_epoch_start()
            module.validation_step(batch, 0)
    finally:
        module.train()


def _move_batch(module: LanguageModel, batch: Pair) -> Pair:
    tokens, targets = batch
    return tokens.to(module.device), targets.to(module.device)
