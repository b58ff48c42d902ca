"""Checkpoints that are whole or not there: `last.ckpt` and `best.ckpt`."""

import errno
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from normlab.archive.durable import write_with
from normlab.archive.record import BEST_CHECKPOINT, LAST_CHECKPOINT
from normlab.errors import NormlabError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a sibling file, flushes it to disk and renames it.

    Lightning's own goes through the temporary folder, which may be another filesystem.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write `checkpoint` to `path`. Raises OSError, leaving what was there."""
        try:
            write_with(Path(path), lambda draft: torch.save(checkpoint, draft))
        except RuntimeError as error:
            # torch's writer says "unexpected pos" where the disk is full.
            if "unexpected pos" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise


class Checkpoints(pl.Callback):
    """Keeps the weights of the lowest validation loss, and the whole state at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best = float("inf")

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Keep the weights if they are the best so far."""
        loss = float(module.validation_loss)  # type: ignore[arg-type]
        if loss < self.best:
            self.best = loss
            trainer.save_checkpoint(self.folder / BEST_CHECKPOINT, weights_only=True)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Keep everything that is needed to go on."""
        trainer.save_checkpoint(self.folder / LAST_CHECKPOINT)


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """The model's weights in a checkpoint, by parameter name.

    Raises:
        NormlabError: it is not a checkpoint of normlab's.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        state = checkpoint["state_dict"]
        return {name.removeprefix("model."): tensor for name, tensor in state.items()}
    except Exception as error:  # torch.load raises a dozen kinds on a damaged file
        raise NormlabError(
            f"{path} is damaged or no checkpoint of normlab's; give one that a run wrote, "
            f"{LAST_CHECKPOINT} or {BEST_CHECKPOINT} in its folder."
        ) from error
