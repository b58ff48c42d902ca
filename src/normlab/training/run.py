"""One run, from its specification to a folder that says what happened."""

import math
import shutil
import traceback
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import torch
import yaml

from normlab.archive.files import check_links, remove_drafts
from normlab.archive.lock import RunLock, lock_run
from normlab.archive.record import (
    CONFIG_FILE,
    LOG_FILE,
    RUN_FILE,
    SETTLED_STATES,
    VOCABULARY_FILE,
    FinalNumbers,
    RunRecord,
    read_result,
    write_run_file,
)
from normlab.config.run_spec import RunSpec, changed_text_message
from normlab.data import Source, build_source, unigram_loss
from normlab.errors import NormlabError
from normlab.model.gpt import count_parameters
from normlab.training import stopping
from normlab.training.batches import TrainingBatches, ValidationBatches, tensors
from normlab.training.build import build_model
from normlab.training.checkpoints import Checkpoints, Saved, latest
from normlab.training.compiling import compile_model
from normlab.training.display import Display
from normlab.training.hardware import Hardware, kept_threads, resolve
from normlab.training.lightning import (
    LightningEnvironment,
    SIGTERMException,
    pl,
    without_launcher_variables,
)
from normlab.training.logs import log, logged_to, quiet
from normlab.training.module import LanguageModel
from normlab.training.probes.callback import Probes
from normlab.training.provenance import git, machine, versions
from normlab.training.recorder import Progress, Recorder
from normlab.training.stopping import InterruptedTrainingError, Terminated
from normlab.training.tensorboard import RunLogger, rewind


def train(spec: RunSpec, command: str, display: Display) -> RunRecord:
    """Train one run, from its last saved state if it was stopped; leave its folder.

    A failure is recorded, not raised. A run that has a result is left alone.

    Raises:
        RunLockedError: another process trains it.
        NormlabError: the run's folder cannot be written, or is or holds a link.
        KeyboardInterrupt: a signal stopped it; the record says so.
    """
    threads = torch.get_num_threads()
    try:
        with lock_run(spec.study_folder, spec.id) as lock:
            check_links(spec.folder)
            return read_result(spec.folder) or _train(spec, command, display, lock)
    except OSError as error:
        raise NormlabError(
            f"{spec.folder} cannot be written ({error.strerror or error}); "
            f"free space or give another place with output_dir=…"
        ) from error
    finally:
        torch.set_num_threads(threads)  # the next run in this process has its own


def _train(spec: RunSpec, command: str, display: Display, lock: RunLock) -> RunRecord:
    record = _new_record(spec, command)
    saved, left_out = _prepare(spec, record)
    with logged_to(spec.folder / LOG_FILE):
        for sentence in left_out:
            log.warning("%s", sentence)
            display.say(sentence)
        if saved is not None:
            display.say(f"goes on from step {saved.step}")
        _carry_out(spec, record, Job(display, lock, saved))
    record.ended = _now()
    record.write(spec.folder)
    if record.state in SETTLED_STATES:
        stopping.obey()
    return record


@dataclass(frozen=True)
class Job:
    """What surrounds a run: who watches, who owns it, and the state it goes on from."""

    display: Display
    lock: RunLock
    saved: Saved | None


def _carry_out(spec: RunSpec, record: RunRecord, job: Job) -> None:
    try:
        _fit(spec, record, job)
    except (KeyboardInterrupt, InterruptedTrainingError) as error:
        signum = stopping.signal_of(error)
        record.state, record.ended = "interrupted", _now()
        record.reason = f"stopped by {signum.name} at step {record.step}"
        log.info("%s", record.reason)
        record.write(spec.folder)
        raise stopping.stop(signum) from error
    except Exception as error:
        log.exception("the run failed")
        record.state, record.reason = "failed", _reason(error)
        if not (spec.folder / RUN_FILE).exists():
            record.reason = f"{spec.folder} vanished while the run was being trained"
        record.traceback = traceback.format_exc()
    log.info("%s at step %d %s", record.state, record.step, record.reason or "")


def _fit(spec: RunSpec, record: RunRecord, job: Job) -> None:
    config = spec.config
    hardware = resolve(config.trainer, kept_threads(record.threads, job.display))
    source = build_source(spec.plain["data"], config.model.context)
    model = build_model(config, source.vocabulary)
    model.gradient_checkpointing = config.trainer.gradient_checkpointing
    if record.data_digest not in (None, source.digest):
        raise NormlabError(changed_text_message(spec))
    record.floor, record.unigram = source.floor, unigram_loss(source)
    record.parameters = count_parameters(model)
    record.data_digest = source.digest
    record.precision, record.device = hardware.precision, f"{hardware.device} ({hardware.name})"
    record.hardware = machine(hardware)
    write_run_file(spec.folder, record, VOCABULARY_FILE, source.tokenizer.to_json())
    log.info("%s: %d parameters, %s", record.name, record.parameters, hardware)

    logger = RunLogger(spec.folder, config.logger)
    if job.saved is None:
        logger.open(record)
    recorder = Recorder(
        logger,
        job.display,
        every=config.trainer.log_every,
        limit=config.trainer.divergence_limit * math.log(source.vocabulary),
        accumulate=config.trainer.accumulate,
    )
    checkpoints = Checkpoints(spec, source.digest, recorder, job.lock, job.saved)
    module = LanguageModel(model, config)
    # Dropout draws from here on: whatever a norm's constructor drew is forgotten.
    torch.manual_seed(config.seed)
    with closing(logger.experiment), quiet(), without_launcher_variables():
        try:
            _loop(spec, hardware, checkpoints, module, source)
        finally:
            record.step = recorder.progress.step
        _conclude(record, recorder.progress, config.trainer.max_steps)
        logger.conclude(record)


def _loop(
    spec: RunSpec,
    hardware: Hardware,
    checkpoints: Checkpoints,
    module: LanguageModel,
    source: Source,
) -> None:
    """Train to the last step or to divergence; the last weights are always validated."""
    settings, recorder = spec.config.trainer, checkpoints.recorder
    accumulate, done = settings.accumulate, checkpoints.first_step
    batches = TrainingBatches(
        source, spec.config.seed, settings.max_steps * accumulate, first=done * accumulate
    )
    windows = ValidationBatches(source)
    trainer = pl.Trainer(
        accelerator={"cuda": "gpu"}.get(hardware.device, hardware.device),
        devices=1,
        # Not the one of Slurm, torchrun or MPI: what they start is a run of its own.
        plugins=[LightningEnvironment()],
        precision=hardware.precision,  # type: ignore[arg-type]
        max_steps=settings.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=accumulate,
        # Lightning counts batches here, not optimizer steps.
        val_check_interval=settings.val_every * accumulate,
        check_val_every_n_epoch=None,
        # The validation loss at initialisation is a point of the curve.
        num_sanity_val_steps=0 if checkpoints.resumed else -1,
        logger=recorder.logger,
        callbacks=[checkpoints, recorder, *_probes(spec, recorder)],
        inference_mode=False,  # as within fit: a model is compiled for one of them
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=settings.max_steps + 1,
    )
    if hardware.compile:
        first = tensors(source.batch(spec.config.seed, 0))
        seconds = compile_model(trainer, module, first, windows.pairs[0], hardware.graphs)
        recorder.display.say(f"compiled in {seconds:.0f} s, which its speed does not count")
    with stopping.politely():
        try:
            trainer.fit(module, batches, windows)
        except SIGTERMException as left:
            raise Terminated from left
        except SystemExit as left:
            # Lightning turns what a signal raised into exit(1).
            raise left.__context__ or KeyboardInterrupt() from left
        if recorder.progress.val_step != trainer.global_step:
            trainer.validate(module, windows, verbose=False)


def _probes(spec: RunSpec, recorder: Recorder) -> list[Probes]:
    every = spec.config.probes.every
    return [] if every is None else [Probes(every, spec.config.trainer.max_steps, recorder)]


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
        versions=versions(),
        git=git(),
        started=_now(),
    )


def _prepare(spec: RunSpec, record: RunRecord) -> tuple[Saved | None, list[str]]:
    """A folder to train in: as it was at the last saved state, or else empty.

    Whatever was logged after that state is taken back, for it would double the curves.
    """
    saved, left_out = latest(spec.folder, spec.id)
    if saved is not None:
        try:
            rewind(spec.folder, saved.event_sizes)
        except (OSError, NormlabError) as error:
            left_out.append(f"{error}; the run starts afresh")
            saved = None
    if saved is not None:
        record.resumed_at, record.data_digest = [saved.step], saved.data_digest
        # A record that is damaged is told by whoever reads the study; the state is whole.
        with suppress(OSError, NormlabError):
            before = RunRecord.read(spec.folder)
            record.started = before.started
            record.data_digest = before.data_digest or saved.data_digest
            record.hardware = before.hardware
            record.resumed_at = [*before.resumed_at, saved.step]
    if saved is None and spec.folder.exists():
        shutil.rmtree(spec.folder)
    remove_drafts(spec.folder)
    config = yaml.safe_dump(spec.plain, sort_keys=False)
    write_run_file(spec.folder, record, CONFIG_FILE, config)
    return saved, left_out


def _conclude(record: RunRecord, progress: Progress, max_steps: int) -> None:
    """Raises NormlabError where training ended, without divergence, before its last step."""
    diverged = progress.diverged_step is not None
    if not diverged and progress.step != max_steps:
        raise NormlabError(
            f"training ended at step {progress.step} of {max_steps}, and nothing says why; the "
            f"same command goes on with it."
        )
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
