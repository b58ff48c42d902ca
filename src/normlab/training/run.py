"""Train a run: from its specification to a folder that holds its result."""

import logging
import math
import os
import shutil
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import torch
import yaml

from normlab.archive.files import check_links, open_to_append, remove_drafts
from normlab.archive.lock import lock_run
from normlab.archive.record import (
    CONFIG_FILE,
    LOG_FILE,
    RUN_FILE,
    SETTLED_STATES,
    VOCABULARY_FILE,
    FinalNumbers,
    RunRecord,
    write_run_file,
)
from normlab.config.run_spec import RunSpec, changed_text_message
from normlab.config.user_sources import changed_modules, digest_user_sources
from normlab.data import Source, build_source, unigram_loss
from normlab.errors import NormlabError, describe_error
from normlab.model.contract import check_trained_causal
from normlab.model.gpt import GPT, count_parameters
from normlab.text import join_words, printable
from normlab.training import stopping
from normlab.training.build import build_model, describe_untrained
from normlab.training.checkpoints import Checkpoints, SavedState, latest_state
from normlab.training.compilation import compile_where_it_pays, decide_compilation, time_step
from normlab.training.hardware import (
    Hardware,
    describe_machine,
    git_state,
    package_versions,
    resolve_hardware,
)
from normlab.training.lightning import (
    create_trainer,
    pl,
    quiet_lightning,
    raise_signals,
    without_launcher_variables,
)
from normlab.training.module import (
    LanguageModel,
    TrainingBatches,
    ValidationBatches,
    compile_model,
    prepare_uncompiled_step,
    to_tensors,
)
from normlab.training.probes import Probes
from normlab.training.recorder import Display, Progress, Recorder
from normlab.training.stopping import InterruptedTrainingError
from normlab.training.tensorboard import RunLogger, rewind_events

log = logging.getLogger("normlab")


def train(spec: RunSpec, command: str, display: Display) -> RunRecord:
    """Train a run, from its last saved state if it was stopped; leave its folder.

    A failure is recorded, not raised. A run that has a result is left alone.

    Raises:
        RunLockedError: another process trains it.
        NormlabError: the run's folder cannot be written, or is or holds a link.
        KeyboardInterrupt: a signal stopped it; the record says so.
    """
    threads = torch.get_num_threads()
    try:
        with lock_run(spec.study_folder, spec.id):
            check_links(spec.folder)
            return spec.read_result() or _train_locked(spec, command, display)
    except OSError as error:
        raise unwritable_error(spec, error) from error
    finally:
        torch.set_num_threads(threads)  # the next run in this process has its own


def unwritable_error(spec: RunSpec, error: OSError) -> NormlabError:
    """The sentence about a run whose folder cannot be written."""
    return NormlabError(
        f"{spec.folder} cannot be written ({error.strerror or error}); "
        f"free space or give another place with output_dir=…"
    )


def _train_locked(spec: RunSpec, command: str, display: Display) -> RunRecord:
    record = start_record(spec, command)
    saved = prepare_folder(spec, record, display)
    # Quiet also while a failure is recorded: TensorBoard's writer thread may report its own error
    # later.
    with log_to(spec.folder / LOG_FILE), quiet_lightning():
        _record_outcome(spec, record, display, saved)
    record.ended = current_time()
    record.write(spec.folder)
    if record.state in SETTLED_STATES:
        # A signal after the last step found nothing to stop here; it stops the study.
        stopping.raise_requested()
    return record


def _record_outcome(
    spec: RunSpec, record: RunRecord, display: Display, saved: SavedState | None
) -> None:
    try:
        _train_model(spec, record, display, saved)
    except (KeyboardInterrupt, InterruptedTrainingError) as error:
        signum = stopping.signal_of(error)
        record.state, record.ended = "interrupted", current_time()
        record.reason = f"stopped by {signum.name} at step {record.step}"
        log.info("%s", record.reason)
        record.write(spec.folder)
        raise stopping.interruption_for(signum) from error
    except Exception as error:
        record_failure(spec, record, error)
    log.info("%s at step %d %s", record.state, record.step, record.reason or "")


def record_failure(spec: RunSpec, record: RunRecord, error: Exception) -> None:
    """Record, and log, that a run failed by this error."""
    log.error("the run failed", exc_info=error)
    record.state, record.reason = "failed", describe_error(error)
    if not (spec.folder / RUN_FILE).exists():
        record.reason = f"{spec.folder} vanished while the run was being trained"
    record.traceback = "".join(traceback.format_exception(error))


def _train_model(
    spec: RunSpec, record: RunRecord, display: Display, saved: SavedState | None
) -> None:
    config = spec.config
    # Bits depend on the number of threads, so a run that goes on keeps what it began with.
    hardware = resolve_hardware(config.trainer, record.threads)
    cores = os.cpu_count()
    if record.threads and cores and record.threads > cores:
        display.say(
            f"goes on with the {record.threads} threads that it began with, on {cores} cores"
        )
    source = build_source(spec.plain["data"], config.model.context)
    model = build_model(config, source.vocabulary)
    model.gradient_checkpointing = config.trainer.gradient_checkpointing
    describe_training(spec, record, source, count_parameters(model), hardware)
    checkpoints = open_run_files(spec, record, display, saved, source)
    recorder, logger = checkpoints.recorder, checkpoints.recorder.logger
    module = LanguageModel(model, config)
    # Dropout draws from here on: whatever a norm's constructor drew is forgotten.
    torch.manual_seed(config.seed)
    with closing(logger.experiment), without_launcher_variables():
        windows = ValidationBatches(source)
        try:
            _fit_model(spec, record, hardware, checkpoints, module, source, windows)
        finally:
            # A continued run that ends before its first new step is at the step that was logged.
            record.step = max(record.step, recorder.progress.step)
        if recorder.progress.diverged_step is None and not config.allow_leak:
            check_trained_model(module, windows, hardware.precision)
        record_result(record, recorder.progress, config.trainer.max_steps)
        logger.write_end(record)


def describe_training(
    spec: RunSpec, record: RunRecord, source: Source, parameters: int, hardware: Hardware
) -> None:
    """Record what is trained, on which data and machine.

    Raises:
        NormlabError: the run was begun on another text.
    """
    if record.data_digest not in (None, source.digest):
        raise NormlabError(changed_text_message(spec))
    record.floor, record.unigram = source.floor, unigram_loss(source)
    record.parameters = parameters
    record.data_digest = source.digest
    record.precision, record.device = hardware.precision, f"{hardware.device} ({hardware.name})"
    record.hardware = describe_machine(hardware)
    write_run_file(spec.folder, record, VOCABULARY_FILE, source.tokenizer.to_json())
    log.info("%s: %d parameters, %s", record.name, parameters, hardware)
    if not spec.config.allow_leak:  # as in check_networks, by which the study shows them once
        for sentence in describe_untrained(spec.config):
            log.warning("%s", sentence)


def open_run_files(
    spec: RunSpec, record: RunRecord, display: Display, saved: SavedState | None, source: Source
) -> Checkpoints:
    """Begin, or go on with, the run's event file; what writes it and the states.

    `recorder.logger.experiment` of the result has to be closed.
    """
    trainer = spec.config.trainer
    logger = RunLogger(spec.folder, spec.config.logger)
    if saved is None:
        logger.write_start(record)
    recorder = Recorder(
        logger,
        display,
        interval=trainer.log_every,
        limit=trainer.divergence_limit * math.log(source.vocabulary),
        accumulate=trainer.accumulate,
        scaled=record.precision == "16-mixed",
    )
    return Checkpoints(spec, source.digest, recorder, saved)


def _fit_model(
    spec: RunSpec,
    record: RunRecord,
    hardware: Hardware,
    checkpoints: Checkpoints,
    module: LanguageModel,
    source: Source,
    windows: ValidationBatches,
) -> None:
    """Train to the last step or to divergence; the last weights are always validated."""
    settings, recorder = spec.config.trainer, checkpoints.recorder
    accumulate, done = settings.accumulate, checkpoints.first_step
    batches = TrainingBatches(
        source,
        spec.config.seed,
        settings.max_steps * accumulate,
        first=done * accumulate,
        pinned=hardware.device == "cuda",
    )
    # The recorder after the checkpoints: its clock of training starts again when they are written,
    # and what it has still to log is part of the last state.
    callbacks: list[pl.Callback] = [checkpoints, recorder]
    if spec.config.probes.every is not None:
        callbacks.append(Probes(spec.config.probes.every, settings.max_steps, recorder))
    trainer = create_trainer(
        hardware.device,
        precision=hardware.precision,
        max_steps=settings.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=accumulate,
        # Lightning counts batches here, not optimizer steps.
        val_check_interval=settings.val_every * accumulate,
        # The validation loss at initialization is a point of the curve.
        num_sanity_val_steps=0 if checkpoints.resumed else -1,
        logger=recorder.logger,
        callbacks=callbacks,
        log_every_n_steps=settings.max_steps + 1,
    )
    training = to_tensors(source.batch(spec.config.seed, 0))

    def decide() -> tuple[bool, str]:
        seconds = time_step(prepare_uncompiled_step(trainer, module, training)) * accumulate
        return decide_compilation(seconds, settings.max_steps - done, stacked=False)

    record.hardware["compile"] = compile_where_it_pays(
        hardware,
        decide,
        lambda: compile_model(trainer, module, training, windows.pairs[0], hardware.graphs),
        recorder.display.say,
    )
    with stopping.defer_signals():
        with raise_signals():
            trainer.fit(module, batches, windows)
        if recorder.progress.val_step != trainer.global_step:
            trainer.validate(module, windows, verbose=False)


def check_trained_model(module: LanguageModel, windows: ValidationBatches, precision: str) -> None:
    """Try the trained model on two windows; NormlabError if it sees what it has to predict."""
    tokens = windows.pairs[0][0][:2].to(next(module.parameters()).device)
    autocast = torch.bfloat16 if "bf16" in precision else None
    check_trained_causal(cast(GPT, module.model), tokens, autocast)


def start_record(spec: RunSpec, command: str) -> RunRecord:
    """The record of a run that begins now."""
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
        versions=package_versions(),
        git=git_state(),
        sources=digest_user_sources(spec.plain),
        started=current_time(),
    )


def prepare_folder(spec: RunSpec, record: RunRecord, display: Display) -> SavedState | None:
    """Make a folder to train in: as it was at the last saved state, which is returned, or empty.

    Whatever was logged after that state is taken back, for it would double the curves. States that
    cannot be used are shown and logged.
    """
    saved, problems = latest_state(spec.folder, spec.id)
    before = None
    # A damaged record is reported by whoever reads the study; the state does not need it.
    with suppress(OSError, NormlabError):
        before = RunRecord.read(spec.folder)
    # The user may have mended, for one, the error that stopped it.
    changed = changed_modules(before.sources, record.sources) if before else []
    if saved is not None and changed:
        problems.append(
            f"the source of {join_words(changed)} has changed since; the run starts afresh"
        )
        saved = None
    if saved is not None:
        try:
            rewind_events(spec.folder, saved.plain.events)
        except (OSError, NormlabError) as error:
            problems.append(f"{error}; the run starts afresh")
            saved = None
    if saved is not None:
        record.resumed_at, record.data_digest = [saved.step], saved.plain.data
        record.step = saved.logged_steps
        if before is not None:
            record.started = before.started
            record.data_digest = before.data_digest or saved.plain.data
            record.hardware = before.hardware
            record.resumed_at = [*before.resumed_at, saved.step]
    if saved is None and spec.folder.exists():
        shutil.rmtree(spec.folder)
    remove_drafts(spec.folder)
    config = yaml.safe_dump(spec.plain, sort_keys=False)
    write_run_file(spec.folder, record, CONFIG_FILE, config)
    with log_to(spec.folder / LOG_FILE):
        for sentence in problems:
            log.warning("%s", sentence)
            display.say(sentence)
    if saved is not None:
        display.say(f"continues from step {saved.step}")
    return saved


def record_result(record: RunRecord, progress: Progress, max_steps: int) -> None:
    """Record what a run that has ended came to.

    Raises:
        NormlabError: it ended, without divergence, before its last step.
    """
    diverged = progress.diverged_step is not None
    if not diverged and progress.step != max_steps:
        raise NormlabError(
            f"training ended at step {progress.step} of {max_steps}, and nothing says why; the "
            f"same command goes on with it."
        )
    if not diverged and progress.val_loss is None:  # of the last update alone
        progress.diverged_step = progress.step
        progress.reason = f"the validation loss after step {progress.step} is not finite"
        diverged = True
    record.state = "diverged" if diverged else "finished"
    record.step, record.reason = progress.step, progress.reason
    record.diverged_step = progress.diverged_step
    record.final = FinalNumbers(train_loss=progress.train_loss)
    if not diverged:
        record.final.val_loss = progress.val_loss
        record.final.selection_loss = progress.selection_loss
        record.final.test_loss = progress.test_loss
    record.best = progress.best
    record.tokens_per_second = progress.tokens_per_second
    record.train_seconds = progress.train_seconds


def current_time() -> str:
    """Now, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Write what is logged in the body to this file, and nowhere else."""
    file = open_to_append(path)
    handler = logging.StreamHandler(file)
    # A full disk fails here first; the run says so itself, with its next write that matters.
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    handler.setFormatter(_PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
        with suppress(OSError):  # as above
            file.close()
