"""One run, from its specification to a folder that says what happened."""

import logging
import math
import platform
import shutil
import signal
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytorch_lightning as pl
import torch
import yaml

import normlab
from normlab.archive.durable import write_text
from normlab.archive.record import (
    CONFIG_FILE,
    LOG_FILE,
    VOCABULARY_FILE,
    FinalNumbers,
    RunRecord,
)
from normlab.config.spec import RunSpec
from normlab.data import Source, build
from normlab.errors import NormlabError
from normlab.model.gpt import count_parameters
from normlab.training.batches import TrainingBatches, ValidationBatches
from normlab.training.build import build_model
from normlab.training.checkpoints import AtomicCheckpointIO, Checkpoints
from normlab.training.display import Display
from normlab.training.hardware import Hardware, resolve
from normlab.training.module import LanguageModel
from normlab.training.recorder import Progress, Recorder
from normlab.training.tensorboard import RunLogger

log = logging.getLogger("normlab")


def train(spec: RunSpec, command: str, display: Display) -> RunRecord:
    """Train one run and leave its folder; a failure is recorded, not raised.

    Raises:
        NormlabError: the run's folder cannot be written.
        KeyboardInterrupt: the user stopped it; the record says so.
    """
    record = _new_record(spec, command)
    try:
        _prepare(spec, record)
        with _log_to(spec.folder / LOG_FILE):
            _carry_out(spec, record, display)
        record.ended = _now()
        record.write(spec.folder)
    except OSError as error:
        raise NormlabError(
            f"{spec.folder} cannot be written ({error.strerror or error}); "
            f"free space or give another place with output_dir=…"
        ) from error
    return record


def _carry_out(spec: RunSpec, record: RunRecord, display: Display) -> None:
    try:
        _fit(spec, record, display)
    except KeyboardInterrupt:
        record.state, record.reason, record.ended = "failed", "interrupted by the user", _now()
        record.write(spec.folder)
        raise
    except Exception as error:
        log.exception("the run failed")
        record.state, record.reason = "failed", _reason(error)
    log.info("%s at step %d %s", record.state, record.step, record.reason or "")


def _fit(spec: RunSpec, record: RunRecord, display: Display) -> None:
    config = spec.config
    hardware = resolve(config.trainer)
    source = build(spec.plain["data"], config.model.context)
    model = build_model(config, source.vocabulary)
    record.floor, record.parameters = source.floor, count_parameters(model)
    record.precision, record.device = hardware.precision, f"{hardware.device} ({hardware.name})"
    record.write(spec.folder)
    write_text(spec.folder / VOCABULARY_FILE, source.tokenizer.to_json())
    log.info("%s: %d parameters, %s", record.name, record.parameters, hardware)

    logger = RunLogger(spec.folder, config.logger)
    logger.open(record)
    recorder = Recorder(
        logger,
        display,
        every=config.trainer.log_every,
        limit=config.trainer.divergence_limit * math.log(source.vocabulary),
        accumulate=config.trainer.accumulate,
    )
    module = LanguageModel(model, config)
    # Dropout draws from here on: whatever a norm's constructor drew is forgotten.
    torch.manual_seed(config.seed)
    with closing(logger.experiment), _quiet():
        _loop(spec, hardware, logger, recorder, module, source)
        _conclude(record, recorder.progress)
        logger.conclude(record)


def _loop(
    spec: RunSpec,
    hardware: Hardware,
    logger: RunLogger,
    recorder: Recorder,
    module: LanguageModel,
    source: Source,
) -> None:
    """Train to the last step or to divergence; the last weights are always validated."""
    settings = spec.config.trainer
    batches = TrainingBatches(source, spec.config.seed, settings.max_steps * settings.accumulate)
    windows = ValidationBatches(source)
    trainer = pl.Trainer(
        accelerator={"cuda": "gpu"}.get(hardware.device, hardware.device),
        devices=1,
        precision=hardware.precision,  # type: ignore[arg-type]
        max_steps=settings.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=settings.accumulate,
        # Lightning counts batches here, not optimizer steps.
        val_check_interval=settings.val_every * settings.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=-1,  # the validation loss at initialisation is a point of the curve
        logger=logger,
        # The recorder last: its clock of training starts again when the checkpoint is written.
        callbacks=[Checkpoints(spec.folder), recorder],
        plugins=[AtomicCheckpointIO()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=settings.max_steps + 1,
    )
    try:
        trainer.fit(module, batches, windows)
    except SystemExit as left:
        # Lightning turns Ctrl-C into exit(1), and makes the process deaf to the next one.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from left
    if recorder.progress.val_step != trainer.global_step:
        trainer.validate(module, windows, verbose=False)


def _new_record(spec: RunSpec, command: str) -> RunRecord:
    return RunRecord(
        id=spec.id,
        name=spec.name,
        norm=spec.choices["norm"],
        placement=spec.choices["placement"],
        data=spec.choices["data"],
        seed=spec.config.seed,
        choices=spec.choices,
        config=spec.plain,
        command=command,
        versions={
            "normlab": normlab.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pytorch-lightning": version("pytorch-lightning"),
            "omegaconf": version("omegaconf"),
        },
        started=_now(),
    )


def _prepare(spec: RunSpec, record: RunRecord) -> None:
    """An empty folder for a fresh start: what an unfinished run left would double its curves."""
    if spec.folder.exists():
        shutil.rmtree(spec.folder)
    record.write(spec.folder)
    write_text(spec.folder / CONFIG_FILE, yaml.safe_dump(spec.plain, sort_keys=False))


def _conclude(record: RunRecord, progress: Progress) -> None:
    diverged = progress.diverged_step is not None
    record.state = "diverged" if diverged else "finished"
    record.step, record.reason = progress.step, progress.reason
    record.diverged_step = progress.diverged_step
    final = None if diverged else progress.val_loss
    record.final = FinalNumbers(val_loss=final, train_loss=progress.train_loss)
    record.best = progress.best
    record.tokens_per_second = progress.tokens_per_second
    record.train_seconds = progress.train_seconds


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    text = " ".join(str(error).split())
    return text if isinstance(error, NormlabError) else f"{type(error).__name__}: {text}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path, encoding="utf-8")
    # A full disk fails here first; the run says so itself, with its next write that matters.
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning greets, tips and warns about what is meant here; the terminal is the display's."""
    chatty = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in chatty]
    for logger in chatty:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
            yield
    finally:
        for logger, level in zip(chatty, levels, strict=True):
            logger.setLevel(level)
