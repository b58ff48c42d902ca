"""Train the runs of a stack: each ends in the folder that it would have alone.

    outcomes = train_stack(specs, command, displays)

Every run has its own lock, record, log, event file, saved states and checks for divergence
(training/run.py and its parts); only the steps are taken together. A run whose folder cannot be
written, or that diverges, ends alone. A state that a stack saved can be continued alone or in
another stack, and the other way round.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normlab.archive.files import check_links
from normlab.archive.lock import RunLock, RunLockedError, lock_run
from normlab.archive.record import LOG_FILE, RunRecord, read_result
from normlab.config.run_spec import RunSpec
from normlab.data import Source, build_source
from normlab.errors import NormlabError
from normlab.model.gpt import count_parameters
from normlab.training import stopping
from normlab.training.checkpoints import Checkpoints, SavedState, restore_weights, skip_batches
from normlab.training.compilation import estimate_compilation
from normlab.training.hardware import Hardware, resolve_device, resolve_hardware
from normlab.training.lightning import (
    LightningEnvironment,
    SIGTERMException,
    pl,
    quiet_lightning,
    without_launcher_variables,
)
from normlab.training.module import LanguageModel, ValidationBatches
from normlab.training.recorder import Display
from normlab.training.run import (
    Context,
    current_time,
    describe_training,
    log,
    log_to,
    open_run_files,
    prepare_folder,
    record_failure,
    record_result,
    start_record,
    unwritable_error,
)
from normlab.training.stack import Stack, StackBatches, StackModule, Tensors
from normlab.training.stack_groups import (
    build_stack_model,
    find_model_obstacle,
    find_setting_obstacle,
)
from normlab.training.stopping import InterruptedTrainingError, Terminated

# A run's record; or why it has none: another process trains it, or its folder cannot be written.
Outcome = RunRecord | RunLockedError | NormlabError


@dataclass
class Member:
    """One run of a stack, from its lock to its outcome."""

    spec: RunSpec
    display: Display
    lock: RunLock | None = None
    outcome: Outcome | None = None
    record: RunRecord | None = None
    saved: SavedState | None = None
    files: Checkpoints | None = None
    module: LanguageModel | None = None  # the run alone: names, shapes, the optimizer's groups
    optimizer: Any = None
    best_step: int | None = None  # of weights that are not on the disk yet

    @property
    def first_step(self) -> int:
        """Updates that are done before this process begins."""
        return self.saved.step if self.saved else 0

    @contextmanager
    def own_failures(self) -> Iterator[None]:
        """Let what goes wrong with this run's files end this run, and no other."""
        try:
            yield
        except (OSError, NormlabError) as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Record that the run failed."""
        assert self.record is not None
        with suppress(OSError), log_to(self.spec.folder / LOG_FILE):
            record_failure(self.spec, self.record, error)
        self.end()

    def end(self) -> None:
        """Write the record as it is, and close the event file."""
        record = self.record
        assert record is not None
        self.outcome, record.ended = record, current_time()
        try:
            if self.files is not None:
                record.step = self.files.recorder.progress.step
                self.files.recorder.logger.experiment.close()
            with log_to(self.spec.folder / LOG_FILE):
                log.info("%s at step %d %s", record.state, record.step, record.reason or "")
            record.write(self.spec.folder)
        except OSError as error:
            self.outcome = unwritable_error(self.spec, error)


def train_stack(
    specs: Sequence[RunSpec], command: str, displays: Sequence[Display]
) -> list[Outcome]:
    """Train runs that can share a stack (`stack_groups.plan_stacks`), from their saved states.

    A failure is recorded, not raised. A run that has a result is left alone. Where the memory of
    the device is not enough, the stack is halved.

    Raises:
        KeyboardInterrupt: a signal stopped them; the records say so.
    """
    threads = torch.get_num_threads()
    members = [Member(spec, display) for spec, display in zip(specs, displays, strict=True)]
    try:
        with ExitStack() as locks:
            for member in members:
                _lock_member(member, locks)
            pending = _active(members)
            if pending:
                _train_or_record_interruption(pending, command)
    finally:
        torch.set_num_threads(threads)
    return [_outcome_of(member) for member in members]


def train_single(spec: RunSpec, command: str, display: Display) -> RunRecord:
    """Train one run as a stack of one: as `training.run.train`, by the kernels of a stack."""
    (outcome,) = train_stack([spec], command, [display])
    if isinstance(outcome, RunRecord):
        return outcome
    raise outcome


def gains_from_stack(spec: RunSpec) -> bool:
    """Whether a single run is faster as a stack of one: on a GPU, whose step is then one graph."""
    trainer = spec.config.trainer
    if trainer.stack != "auto" or resolve_device(trainer) != "cuda":
        return False
    return not (find_setting_obstacle(spec.config) or find_model_obstacle(spec.config))


def _train_or_record_interruption(members: Sequence[Member], command: str) -> None:
    try:
        with quiet_lightning(), without_launcher_variables():
            _train_members(members, command)
    except (KeyboardInterrupt, InterruptedTrainingError) as error:
        signum = stopping.signal_of(error)
        for member in _active(members):
            if member.record is not None:
                step = member.first_step if member.files is None else _step_of(member)
                member.record.state = "interrupted"
                member.record.reason = f"stopped by {signum.name} at step {step}"
                member.end()
        raise stopping.interruption_for(signum) from error
    stopping.raise_requested()


def _lock_member(member: Member, locks: ExitStack) -> None:
    spec = member.spec
    try:
        member.lock = locks.enter_context(lock_run(spec.study_folder, spec.id))
        check_links(spec.folder)
        member.outcome = read_result(spec.folder)
    except (RunLockedError, NormlabError) as error:
        member.outcome = error
    except OSError as error:
        member.outcome = unwritable_error(spec, error)


def _outcome_of(member: Member) -> Outcome:
    assert member.outcome is not None, "a run that was not interrupted has ended"
    return member.outcome


def _train_members(members: Sequence[Member], command: str) -> None:
    """Train them in one stack for each step at which they go on."""
    stacks: dict[tuple[int, int], list[Member]] = defaultdict(list)
    for member in members:
        _prepare_member(member, command)
        if member.outcome is None:
            stacks[member.first_step, _waiting_steps(member)].append(member)
    for together in stacks.values():
        halves = _train_together(together)
        for half in halves:
            _train_members(half, command)


def _waiting_steps(member: Member) -> int:
    """How many steps of the saved state are still to be logged."""
    losses = None if member.saved is None else member.saved.content["recorder"]["losses"]
    return 0 if losses is None else len(losses)


def _prepare_member(member: Member, command: str) -> None:
    spec = member.spec
    member.files = member.module = member.saved = member.best_step = None
    member.record = start_record(spec, command)
    try:
        member.saved, problems = prepare_folder(spec, member.record)
        with log_to(spec.folder / LOG_FILE):
            for sentence in problems:
                log.warning("%s", sentence)
                member.display.say(sentence)
        if member.saved is not None:
            member.display.say(f"goes on from step {member.saved.step}")
    except OSError as error:
        member.outcome = unwritable_error(spec, error)


def _train_together(members: list[Member]) -> list[list[Member]]:
    """Train runs that go on at the same step; what is to be tried again, in smaller stacks."""
    try:
        _fit_members(members)
    except InterruptedTrainingError:
        raise
    except torch.OutOfMemoryError as error:
        for member in _active(members):
            if member.files is not None:
                member.files.recorder.logger.experiment.close()
        if len(members) > 1:
            size = -(-len(members) // 2)
            members[0].display.say(
                f"the device has too little memory for a stack of {len(members)} runs; they go on "
                f"in stacks of {size}"
            )
            return [_active(members[:size]), _active(members[size:])]
        reason = "the device has too little memory for one run; a smaller data.batch_size helps"
        _fail_members(members, NormlabError(f"{reason} ({' '.join(str(error).split())[:100]})"))
    except Exception as error:
        _fail_members(members, error)
    return []


def _fail_members(members: Sequence[Member], error: Exception) -> None:
    for member in _active(members):
        member.fail(error)


def _active(members: Sequence[Member]) -> list[Member]:
    return [member for member in members if member.outcome is None]


def _step_of(member: Member) -> int:
    assert member.files is not None
    return member.files.recorder.progress.step


def _fit_members(members: list[Member]) -> None:
    first = members[0].spec
    assert members[0].record is not None
    hardware = resolve_hardware(first.config.trainer, members[0].record.threads)
    source = build_source(first.plain["data"], first.config.model.context)
    for member in members:
        _open_member(member, source, hardware)
    members = _active(members)
    if not members:
        return
    modules = [member.module for member in members if member.module is not None]
    stack = Stack(
        [module.model for module in modules],
        [member.spec.config for member in members],
        torch.device(hardware.device),
        hardware.precision,
    )
    _restore_stack(stack, members)
    batches = StackBatches(source, stack, first.config.trainer.max_steps)
    stack.prepare(batches.batch(min(stack.step, batches.count - 1)))
    _compile_where_it_pays(stack, members[0].display, hardware, batches.count)
    for member in members:
        assert member.record is not None
        member.record.hardware["stack"] = {
            "runs": len(members),
            "attention": "explicit",
            "norms": "torch",
            "graph": stack.graph,
            "compiled": stack.compiled,
        }
        with member.own_failures():
            member.record.write(member.spec.folder)
    follower = StackFollower(stack, members, ValidationBatches(source))
    _fit_stack(follower, batches, hardware)
    follower.finish()


def _compile_where_it_pays(
    stack: Stack, display: Display, hardware: Hardware, max_steps: int
) -> None:
    compiled = hardware.compile
    if hardware.compile_if_faster:
        steps = max_steps - stack.step
        estimate = estimate_compilation(stack.step_seconds(), steps, stacked=True)
        display.say(str(estimate))
        compiled = estimate.pays
    if compiled:
        began = time.perf_counter()
        stack.compile_step()
        seconds = time.perf_counter() - began
        display.say(f"compiled in {seconds:.0f} s, which its speed does not count")


def _open_member(member: Member, source: Source, hardware: Hardware) -> None:
    """Build the run's model, and open its files."""
    spec, record = member.spec, member.record
    assert record is not None
    assert member.lock is not None
    with member.own_failures(), log_to(spec.folder / LOG_FILE):
        model = build_stack_model(spec.config, source.vocabulary)
        describe_training(spec, record, source, count_parameters(model), hardware)
        module = LanguageModel(model, spec.config)
        optimizer = module.configure_optimizers()["optimizer"]
        if member.saved is not None:
            restore_weights(member.saved, module, optimizer)
        context = Context(member.display, member.lock, member.saved)
        member.files = open_run_files(spec, record, context, source)
        if member.saved is not None:
            member.files.restore_progress(member.saved)
        member.module, member.optimizer = module, optimizer


def _restore_stack(stack: Stack, members: Sequence[Member]) -> None:
    """Put the moments of saved states into the stack; its weights come with the models."""
    stack.step = members[0].first_step
    for row, member in enumerate(members):
        for name, parameter in _optimized_parameters(member):
            moments = member.optimizer.state.get(parameter)
            if moments:
                stack.optimizer.first[name][row] = moments["exp_avg"]
                stack.optimizer.second[name][row] = moments["exp_avg_sq"]
        member.optimizer.state.clear()


def _optimized_parameters(member: Member) -> list[tuple[str, Tensor]]:
    """Names and parameters in the order of the optimizer."""
    assert member.module is not None
    names = {parameter: name for name, parameter in member.module.model.named_parameters()}
    groups = member.optimizer.param_groups
    return [(names[parameter], parameter) for group in groups for parameter in group["params"]]


def _fit_stack(follower: "StackFollower", batches: StackBatches, hardware: Hardware) -> None:
    stack, settings = follower.stack, follower.settings
    trainer = pl.Trainer(
        accelerator={"cuda": "gpu"}.get(hardware.device, hardware.device),
        devices=1,
        plugins=[LightningEnvironment()],
        precision="32-true",  # the stack has its own autocast
        max_epochs=1,
        val_check_interval=settings.val_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0 if stack.step else -1,
        logger=False,
        callbacks=[follower],
        inference_mode=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with stopping.defer_signals():
        try:
            trainer.fit(StackModule(stack), batches, follower.windows)
        except SIGTERMException as error:
            raise Terminated from error
        except SystemExit as error:
            # Lightning turns what a signal raised into exit(1).
            raise error.__context__ or KeyboardInterrupt() from error


class StackFollower(pl.Callback):
    """Records the steps of every run of a stack, and saves their states.

    A row of the stack is the run of the same row in `members`; runs that have ended are active no
    more, and leave the stack where that is worth it.
    """

    def __init__(self, stack: Stack, members: list[Member], windows: ValidationBatches) -> None:
        self.stack, self.members, self.windows = stack, members, windows
        # The same for all runs of a stack.
        self.settings = members[0].spec.config.trainer
        self._losses: list[Tensor] = []  # (R,) of each step that is still to be logged
        self._norms: list[Tensor] = []
        self._elapsed = 0.0  # seconds of training of these steps, before a stop
        self._clock = self._saved_at = time.perf_counter()
        self._best: Tensors = {}  # (R, …): weights of the lowest validation loss of each run
        self._restore_waiting()

    @property
    def active(self) -> list[tuple[int, Member, Checkpoints]]:
        """The runs that go on, with their rows and files."""
        return [
            (row, member, member.files)
            for row, member in enumerate(self.members)
            if member.outcome is None and member.files is not None
        ]

    def finish(self) -> None:
        """Record the results of the runs that have come to their last step."""
        losses: list[float] | None = None
        for row, member, files in self.active:
            with member.own_failures():
                if files.recorder.progress.val_step != self.stack.step:
                    losses = losses or self._validation_losses()
                    self._record_validation(row, member, files, losses[row])
                self._write_best(row, member, files)
                self._record_end(member, files)

    def on_sanity_check_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Have a signal during the first validation noted as any other."""
        stopping.defer_signals_again()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock; begin at the step of the saved states."""
        stopping.defer_signals_again()  # Lightning has just taken the signals
        skip_batches(trainer, self.stack.step)
        self._clock = time.perf_counter() - self._elapsed
        self._saved_at = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time to, or when a signal asked for it; then stop."""
        for _, member, _ in self.active:
            assert member.lock is not None
            member.lock.renew_note()
        if stopping.requested_signal():
            self._save_states()
            raise InterruptedTrainingError
        if time.perf_counter() - self._saved_at >= self.settings.save_seconds:
            self._save_states()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep the losses; every so many steps read what was kept."""
        self._losses.append(self.stack.losses.clone())
        self._norms.append(self.stack.norms.clone())
        if len(self._losses) >= self.settings.log_every:
            self._record_steps(trainer)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Read what is kept, and stop the clock of training."""
        self._record_steps(trainer)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Record the validation losses; start the clock of training again."""
        losses: list[float] = module.validation_losses  # type: ignore[assignment]
        for row, member, files in self.active:
            with member.own_failures():
                self._record_validation(row, member, files, losses[row])
        self._clock = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Read what is still kept, and save the last states."""
        self._record_steps(trainer)
        self._save_states()

    def _restore_waiting(self) -> None:
        """Take over the steps that saved states have still to log."""
        saved = [m.saved.content["recorder"] for m in self.members if m.saved is not None]
        if len(saved) == len(self.members) and saved[0]["losses"] is not None:
            device = self.stack.device
            for name, rows in (("losses", self._losses), ("norms", self._norms)):
                rows += list(torch.stack([state[name] for state in saved], dim=1).to(device))
            self._elapsed = sum(state["elapsed"] for state in saved)  # shares, as below

    def _record_steps(self, trainer: pl.Trainer) -> None:
        if not self._losses:
            return
        # The one wait for the device: (2, steps, R).
        kept = torch.stack((torch.stack(self._losses), torch.stack(self._norms)))
        losses, norms = kept.transpose(1, 2).tolist()
        self._losses.clear()
        self._norms.clear()
        now = time.perf_counter()
        # A run's share of the time, so that the runs of a study add up to what it took.
        seconds, self._clock = (now - self._clock) / self.stack.runs, now
        tokens = len(losses[0]) * self._tokens_of_step()
        rates = self.stack.rates
        diverged = []
        for row, member, files in self.active:
            with member.own_failures():
                files.recorder.record_steps(losses[row], norms[row], tokens, seconds, rates[row])
                if files.recorder.progress.diverged_step is not None:
                    diverged.append((row, member, files))
        if diverged:
            self._end_diverged(diverged)
        self._drop_ended(trainer)

    def _tokens_of_step(self) -> int:
        config = self.members[0].spec.config
        return config.data.batch_size * config.model.context

    def _end_diverged(self, diverged: Sequence[tuple[int, Member, Checkpoints]]) -> None:
        """Save, validate and record runs that have diverged, as training alone ends them."""
        self._save_states({row for row, _, _ in diverged})
        losses = self._validation_losses()
        for row, member, files in diverged:
            if member.outcome is None:
                with member.own_failures():
                    self._record_validation(row, member, files, losses[row])
                    self._write_best(row, member, files)
                    self._record_end(member, files)
        self._clock = time.perf_counter()

    def _drop_ended(self, trainer: pl.Trainer) -> None:
        rows = [row for row, _, _ in self.active]
        if not rows:
            trainer.should_stop = True
        # On a GPU the smaller step has to be captured anew, which takes about a second.
        elif len(rows) < len(self.members) and (
            self.stack.device.type != "cuda" or 2 * len(rows) <= len(self.members)
        ):
            self.members = [self.members[row] for row in rows]
            self._best = {name: best[rows] for name, best in self._best.items()}
            self.stack.select_runs(rows)

    def _validation_losses(self) -> list[float]:
        module = StackModule(self.stack)
        module.on_validation_epoch_start()
        for index, batch in enumerate(self.windows):
            module.validation_step(batch, index)
        module.on_validation_epoch_end()
        return module.validation_losses

    def _record_validation(self, row: int, member: Member, files: Checkpoints, loss: float) -> None:
        step = files.recorder.progress.step
        files.recorder.record_validation(loss, step)
        if loss < files.best:
            files.best, member.best_step = loss, step
            # They stay on the device until states are saved: a file each time would take longer
            # than the steps between.
            for name, parameter in self.stack.parameters.items():
                best = self._best.setdefault(name, torch.zeros_like(parameter.detach()))
                best[row] = parameter.detach()[row]

    def _save_states(self, rows: set[int] | None = None) -> None:
        """Save the states of all active runs, or of those in these rows."""
        began = time.perf_counter()
        stack, optimizer = self.stack, self.stack.optimizer
        # Each stacked tensor comes from the device as a whole.
        weights, first, second = (
            {name: tensor.detach().cpu() for name, tensor in table.items()}
            for table in (stack.parameters, optimizer.first, optimizer.second)
        )
        rates = stack.rates
        tokens = len(self._losses) * self._tokens_of_step()
        none = torch.zeros(0, stack.runs)
        losses, norms = (
            torch.stack(series).cpu() if series else none for series in (self._losses, self._norms)
        )
        for row, member, files in self.active:
            if rows is not None and row not in rows:
                continue
            with member.own_failures():
                elapsed = (began - self._clock) / stack.runs
                files.recorder.keep_steps(losses[:, row], norms[:, row], tokens, elapsed)
                self._write_best(row, member, files)
                moments = stack.row_weights(row, first), stack.row_weights(row, second)
                files.write_state(
                    stack.step,
                    _module_state(member, stack.row_weights(row, weights)),
                    _optimizer_state(member, stack, moments, rates[row]),
                    _random_state(member.spec.config.seed),
                )
        now = time.perf_counter()
        self._clock += now - began
        if rows is None:
            self._saved_at = now

    def _write_best(self, row: int, member: Member, files: Checkpoints) -> None:
        if member.best_step is not None:
            weights = self.stack.row_weights(row, self._best)
            files.write_best(member.best_step, _module_state(member, weights))
            member.best_step = None

    def _record_end(self, member: Member, files: Checkpoints) -> None:
        assert member.record is not None
        progress = files.recorder.progress
        record_result(member.record, progress, self.settings.max_steps)
        files.recorder.logger.write_end(member.record)
        member.end()


def _module_state(member: Member, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The state of the run's own module with these weights of its model."""
    assert member.module is not None
    return {
        **member.module.state_dict(),
        **{f"model.{name}": value for name, value in weights.items()},
    }


def _optimizer_state(
    member: Member, stack: Stack, moments: tuple[Tensors, Tensors], rate: float
) -> dict[str, Any]:
    """The state of torch's AdamW for the run."""
    first, second = moments
    groups = member.optimizer.state_dict()["param_groups"]
    for group in groups:
        group["lr"] = rate
    state = {
        index: {
            "step": torch.tensor(float(stack.step)),
            "exp_avg": first[name],
            "exp_avg_sq": second[name],
        }
        for index, (name, _) in enumerate(_optimized_parameters(member))
        if stack.step > 0 and name not in stack.optimizer.untouched
    }
    return {"state": state, "param_groups": groups}


def _random_state(seed: int) -> dict[str, Tensor]:
    """What a run alone has: seeded, and with nothing drawn, for a stack has no dropout."""
    return {"cpu": torch.Generator().manual_seed(seed).get_state()}
