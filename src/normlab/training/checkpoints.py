"""Checkpoints, written atomically: `last.ckpt`, the one before it, and `best.ckpt`."""

import errno
import os
import pickletools
import re
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from normlab.archive.files import LARGEST_TEXT, open_to_read, replace_atomically
from normlab.archive.record import BEST_CHECKPOINT, LAST_CHECKPOINT, PREVIOUS_CHECKPOINT, RUN_FILE
from normlab.archive.versioned_json import restore_value
from normlab.config.run_spec import RunSpec
from normlab.errors import NormlabError, first_line
from normlab.training import stopping
from normlab.training.lightning import pl
from normlab.training.recorder import PlainRecorderState, Recorder

# 0 (Lightning's own files, of the first builds) holds weights that can be used, but no exact state.
FORMAT = 1

# What the pickle in a checkpoint names: how torch makes a tensor of bytes, and in which order.
_ALLOWED_NAMES = re.compile(
    r"torch \w+Storage|torch\._utils _rebuild_(tensor_v2|parameter)|collections OrderedDict"
)


@dataclass
class PlainState:
    """What of a state to go on from is neither a tensor nor the optimizer's.

    Attributes:
        step: optimizer steps that are done.
        events: bytes of each event file that belong to these steps.
        data: which text it was trained on; None where nobody could know, as in older states.
    """

    step: int
    events: dict[str, int]
    recorder: PlainRecorderState
    data: str | None = None


@dataclass(frozen=True)
class SavedState:
    """A state to go on from; `plain` is the part of `content` whose types have been checked."""

    path: Path
    content: dict[str, Any]
    plain: PlainState

    @property
    def step(self) -> int:
        """Optimizer steps that are done."""
        return self.plain.step

    @property
    def logged_steps(self) -> int:
        """Those of them that are in the event files; the others are still to be logged."""
        return self.plain.recorder.progress.step

    @property
    def waiting(self) -> tuple[Tensor, Tensor] | None:
        """Losses and gradient norms of the steps that are still to be logged."""
        losses, norms = (self.content["recorder"][key] for key in ("losses", "norms"))
        return None if losses is None else (losses, norms)


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
        resumed: SavedState | None,
    ) -> None:
        self.folder = spec.folder
        self.run_id = spec.id
        self.data_digest = data_digest
        self.save_seconds = spec.config.trainer.save_seconds
        self.recorder = recorder
        self.resumed = resumed
        self._saved_at = time.monotonic()

    @property
    def first_step(self) -> int:
        """Optimizer steps that are done before this process begins."""
        return self.resumed.step if self.resumed else 0

    def on_sanity_check_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Have a signal during the first validation noted as any other."""
        stopping.defer_signals_again()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Go on from the saved state, if there is one."""
        stopping.defer_signals_again()  # Lightning has just taken the signals
        if self.resumed is not None:
            self._restore_state(trainer, module, self.resumed)
            if self.recorder.progress.diverged_step is not None:
                trainer.should_stop = True  # it was killed before its record was written
        self._saved_at = time.monotonic()

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time to, or when a signal asked for it; then stop."""
        if not self.recorder.between_steps:
            return
        if stopping.requested_signal():
            self._save_state(trainer, module)
            raise stopping.InterruptedTrainingError
        if time.monotonic() - self._saved_at >= self.save_seconds:
            self._save_state(trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Keep the weights if they are the best so far."""
        loss = module.validation_loss.all_windows  # type: ignore[union-attr]
        # The recorder has not recorded it yet: it comes after this callback.
        if self.recorder.progress.is_improved_by(loss):  # type: ignore[arg-type]
            self.write_best(trainer.global_step, module.state_dict())

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Keep the last state, with what the recorder has still to log."""
        self._save_state(trainer, module)

    def _save_state(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        with self.recorder.clock_stopped():
            self.write_state(
                trainer.global_step,
                module.state_dict(),
                trainer.optimizers[0].state_dict(),
                _random_state(module.device),
                trainer.precision_plugin.state_dict(),
            )
            self._saved_at = time.monotonic()

    def write_best(self, step: int, weights: Mapping[str, Any]) -> None:
        """Write the weights, by name in the module, with the lowest validation loss so far."""
        self._write_checkpoint(BEST_CHECKPOINT, {"step": step, **self._model_content(weights)})

    def write_state(
        self,
        step: int,
        weights: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        random: Mapping[str, torch.Tensor],
        scaler: Mapping[str, Any] | None = None,
    ) -> None:
        """Write all that the run needs to go on after `step` updates.

        `scaler` is the state of what scales the gradients, with 16-mixed.
        """
        content = {
            "step": step,
            **self._model_content(weights),
            "optimizer": optimizer,
            "recorder": self.recorder.state_dict(),
            "random": random,
            "events": self.recorder.logger.file_sizes(),
            "data": self.data_digest,
            **({"scaler": dict(scaler)} if scaler else {}),
        }
        self._write_checkpoint(LAST_CHECKPOINT, content, keep=PREVIOUS_CHECKPOINT)

    def _restore_state(
        self, trainer: pl.Trainer, module: pl.LightningModule, saved: SavedState
    ) -> None:
        content = saved.content
        restore_weights(saved, module, trainer.optimizers[0])
        _set_schedule(trainer.lr_scheduler_configs[0].scheduler, saved.step)
        self.recorder.restore_state(saved.plain.recorder, saved.waiting)
        if isinstance(content.get("scaler"), dict):
            trainer.precision_plugin.load_state_dict(content["scaler"])
        # Lightning's own way back, `fit(ckpt_path=…)`, was tried: it counts the batches of a step
        # that was begun twice, and validates too early, so that curves differ. Its loops have no
        # other public way to begin at a step: their progress counters are set here instead.
        loop = trainer.fit_loop.epoch_loop
        steps = loop.automatic_optimization.optim_progress.optimizer.step.total
        steps.ready = steps.completed = saved.step
        skip_batches(trainer, saved.step * trainer.accumulate_grad_batches)
        _set_random_state(content["random"], module.device)

    def _model_content(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        return {"format": FORMAT, "id": self.run_id, "state_dict": weights}

    def _write_checkpoint(
        self, name: str, content: dict[str, Any], keep: str | None = None
    ) -> None:
        if not (self.folder / RUN_FILE).exists():
            # Writing would make the folder again, with nothing but this file in it.
            raise NormlabError(f"{self.folder} has vanished")
        path = self.folder / name
        try:
            with replace_atomically(path) as draft:
                torch.save(content, draft)
                # Only now: a disk that is full must not cost the state before this one. After a
                # kill between the two renames `latest_state` finds it under its second name.
                if keep is not None and path.exists():
                    os.replace(path, self.folder / keep)
        except RuntimeError as error:
            # torch's writer has no word for a full disk but these.
            if any(words in str(error) for words in ("unexpected pos", "iostream error")):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise


def restore_weights(
    saved: SavedState, module: pl.LightningModule, optimizer: torch.optim.Optimizer
) -> None:
    """Give a run's module and its AdamW the weights and moments of a saved state.

    Raises:
        NormlabError: they are of another model.
    """
    content = saved.content
    problem = different_weights(content["state_dict"], module.state_dict()) or (
        _different_moments(content["optimizer"], optimizer, saved.step)
    )
    if problem:
        raise NormlabError(
            f"{saved.path} is no state of this run: {problem}; remove it, and the same command "
            f"trains the run again."
        )
    module.load_state_dict(content["state_dict"])
    # The settings are those of the configuration, and the rate follows from the step: of the
    # optimizer, only the moments are the state's.
    moments = {"state": content["optimizer"]["state"]}
    optimizer.load_state_dict({**optimizer.state_dict(), **moments})


def skip_batches(trainer: pl.Trainer, count: int) -> None:
    """Let a trainer count from batch `count` on, so that it validates when it would have."""
    batches = trainer.fit_loop.epoch_loop.batch_progress.total
    for name in ("ready", "started", "processed", "completed"):
        setattr(batches, name, count)


def latest_state(folder: Path, run_id: str) -> tuple[SavedState | None, list[str]]:
    """The newest usable state of a run, and a sentence for each newer one that is not."""
    problems = []
    for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT):
        path = folder / name
        try:
            content = read_checkpoint(path)
        except FileNotFoundError:
            continue
        except NormlabError as error:
            problems.append(str(error))
            continue
        if content.get("id") != run_id or content["format"] != FORMAT:
            problems.append(f"{path} holds no state of this run to go on from")
            continue
        try:
            plain = _check_state(content)
        except Exception as error:  # as above: whatever stands in place of what is expected
            problems.append(f"{path} holds no state to go on from ({first_line(error)})")
            continue
        return SavedState(path, content, plain), problems
    return None, problems


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content: `format`, `state_dict`, and what else a run kept there.

    Raises:
        FileNotFoundError: it is not there.
        NormlabError: it is damaged, no checkpoint of normlab's, or of a newer version.
    """
    try:
        with open_to_read(path) as file:
            _check_archive(file)
            content = torch.load(file, map_location="cpu", weights_only=True)
        _check_content(content)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file raises a dozen kinds
        raise NormlabError(
            f"{path} is damaged or no checkpoint of normlab's ({first_line(error)}); a run writes "
            f"{LAST_CHECKPOINT} and {BEST_CHECKPOINT} in its folder."
        ) from error
    if content["format"] > FORMAT:
        raise NormlabError(
            f"{path} has format {content['format']}, and this normlab reads up to {FORMAT}; "
            f"use the normlab that wrote it, or a newer one."
        )
    return content  # type: ignore[no-any-return]


def _check_archive(file: BinaryIO) -> None:
    """Look at a checkpoint as a file before torch does. Raises ValueError.

    Torch neither compresses what it writes nor checks the checksums; and its unpickler, which runs
    no code, would still make an array of any size for a name that it allows.
    """
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("it unpacks to more than it holds")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed")
        if damaged := archive.testzip():
            raise ValueError(f"wrong checksum of {damaged}")
        (pickled,) = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if pickled.file_size > LARGEST_TEXT:
            raise ValueError(f"its list of contents is larger than {LARGEST_TEXT:,} bytes")
        for opcode, argument, _ in pickletools.genops(archive.read(pickled)):
            # torch writes GLOBAL. STACK_GLOBAL has its name on the stack and None as its argument,
            # which is not allowed either.
            if "GLOBAL" in opcode.name and not _ALLOWED_NAMES.fullmatch(str(argument)):
                raise ValueError(f"it holds {argument}")
    file.seek(0)


def _check_content(content: Any) -> None:
    """What every checkpoint has. Raises ValueError."""
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise ValueError("it has no weights")
    if type(content.setdefault("format", 0)) is not int:
        raise ValueError("its format is no number")
    _check_tensors(content)
    for name, value in content["state_dict"].items():
        if not isinstance(name, str):
            raise ValueError("a tensor has no name")
        if not isinstance(value, torch.Tensor):
            continue  # a module's own extra state
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite")


def _check_tensors(content: Any) -> None:
    """Hold every tensor to the bytes that the file has for it. Raises ValueError.

    With a stride of 0 four bytes are a tensor of any size, and a kernel that goes through it
    without its strides, as AdamW's does, would read beyond them.
    """
    pending, visited = [content], set()
    while pending:
        value = pending.pop()
        if isinstance(value, dict | list | tuple) and id(value) not in visited:
            visited.add(id(value))
            pending += value.values() if isinstance(value, dict) else value
        elif isinstance(value, torch.Tensor):
            if value.layout is not torch.strided or value.device.type != "cpu":
                raise ValueError("it holds what is no plain tensor")
            end = (value.storage_offset() + value.numel()) * value.element_size()
            if end > value.untyped_storage().nbytes():
                shape = "x".join(map(str, value.shape))
                raise ValueError(f"a tensor of {shape} numbers has fewer in the file")


def _check_state(content: dict[str, Any]) -> PlainState:
    """What a state to go on from has beside weights. Raises ValueError or another error."""
    for key in ("recorder", "optimizer", "random"):
        if key not in content:
            raise ValueError(f"{key} is missing")
    plain: dict[str, Any] = {
        key: content[key] for key in ("step", "events", "data") if key in content
    }
    plain["recorder"] = {
        key: value for key, value in content["recorder"].items() if key not in ("losses", "norms")
    }
    state: PlainState = restore_value(PlainState, plain)
    losses, norms = (content["recorder"][key] for key in ("losses", "norms"))
    waiting = 0 if losses is None else len(losses)
    for series in (losses, norms):
        if series is not None and not (
            isinstance(series, torch.Tensor)
            and series.shape == (waiting,)
            and series.is_floating_point()
        ):
            raise ValueError("recorder.losses and recorder.norms are no two columns of numbers")
    if (losses is None) != (norms is None) or state.recorder.progress.step + waiting != state.step:
        raise ValueError("recorder.progress.step is not that of the weights")
    counts = (state.step, state.recorder.above, state.recorder.tokens, *state.events.values())
    if min(counts) < 0 or state.recorder.elapsed < 0:
        raise ValueError("it holds a count below 0")
    random = content["random"]["cpu"]
    if random.dtype != torch.uint8 or random.shape != torch.get_rng_state().shape:
        raise ValueError("random.cpu is no state of torch's generator")
    return state


def different_weights(weights: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """How a checkpoint's weights differ in name, shape or type from a model's; empty if nowhere."""

    def describe_tensor(value: Any) -> Any:
        return (value.shape, value.dtype) if isinstance(value, torch.Tensor) else type(value)

    differing = sorted(
        name
        for name in weights.keys() | expected.keys()
        if name not in weights
        or name not in expected
        or describe_tensor(weights[name]) != describe_tensor(expected[name])
    )
    if not differing:
        return ""
    return f"{len(differing)} of its tensors differ, the first is {differing[0]}"


def _different_moments(saved: Any, optimizer: torch.optim.Optimizer, step: int) -> str:
    """How a saved state of the optimizer does not belong to it; empty where it does.

    Its kernels trust the shapes: with others they would read beyond the tensors.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = saved.get("state") if isinstance(saved, dict) else None
    if not isinstance(moments, dict):
        return "it has no moments"
    for index, values in moments.items():
        if type(index) is not int or not 0 <= index < len(parameters):
            return f"it has moments of a parameter {index!r}"
        shapes = {"exp_avg": parameters[index], "exp_avg_sq": parameters[index]}
        if not isinstance(values, dict) or values.keys() != {"step", *shapes}:
            return f"it has other moments than AdamW's for parameter {index}"
        if not all(isinstance(value, torch.Tensor) for value in values.values()):
            return f"the moments of parameter {index} are no tensors"
        if values["step"].shape != () or not 0 <= float(values["step"]) <= step:
            return f"the moments of parameter {index} are of another step"
        for name, parameter in shapes.items():
            value = values[name]
            if (value.shape, value.dtype, value.layout, value.device.type) != (
                parameter.shape,
                parameter.dtype,
                torch.strided,
                "cpu",
            ):
                return f"{name} of parameter {index} has another shape or type"
    return ""


def _set_schedule(schedule: Any, step: int) -> None:
    """Put a LambdaLR where it is after so many steps."""
    rates = [
        rate * factor(step)
        for rate, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    at = {"last_epoch": step, "_step_count": step + 1, "_last_lr": rates}
    schedule.load_state_dict({**schedule.state_dict(), **at})
    # A schedule that loads its state leaves the rates of its optimizer as they are.
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def load_weights(path: Path) -> dict[str, Any]:
    """The model's state in a checkpoint: tensors by the names of parameters and buffers.

    Raises:
        NormlabError: it is not a checkpoint of normlab's.
    """
    try:
        state = read_checkpoint(path)["state_dict"]
    except FileNotFoundError as error:
        raise NormlabError(f"{path} is not there; a run writes it when it validates.") from error
    return {name.removeprefix("model."): value for name, value in state.items()}


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
