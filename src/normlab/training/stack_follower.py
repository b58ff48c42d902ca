"""Follow the runs of a stack while it trains: each run's record, event file and saved states."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normlab.archive.lock import RunLockedError
from normlab.archive.record import LOG_FILE, RunRecord
from normlab.config.run_spec import RunSpec
from normlab.errors import NormlabError
from normlab.training import stopping
from normlab.training.checkpoints import Checkpoints, SavedState, skip_batches
from normlab.training.hardware import wait_for_cuda
from normlab.training.lightning import pl
from normlab.training.module import LanguageModel, ValidationBatches, ValidationLoss
from normlab.training.recorder import Display, Progress
from normlab.training.run import (
    check_trained_model,
    current_time,
    log,
    log_to,
    record_failure,
    record_result,
    unwritable_error,
)
from normlab.training.stack import Stack, StackModule, Tensors, row_weights
from normlab.training.stopping import InterruptedTrainingError

# A run's record; or why it has none: another process trains it, or its folder cannot be written.
Outcome = RunRecord | RunLockedError | NormlabError


@dataclass
class Member:
    """One run of a stack, from its lock to its outcome."""

    spec: RunSpec
    display: Display
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
    def isolate_failures(self) -> Iterator[None]:
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


class FollowedRun(NamedTuple):
    """A run that goes on, with its row of the stack and its files."""

    row: int
    member: Member
    files: Checkpoints

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        return self.files.recorder.progress


class Readout:
    """Numbers on their way from the device, in the order of its work; nothing waits for them."""

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._values = values
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def wait(self) -> Tensor:
        """The values, on the CPU."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.cpu()


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
        self._readouts: deque[Readout] = deque()
        # On a GPU numbers are recorded while it computes the next ones: writing them takes a
        # quarter of a stack's time or more. A run that diverges then ends so many times `log_every`
        # steps later.
        self.lag = 1 if stack.device.type == "cuda" else 0
        self._elapsed = 0.0  # seconds of training of these steps, before a stop
        self._clock = self._saved_at = time.perf_counter()
        self._best: Tensors = {}  # (R, …): weights of the lowest validation loss of each run
        self._restore_waiting()

    @property
    def active(self) -> list[FollowedRun]:
        """The runs that go on, with their rows and files."""
        return [
            FollowedRun(row, member, member.files)
            for row, member in enumerate(self.members)
            if member.outcome is None and member.files is not None
        ]

    def finish(self) -> None:
        """Record the results of the runs that have come to their last step."""
        late = [run for run in self.active if run.progress.val_step != self.stack.step]
        if late:
            self._record_validations(late, self._validation_losses())
        for row, member, files in self.active:
            with member.isolate_failures():
                self._write_best(row, member, files)
                self._check_trained(row, member)
                self._record_end(member, files)

    def _check_trained(self, row: int, member: Member) -> None:
        """Try the trained model, as a run alone is. Raises NormlabError if it sees the future."""
        assert member.module is not None
        if member.spec.config.allow_leak:
            return
        # On the CPU, where the run's own model and the windows are.
        weights = row_weights(row, self.stack.parameters)
        member.module.load_state_dict(_module_state(member, weights))
        check_trained_model(member.module, self.windows, self.stack.precision)

    def on_sanity_check_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Have a signal during the first validation noted as any other."""
        stopping.defer_signals_again()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock; begin at the step of the saved states."""
        stopping.defer_signals_again()  # Lightning has just taken the signals
        skip_batches(trainer, self.stack.step)
        # Killed after their last states, before their records were written.
        if diverged := [run for run in self.active if run.progress.diverged_step is not None]:
            self._end_diverged(diverged)
            self._drop_ended(trainer)
        self._clock = time.perf_counter() - self._elapsed
        self._saved_at = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time to, or when a signal asked for it; then stop."""
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
            self._begin_readout()
            while len(self._readouts) > self.lag:
                self._record_steps(trainer, self._readouts.popleft())

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Read what is kept, and stop the clock of training."""
        self._record_all(trainer)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Record the validation losses; start the clock of training again."""
        losses: list[ValidationLoss] = module.validation_losses  # type: ignore[assignment]
        # The others were validated at this step before they were stopped.
        new = [run for run in self.active if run.progress.val_step != run.progress.step]
        self._record_validations(new, losses)
        self._clock = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Read what is still kept, and save the last states."""
        self._record_all(trainer)
        self._save_states()

    def _restore_waiting(self) -> None:
        """Take over the steps that saved states have still to log."""
        saved = [member.saved for member in self.members if member.saved is not None]
        waiting = [state.waiting for state in saved if state.waiting is not None]
        if len(waiting) == len(self.members):
            losses, norms = zip(*waiting, strict=True)
            for rows, values in ((self._losses, losses), (self._norms, norms)):
                rows += list(torch.stack(values, dim=1).to(self.stack.device))
            # Each state holds its run's share of the time, as `_save_states` divides it.
            self._elapsed = sum(state.plain.recorder.elapsed for state in saved)

    def _begin_readout(self) -> None:
        """Start to read the losses and norms that are kept, (2, steps, R)."""
        if self._losses:
            waiting = torch.stack((torch.stack(self._losses), torch.stack(self._norms)))
            self._readouts.append(Readout(waiting))
            self._losses.clear()
            self._norms.clear()

    def _record_all(self, trainer: pl.Trainer) -> None:
        self._begin_readout()
        while self._readouts:
            self._record_steps(trainer, self._readouts.popleft())

    def _record_steps(self, trainer: pl.Trainer, readout: Readout) -> None:
        losses, norms = readout.wait().transpose(1, 2).tolist()  # (2, R, steps)
        now = time.perf_counter()
        # A run's share of the time, so that the runs of a study add up to what it took.
        seconds, self._clock = (now - self._clock) / self.stack.runs, now
        tokens = len(losses[0]) * self._tokens_of_step()
        # Not the stack's step, which is later where there is a lag.
        step = max((run.progress.step for run in self.active), default=0)
        rates = self.stack.rates_after(step + len(losses[0]))
        diverged = []
        for run in self.active:
            row = run.row
            with run.member.isolate_failures():
                run.files.recorder.record_steps(
                    losses[row], norms[row], tokens, seconds, rates[row]
                )
                if run.progress.diverged_step is not None:
                    diverged.append(run)
        if diverged:
            self._end_diverged(diverged)
        self._drop_ended(trainer)

    def _tokens_of_step(self) -> int:
        config = self.members[0].spec.config
        return config.data.batch_size * config.model.context

    def _end_diverged(self, diverged: Sequence[FollowedRun]) -> None:
        """Save, validate and record runs that have diverged, as training alone ends them."""
        self._save_states({run.row for run in diverged})
        losses = self._validation_losses()
        self._record_validations([run for run in diverged if run.member.outcome is None], losses)
        for row, member, files in diverged:
            if member.outcome is None:
                with member.isolate_failures():
                    self._write_best(row, member, files)
                    self._record_end(member, files)
        self._clock = time.perf_counter()

    def _drop_ended(self, trainer: pl.Trainer) -> None:
        rows = [run.row for run in self.active]
        if not rows:
            trainer.should_stop = True
        elif len(rows) < len(self.members) and self._gains_from_leaving(len(rows)):
            wait_for_cuda()
            began = time.perf_counter()
            self.members = [self.members[row] for row in rows]
            self._best = {name: best[rows] for name, best in self._best.items()}
            # What is still to be logged, of the runs that stay.
            self._losses = [losses[rows] for losses in self._losses]
            self._norms = [norms[rows] for norms in self._norms]
            self._readouts = deque(
                Readout(readout.wait()[:, :, rows]) for readout in self._readouts
            )
            self.stack.select_runs(rows)
            for member in self.members:
                if member.record is not None:
                    member.record.hardware["stack"]["graph"] = self.stack.graph
            self._clock += time.perf_counter() - began

    def _gains_from_leaving(self, rest: int) -> bool:
        """Whether the stack is worth making smaller, so that `rest` runs go on.

        On a GPU the smaller step has to be captured anew, which takes about a second, and compiled
        anew where it is compiled, which takes longer than it saves.
        """
        if self.stack.device.type != "cuda":
            return True
        return not self.stack.compiled and 2 * rest <= len(self.members)

    def _validation_losses(self) -> list[ValidationLoss]:
        module = StackModule(self.stack)
        module.on_validation_epoch_start()
        for index, batch in enumerate(self.windows):
            module.validation_step(batch, index)
        module.on_validation_epoch_end()
        return module.validation_losses

    def _record_validations(
        self, runs: Sequence[FollowedRun], losses: Sequence[ValidationLoss]
    ) -> None:
        """Record the losses, by row, of these runs; keep the weights of those that improve."""
        improved = []
        for row, member, files in runs:
            with member.isolate_failures():
                loss, step = losses[row], files.recorder.progress.step
                is_improved = files.recorder.progress.is_improved_by(loss.all_windows)
                files.recorder.record_validation(loss, step)
                if is_improved:
                    member.best_step = step
                    improved.append(row)
        if not improved:
            return
        # They stay on the device until states are saved: a file each time would take longer than
        # the steps between.
        index = torch.tensor(improved, device=self.stack.device)
        for name, parameter in self.stack.parameters.items():
            weights = parameter.detach()
            best = self._best.setdefault(name, torch.zeros_like(weights))
            best.index_copy_(0, index, weights[index])

    def _save_states(self, rows: set[int] | None = None) -> None:
        """Save the states of all active runs, or of those in these rows."""
        wait_for_cuda()  # steps that it has still to compute are training
        began = time.perf_counter()
        stack, optimizer = self.stack, self.stack.optimizer
        # Each stacked tensor comes from the device as a whole.
        weights, first, second = (
            {name: tensor.detach().cpu() for name, tensor in table.items()}
            for table in (stack.parameters, optimizer.first, optimizer.second)
        )
        rates = stack.rates_after(stack.step)
        losses, norms = self._waiting_steps()
        tokens = len(losses) * self._tokens_of_step()
        for row, member, files in self.active:
            if rows is not None and row not in rows:
                continue
            with member.isolate_failures():
                elapsed = (began - self._clock) / stack.runs
                files.recorder.keep_steps(losses[:, row], norms[:, row], tokens, elapsed)
                self._write_best(row, member, files)
                moments = row_weights(row, first), row_weights(row, second)
                files.write_state(
                    stack.step,
                    _module_state(member, row_weights(row, weights)),
                    _optimizer_state(member, stack, moments, rates[row]),
                    _random_state(member.spec.config.seed),
                )
        now = time.perf_counter()
        self._clock += now - began
        if rows is None:
            self._saved_at = now

    def _waiting_steps(self) -> Tensor:
        """Losses and norms that are still to be logged, (2, steps, R)."""
        parts = [readout.wait() for readout in self._readouts]
        if self._losses:
            waiting = torch.stack((torch.stack(self._losses), torch.stack(self._norms)))
            parts.append(waiting.cpu())
        return torch.cat([torch.zeros(2, 0, self.stack.runs), *parts], dim=1)

    def _write_best(self, row: int, member: Member, files: Checkpoints) -> None:
        if member.best_step is not None:
            weights = row_weights(row, self._best)
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
    # As torch has it: no moments before the first step, nor of what never got a gradient.
    state = {
        index: {
            "step": torch.tensor(float(stack.step)),
            "exp_avg": first[name],
            "exp_avg_sq": second[name],
        }
        for index, (name, _) in enumerate(optimized_parameters(member))
        if stack.step > 0 and name not in stack.optimizer.untouched
    }
    return {"state": state, "param_groups": groups}


def _random_state(seed: int) -> dict[str, Tensor]:
    """What a run alone has: seeded, and with nothing drawn, for a stack has no dropout."""
    return {"cpu": torch.Generator().manual_seed(seed).get_state()}


def optimized_parameters(member: Member) -> list[tuple[str, Tensor]]:
    """Names and parameters in the order of the optimizer."""
    assert member.module is not None
    names = {parameter: name for name, parameter in member.module.model.named_parameters()}
    groups = member.optimizer.param_groups
    return [(names[parameter], parameter) for group in groups for parameter in group["params"]]
