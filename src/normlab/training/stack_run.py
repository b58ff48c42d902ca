"""Train the runs of a stack: each ends in the folder that it would have alone.

    outcomes = train_stack(specs, command, displays)

Every run has its own lock, record, log, event file, saved states and checks for divergence
(training/run.py and its parts); only the steps are taken together. A run whose folder cannot be
written, or that diverges, ends without the others. A state that a stack saved can be continued
alone or in another stack, and the other way round.
"""

import gc
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack

import torch

from normlab.archive.files import check_links
from normlab.archive.lock import RunLockedError, lock_run
from normlab.archive.record import LOG_FILE, RunRecord
from normlab.config.run_spec import RunSpec
from normlab.data import Source, build_source
from normlab.errors import NormlabError
from normlab.model.gpt import count_parameters
from normlab.text import one_line
from normlab.training import stopping
from normlab.training.checkpoints import restore_weights
from normlab.training.compilation import compile_where_it_pays, decide_compilation
from normlab.training.hardware import Hardware, resolve_device, resolve_hardware
from normlab.training.lightning import (
    create_trainer,
    quiet_lightning,
    raise_signals,
    without_launcher_variables,
)
from normlab.training.module import LanguageModel, ValidationBatches
from normlab.training.recorder import Display
from normlab.training.run import (
    describe_training,
    log_to,
    open_run_files,
    prepare_folder,
    start_record,
    unwritable_error,
)
from normlab.training.stack import Stack, StackBatches, StackModule
from normlab.training.stack_follower import Member, Outcome, StackFollower, optimized_parameters
from normlab.training.stack_groups import (
    build_stack_model,
    find_model_obstacle,
    find_setting_obstacle,
)
from normlab.training.stopping import InterruptedTrainingError


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
    # A run that was not interrupted has ended.
    return [member.outcome for member in members if member.outcome is not None]


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
                files = member.files
                step = member.record.step if files is None else files.recorder.progress.step
                member.record.state = "interrupted"
                member.record.reason = f"stopped by {signum.name} at step {step}"
                member.end()
        raise stopping.interruption_for(signum) from error
    stopping.raise_requested()


def _lock_member(member: Member, locks: ExitStack) -> None:
    spec = member.spec
    try:
        locks.enter_context(lock_run(spec.study_folder, spec.id))
        check_links(spec.folder)
        # Only under the lock: another process may have finished it since it was planned.
        member.outcome = spec.read_result()
    except (RunLockedError, NormlabError) as error:
        member.outcome = error
    except OSError as error:
        member.outcome = unwritable_error(spec, error)


def _train_members(members: Sequence[Member], command: str) -> None:
    """Train them in one stack for each step at which they go on."""
    stacks: dict[tuple[int, int], list[Member]] = defaultdict(list)  # by done and logged steps
    for member in members:
        _prepare_member(member, command)
        # They differ after a kill while states were being saved, or where runs come from several
        # stacks.
        if member.outcome is None:
            logged = member.saved.logged_steps if member.saved else 0
            stacks[member.first_step, logged].append(member)
    for together in stacks.values():
        # Give back what a stack before this one held on the device.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        # Not within its `except`: the error holds the frames, and so the tensors, that filled the
        # memory.
        halves = _train_together(together)
        for half in halves:
            _train_members(half, command)


def _prepare_member(member: Member, command: str) -> None:
    spec = member.spec
    member.files = member.module = member.optimizer = None
    member.saved = member.best_step = None
    member.record = start_record(spec, command)
    try:
        member.saved = prepare_folder(spec, member.record, member.display)
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
        _fail_members(members, NormlabError(f"{reason} ({one_line(error, 100)})"))
    except Exception as error:
        _fail_members(members, error)
    return []


def _fail_members(members: Sequence[Member], error: Exception) -> None:
    for member in _active(members):
        member.fail(error)


def _active(members: Sequence[Member]) -> list[Member]:
    return [member for member in members if member.outcome is None]


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
    # After the last step there is no next batch; the stack is prepared all the same.
    stack.prepare(batches.batch(min(stack.step, batches.count - 1)))
    compile_where_it_pays(
        hardware,
        lambda: decide_compilation(stack.step_seconds(), batches.count - stack.step, stacked=True),
        stack.compile_step,
        members[0].display.say,
    )
    for member in members:
        assert member.record is not None
        member.record.hardware["compile"] = stack.compiled
        member.record.hardware["stack"] = {
            "runs": len(members),
            "attention": "explicit",
            "norms": "torch",
            "graph": stack.graph,
            "compiled": stack.compiled,
        }
        with member.isolate_failures():
            member.record.write(member.spec.folder)
    follower = StackFollower(stack, members, ValidationBatches(source))
    _fit_stack(follower, batches, hardware)
    follower.finish()


def _open_member(member: Member, source: Source, hardware: Hardware) -> None:
    """Build the run's model, and open its files."""
    spec, record = member.spec, member.record
    assert record is not None
    with member.isolate_failures(), log_to(spec.folder / LOG_FILE):
        model = build_stack_model(spec.config, source.vocabulary)
        describe_training(spec, record, source, count_parameters(model), hardware)
        module = LanguageModel(model, spec.config)
        optimizer = module.configure_optimizers()["optimizer"]
        if member.saved is not None:
            restore_weights(member.saved, module, optimizer)
        member.files = open_run_files(spec, record, member.display, member.saved, source)
        if member.saved is not None:
            member.files.recorder.restore_state(member.saved.plain.recorder, member.saved.waiting)
        member.module, member.optimizer = module, optimizer


def _restore_stack(stack: Stack, members: Sequence[Member]) -> None:
    """Put the moments of saved states into the stack; its weights come with the models."""
    stack.step = members[0].first_step
    for row, member in enumerate(members):
        for name, parameter in optimized_parameters(member):
            moments = member.optimizer.state.get(parameter)
            if moments:
                stack.optimizer.first[name][row] = moments["exp_avg"]
                stack.optimizer.second[name][row] = moments["exp_avg_sq"]
        member.optimizer.state.clear()


def _fit_stack(follower: StackFollower, batches: StackBatches, hardware: Hardware) -> None:
    stack, settings = follower.stack, follower.settings
    trainer = create_trainer(
        hardware.device,
        precision="32-true",  # the stack has its own autocast
        max_epochs=1,
        val_check_interval=settings.val_every,
        num_sanity_val_steps=0 if stack.step else -1,
        logger=False,
        callbacks=[follower],
    )
    with stopping.defer_signals(), raise_signals():
        trainer.fit(StackModule(stack), batches, follower.windows)
