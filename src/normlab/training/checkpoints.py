"""Checkpoints that are whole or not there: `last.ckpt`, the one before it, and `best.ckpt`."""

import errno
import os
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from normlab.archive.durable import replacing
from normlab.archive.lock import Lock
from normlab.archive.record import (
    BEST_CHECKPOINT,
    LAST_CHECKPOINT,
    PREVIOUS_CHECKPOINT,
    RUN_FILE,
)
from normlab.config.spec import RunSpec
from normlab.errors import NormlabError
from normlab.training import stopping
from normlab.training.lightning import pl
from normlab.training.recorder import Recorder

# 0 (Lightning's own files, of the first builds) holds weights that can be used, but no exact state.
FORMAT = 1


@dataclass(frozen=True)
class Saved:
    """A whole state to go on from."""

    path: Path
    content: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps that are done."""
        return int(self.content["step"])

    @property
    def data_digest(self) -> str | None:
        """Which text it was trained on; None where nobody could know, as in older states."""
        return self.content.get("data")

    @property
    def event_sizes(self) -> dict[str, int]:
        """Bytes of each event file that belong to these steps."""
        return dict(self.content["events"])


class Checkpoints(pl.Callback):
    """Keeps the weights of the lowest validation loss, and now and then the whole state.

    The state is taken between two optimizer steps, with what is still to be logged, so that a run
    that goes on from it is the run that never stopped.
    """

    def __init__(
        self,
        spec: RunSpec,
        data_digest: str | None,
        recorder: Recorder,
        lock: Lock,
        resumed: Saved | None,
    ) -> None:
        self.folder = spec.folder
        self.run_id = spec.id
        self.data_digest = data_digest
        self.every = spec.config.trainer.save_seconds
        self.recorder = recorder
        self.lock = lock
        self.resumed = resumed
        self.best = float("inf")
        self._saved = time.monotonic()

    @property
    def first_step(self) -> int:
        """Optimizer steps that are done before this process begins."""
        return self.resumed.step if self.resumed else 0

    def on_sanity_check_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Have a signal during the first validation noted as any other."""
        stopping.heed()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Go on from the saved state, if there is one."""
        stopping.heed()  # Lightning has just taken the signals
        if self.resumed is not None:
            self._restore(trainer, module, self.resumed.content)
        self._saved = time.monotonic()

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time to, or when a signal asked for it; then stop."""
        if not self.recorder.between_steps:
            return
        self.lock.renew()
        if stopping.asked():
            self._save(trainer, module)
            raise stopping.InterruptedTrainingError
        if time.monotonic() - self._saved >= self.every:
            self._save(trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Keep the weights if they are the best so far."""
        loss = float(module.validation_loss)  # type: ignore[arg-type]
        if loss < self.best:
            self.best = loss
            self._write(BEST_CHECKPOINT, {"step": trainer.global_step, **self._weights(module)})

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Keep the last state; the recorder has nothing left to log by then."""
        self._save(trainer, module)

    def _save(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        with self.recorder.clock_stopped():
            (schedule,) = trainer.lr_scheduler_configs
            content = {
                "step": trainer.global_step,
                **self._weights(module),
                "optimizer": trainer.optimizers[0].state_dict(),
                "schedule": schedule.scheduler.state_dict(),
                "recorder": self.recorder.state(),
                "best": self.best,
                "random": _random_state(module.device),
                "events": self.recorder.logger.sizes(),
                "data": self.data_digest,
            }
            self._write(LAST_CHECKPOINT, content, keep=PREVIOUS_CHECKPOINT)
            self._saved = time.monotonic()

    def _restore(
        self, trainer: pl.Trainer, module: pl.LightningModule, content: dict[str, Any]
    ) -> None:
        module.load_state_dict(content["state_dict"])
        trainer.optimizers[0].load_state_dict(content["optimizer"])
        trainer.lr_scheduler_configs[0].scheduler.load_state_dict(content["schedule"])
        self.recorder.restore(content["recorder"])
        self.best = float(content["best"])
        # Lightning's own way back counts the batches of a step that was begun twice, and
        # validates too early: its counters are set here instead.
        loop = trainer.fit_loop.epoch_loop
        batches = loop.batch_progress.total
        steps = loop.automatic_optimization.optim_progress.optimizer.step.total
        steps.ready = steps.completed = content["step"]
        for count in ("ready", "started", "processed", "completed"):
            setattr(batches, count, content["step"] * trainer.accumulate_grad_batches)
        _set_random_state(content["random"], module.device)

    def _weights(self, module: pl.LightningModule) -> dict[str, Any]:
        return {"format": FORMAT, "id": self.run_id, "state_dict": module.state_dict()}

    def _write(self, name: str, content: dict[str, Any], keep: str | None = None) -> None:
        if not (self.folder / RUN_FILE).exists():
            raise NormlabError(f"{self.folder} has vanished")
        path = self.folder / name
        try:
            with replacing(path) as draft:
                torch.save(content, draft)
                if keep is not None and path.exists():
                    os.replace(path, self.folder / keep)
        except RuntimeError as error:
            # torch's writer has no word for a full disk but these.
            if any(words in str(error) for words in ("unexpected pos", "iostream error")):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise


def latest(folder: Path, run_id: str) -> tuple[Saved | None, list[str]]:
    """The newest whole state of a run, and a sentence for each newer one that cannot be used."""
    left_out = []
    for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT):
        path = folder / name
        try:
            content = read(path)
        except FileNotFoundError:
            continue
        except NormlabError as error:
            left_out.append(str(error))
            continue
        if content.get("id") == run_id and content["format"] == FORMAT:
            return Saved(path, content), left_out
        left_out.append(f"{path} holds no state of this run to go on from")
    return None, left_out


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's content, with its `format`.

    Raises:
        FileNotFoundError: it is not there.
        NormlabError: it is damaged, no checkpoint of normlab's, or of a newer version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # torch does not look at the checksums that it writes.
            broken = archive.testzip()
        content = torch.load(path, map_location="cpu", weights_only=True)
        content.setdefault("format", 0)
        if broken or "state_dict" not in content:
            raise ValueError(broken)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file raises a dozen kinds
        raise NormlabError(
            f"{path} is damaged or no checkpoint of normlab's; a run writes {LAST_CHECKPOINT} and "
            f"{BEST_CHECKPOINT} in its folder."
        ) from error
    if content["format"] > FORMAT:
        raise NormlabError(
            f"{path} has format {content['format']}, and this normlab reads up to {FORMAT}; "
            f"use the normlab that wrote it, or a newer one."
        )
    return content  # type: ignore[no-any-return]


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """The model's weights in a checkpoint, by parameter name.

    Raises:
        NormlabError: it is not a checkpoint of normlab's.
    """
    try:
        state = read(path)["state_dict"]
    except FileNotFoundError as error:
        raise NormlabError(f"{path} is not there; a run writes it when it validates.") from error
    return {name.removeprefix("model."): tensor for name, tensor in state.items()}


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
