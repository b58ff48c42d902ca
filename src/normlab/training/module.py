"""The Lightning module: loss, optimizer, schedule. It builds nothing and logs nothing."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.config.schema import TrainConfig
from normlab.data import IGNORED
from normlab.training.lightning import pl
from normlab.training.optimizer import PlainAdamW
from normlab.training.schedules import factor


class LanguageModel(pl.LightningModule):
    """Next-token prediction with any model from tokens (B, T) to logits (B, T, V)."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.gradient_norm = torch.zeros(())  # before clipping, of the last update
        self.validation_loss = float("nan")  # of the last validation, nats per token
        self._loss_sum = torch.zeros(())
        self._scored = torch.zeros((), dtype=torch.int64)

    def training_step(self, batch: Any, index: int) -> Tensor:
        """Mean loss of a batch, in nats per token."""
        return self._loss(batch, "mean")

    def on_validation_epoch_start(self) -> None:
        """Start the mean over the whole of the validation windows."""
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self._sum_device)
        self._scored = torch.zeros((), dtype=torch.int64, device=self.device)

    def validation_step(self, batch: Any, index: int) -> None:
        """Add a batch to the mean; each scored token weighs the same."""
        self._loss_sum += self._loss(batch, "sum").to(self._loss_sum)
        self._scored += (batch[1] != IGNORED).sum()

    def on_validation_epoch_end(self) -> None:
        """The mean over all windows."""
        self.validation_loss = self.mean_so_far()

    def mean_so_far(self) -> float:
        """Of the validation that is under way, in nats per token."""
        return self._loss_sum.item() / max(1, int(self._scored.item()))

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
        optimizer = PlainAdamW(
            [group for group in groups if group["params"]],
            lr=config.optimizer.lr,
            betas=(first, second),
            eps=config.optimizer.eps,
            fused=self.device.type in ("cpu", "cuda"),
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: factor(config.schedule, step, config.trainer.max_steps)
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
        limit = self.config.trainer.gradient_clip
        self.gradient_norm = nn.utils.clip_grad_norm_(
            self.parameters(), float("inf") if limit is None else limit, foreach=True
        )

    def _loss(self, batch: Any, reduction: str) -> Tensor:
        tokens, targets = batch
        logits = self.model(tokens)
        return F.cross_entropy(
            logits.flatten(0, 1).float(),
            targets.flatten(),
            ignore_index=IGNORED,
            reduction=reduction,
        )

    @property
    def _sum_device(self) -> torch.device:
        # MPS has no float64.
        return torch.device("cpu") if self.device.type == "mps" else self.device
