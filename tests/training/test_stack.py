"""A stack of runs: each is the run that it is alone, whatever happens to it or to the others."""

import os
import shutil
import signal
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from normlab.archive import tags
from normlab.archive.events import read_events
from normlab.archive.lock import RunLockedError, lock_run
from normlab.archive.record import RunRecord
from normlab.config.run_spec import RunSpec
from normlab.config.schema import OptimizerConfig
from normlab.data import build_source
from normlab.errors import NormlabError
from normlab.norms import norms
from normlab.training import stack as stack_module
from normlab.training import stack_follower, stack_run
from normlab.training.checkpoints import read_checkpoint
from normlab.training.module import to_tensors
from normlab.training.run import train
from normlab.training.stack import Stack, StackBatches, StackModule
from normlab.training.stack_follower import StackFollower
from normlab.training.stack_groups import build_stack_model
from normlab.training.stack_run import train_stack
from normlab.training.stacked_adamw import StackedAdamW
from normlab.training.tensorboard import RunLogger
from run_equality import CURVES, assert_same_run, read_curves
from tiny_run import TINY, InterruptingDisplay, SilentDisplay

# Logging and validation do not divide the run.
HARD = (*TINY, "trainer.max_steps=11", "trainer.val_every=4", "trainer.log_every=3")
OWN = (
    ("seed=0", "optimizer.lr=1e-3"),
    ("seed=1", "optimizer.lr=3e-4", "optimizer.betas=[0.8,0.95]", "schedule.warmup=0.4"),
    ("seed=0", "optimizer.lr=1e-2", "optimizer.weight_decay=0.5", "trainer.gradient_clip=0.1"),
)
STEPS = 11
# Its first update makes the loss of the next step infinite, or larger than the limit.
DIVERGING = ("seed=2", "optimizer.lr=1e30", "schedule.warmup=0")


@pytest.fixture
def runs(specified: Callable, tmp_path: Path) -> Callable[..., list[RunSpec]]:
    """Specifications in a folder of their own."""

    def specs_in(place: str, *own: Sequence[str]) -> list[RunSpec]:
        folder = f"output_dir={tmp_path / place}"
        return [specified(*HARD, *overrides, folder) for overrides in own or OWN]

    return specs_in


@pytest.fixture(scope="module")
def undisturbed(
    specified: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[RunSpec]]:
    """The runs of `OWN`, trained once to their end: as one stack (`stacked`), or each `alone`."""
    place = tmp_path_factory.mktemp("undisturbed")
    trained: dict[str, list[RunSpec]] = {}

    def train_once(how: str) -> list[RunSpec]:
        if how not in trained:
            folder = f"output_dir={place / how}"
            trained[how] = [specified(*HARD, *overrides, folder) for overrides in OWN]
            if how == "stacked":
                stack(trained[how])
            else:
                for spec in trained[how]:
                    train(spec, "the command", SilentDisplay())
        return trained[how]

    return train_once


def stack(specs: list[RunSpec], after: int | None = None) -> list[RunRecord]:
    displays = [SilentDisplay() for _ in specs]
    if after is not None:
        displays[0] = InterruptingDisplay(after, signal.SIGTERM)
    outcomes = train_stack(specs, "the command", displays)
    assert all(isinstance(outcome, RunRecord) for outcome in outcomes), outcomes
    return outcomes


def assert_close_runs(one: Path, other: Path) -> None:
    """The same points of the same curves, to rounding; records that say the same."""
    curves, expected = read_curves(one), read_curves(other)
    for tag in CURVES:
        assert [step for step, _ in curves[tag]] == [step for step, _ in expected[tag]]
        values, numbers = ([value for _, value in of[tag]] for of in (curves, expected))
        assert values == pytest.approx(numbers, abs=1e-4, rel=1e-4)
    a, b = RunRecord.read(one), RunRecord.read(other)
    assert (a.id, a.state, a.step) == (b.id, b.state, b.step)
    assert {**a.config, "output_dir": ""} == {**b.config, "output_dir": ""}
    assert a.files.keys() == b.files.keys()
    assert (a.parameters, a.floor, a.data_digest) == (b.parameters, b.floor, b.data_digest)
    assert a.best.step == b.best.step
    for loss in ("val_loss", "selection_loss", "test_loss"):
        assert getattr(a.final, loss) == pytest.approx(getattr(b.final, loss), abs=1e-4)
    assert list_files(one) == list_files(other)
    assert read_events(one).scalars.keys() == read_events(other).scalars.keys()


def list_files(folder: Path) -> set[str]:
    """Names, of event files without their time; a run that was stopped has a state more."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    names.discard("checkpoints/previous.ckpt")
    return {"events" if name.startswith("events.") else name for name in names}


def test_the_update_is_that_of_adamw() -> None:
    torch.manual_seed(0)
    settings = [
        OptimizerConfig(lr=1e-3),
        OptimizerConfig(lr=1e-2, betas=[0.5, 0.9], eps=1e-3, weight_decay=0.7),
        OptimizerConfig(lr=3e-2, betas=[0.0, 0.999], weight_decay=0.0),
        # In single precision 1 - beta would be 0, or off by 19 %.
        OptimizerConfig(lr=1e-2, betas=[0.99999999, 0.99999999]),
        OptimizerConfig(lr=1e-2, betas=[0.9999998, 0.9999998]),
    ]
    shapes = {"matrix": (4, 3), "gain": (3,), "scale": ()}
    values = {name: torch.randn(5, *shape) for name, shape in shapes.items()}
    stacked = {name: value.clone() for name, value in values.items()}
    optimizer = StackedAdamW(stacked, settings, [float("inf"), 0.3, *[float("inf")] * 3])
    gradients = [{name: torch.randn(5, *shape) for name, shape in shapes.items()} for _ in range(5)]
    norms = []
    for step, of_step in enumerate(gradients, 1):
        optimizer.prepare_step(step, [s.lr / step for s in settings])
        norms.append(optimizer.update(of_step))
    for row, own in enumerate(settings):
        alone = {name: torch.nn.Parameter(value[row].clone()) for name, value in values.items()}
        groups = [
            {"params": [alone["matrix"]], "weight_decay": own.weight_decay},
            {"params": [alone["gain"], alone["scale"]], "weight_decay": 0.0},
        ]
        reference = torch.optim.AdamW(groups, lr=own.lr, betas=tuple(own.betas), eps=own.eps)
        for step, of_step in enumerate(gradients, 1):
            for name, parameter in alone.items():
                parameter.grad = of_step[name][row].clone()
            norm = torch.nn.utils.clip_grad_norm_(alone.values(), 0.3 if row == 1 else float("inf"))
            torch.testing.assert_close(norms[step - 1][row], norm)
            for group in reference.param_groups:
                group["lr"] = own.lr / step
            reference.step()
        for name, parameter in alone.items():
            torch.testing.assert_close(stacked[name][row], parameter.detach())
            state = reference.state[parameter]
            torch.testing.assert_close(optimizer.first[name][row], state["exp_avg"])
            torch.testing.assert_close(optimizer.second[name][row], state["exp_avg_sq"])


def test_the_runs_of_a_stack_are_those_that_they_are_alone(undisturbed: Callable) -> None:
    for spec, reference in zip(undisturbed("stacked"), undisturbed("alone"), strict=True):
        assert RunRecord.read(spec.folder).state == "finished"
        assert_close_runs(spec.folder, reference.folder)
        hardware = RunRecord.read(spec.folder).hardware
        assert hardware["stack"]["runs"] == 3
        assert not hardware["stack"]["graph"]
        ours, theirs = (
            read_checkpoint(run.folder / "checkpoints" / "last.ckpt") for run in (spec, reference)
        )
        assert ours.keys() == theirs.keys()
        assert ours["optimizer"]["param_groups"] == theirs["optimizer"]["param_groups"]
        assert torch.equal(ours["random"]["cpu"], theirs["random"]["cpu"])
        best, best_alone = (
            read_checkpoint(run.folder / "checkpoints" / "best.ckpt") for run in (spec, reference)
        )
        for a, b in ((ours, theirs), (best, best_alone)):
            for name, value in b["state_dict"].items():
                torch.testing.assert_close(a["state_dict"][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("after", [3, 8])
def test_a_stopped_stack_goes_on_as_if_it_had_never_stopped(
    after: int, runs: Callable, undisturbed: Callable
) -> None:
    with pytest.raises(KeyboardInterrupt):
        stack(runs("stopped"), after)
    for spec in runs("stopped"):
        record = RunRecord.read(spec.folder)
        assert record.state == "interrupted"
        assert "SIGTERM" in (record.reason or "")
    stack(runs("stopped"))
    for spec, whole in zip(runs("stopped"), undisturbed("stacked"), strict=True):
        assert_same_run(spec.folder, whole.folder)
        assert RunRecord.read(spec.folder).resumed_at != []


def test_a_stack_stopped_before_its_first_step_is_validated_once(
    runs: Callable, undisturbed: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = undisturbed("stacked")
    validate = StackModule.on_validation_epoch_end

    def stop_after(module: StackModule) -> None:
        validate(module)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(StackModule, "on_validation_epoch_end", stop_after)
        with pytest.raises(KeyboardInterrupt):
            stack(runs("stopped"))
    steps = []
    write_scalar = RunLogger.write_scalar

    def note_step(logger: RunLogger, tag: str, value: float, step: int) -> None:
        if tag == tags.VALIDATION_LOSS:
            steps.append(step)
        write_scalar(logger, tag, value, step)

    monkeypatch.setattr(RunLogger, "write_scalar", note_step)
    stack(runs("stopped"))
    assert 0 not in steps
    for spec, reference in zip(runs("stopped"), whole, strict=True):
        assert_same_run(spec.folder, reference.folder)


def test_a_continued_stack_stopped_at_once_is_at_the_step_that_was_logged(
    runs: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        stack(runs("stopped"), 3)
    logged = RunRecord.read(runs("stopped")[0].folder).step
    assert logged == 3

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stack_run, "build_source", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stack(runs("stopped"))
    record = RunRecord.read(runs("stopped")[0].folder)
    assert (record.step, record.reason) == (logged, f"stopped by SIGINT at step {logged}")


def test_numbers_that_are_recorded_later_are_the_same(
    runs: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = (*OWN, DIVERGING)
    stack(runs("at_once", *own))
    create = StackFollower.__init__

    def create_lagging(self: StackFollower, *arguments: object) -> None:
        create(self, *arguments)
        self.lag = 1  # as on a GPU

    monkeypatch.setattr(StackFollower, "__init__", create_lagging)
    stack(runs("later", *own))
    for spec, reference in zip(runs("later", *own), runs("at_once", *own), strict=True):
        if spec.config.seed < 2:
            assert_same_run(spec.folder, reference.folder)
    later, at_once = (RunRecord.read(runs(p, DIVERGING)[0].folder) for p in ("later", "at_once"))
    assert (later.state, later.diverged_step) == (at_once.state, at_once.diverged_step)
    assert (later.step, later.reason) == (at_once.step, at_once.reason)


def test_a_run_goes_on_alone_or_in_another_stack(runs: Callable, undisturbed: Callable) -> None:
    with pytest.raises(KeyboardInterrupt):
        stack(runs("moved"), 6)
    first, second, third = runs("moved")
    train(first, "the command", SilentDisplay())
    stack([second, third])
    with pytest.raises(KeyboardInterrupt):
        train(runs("begun")[0], "the command", InterruptingDisplay(3))
    stack(runs("begun"))  # one from its state, the others from the beginning
    for place in ("moved", "begun"):
        for spec, reference in zip(runs(place), undisturbed("alone"), strict=True):
            assert_close_runs(spec.folder, reference.folder)


def test_a_run_that_diverges_is_stopped_and_disturbs_none(
    runs: Callable, undisturbed: Callable
) -> None:
    own = (*OWN, DIVERGING)
    *records, diverged = stack(runs("stacked", *own))
    assert [record.state for record in records] == ["finished"] * 3
    train(runs("alone", DIVERGING)[0], "the command", SilentDisplay())
    alone = RunRecord.read(runs("alone", DIVERGING)[0].folder)
    assert (diverged.state, diverged.step) == ("diverged", alone.step)
    assert (diverged.diverged_step, diverged.reason) == (alone.diverged_step, alone.reason)
    assert (diverged.final.val_loss, diverged.best.step) == (None, 0)
    assert diverged.best.val_loss == pytest.approx(alone.best.val_loss)
    for spec, reference in zip(runs("stacked"), undisturbed("stacked"), strict=True):
        assert_close_runs(spec.folder, reference.folder)


def test_a_stack_killed_after_a_run_of_it_has_diverged_only_writes_its_end(runs: Callable) -> None:
    # The losses stay far above the limit, and finite: other states are refused.
    high = ("optimizer.lr=10", "schedule.warmup=0", "trainer.max_steps=40")
    whole, killed = (runs(place, *((f"seed={s}", *high) for s in (0, 1))) for place in ("a", "b"))
    assert [record.state for record in stack(whole)] == ["diverged"] * 2
    shutil.copytree(whole[0].study_folder, killed[0].study_folder)
    for spec in killed:
        replace(RunRecord.read(spec.folder), state="running", diverged_step=None).write(spec.folder)
    stack(killed)
    for one, other in zip(killed, whole, strict=True):
        assert_same_run(one.folder, other.folder)


def test_a_loss_that_stays_above_the_limit_is_a_divergence_of_its_run(
    runs: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_step = Stack.take_step

    def enlarge_loss(self: Stack, batch: tuple) -> None:
        take_step(self, batch)
        if self.step > 2 and self.runs == 2:
            self.losses[1] *= 10

    monkeypatch.setattr(Stack, "take_step", enlarge_loss)
    long = ("trainer.max_steps=40", "trainer.val_every=40", "trainer.log_every=2")
    finished, diverged = stack(runs("long", (*long, "seed=0"), (*long, "seed=1")))
    assert finished.state == "finished"
    assert (diverged.state, diverged.diverged_step) == ("diverged", 21)
    assert diverged.reason == "the loss stood above 6.24 for 20 steps"  # 3 · ln 8


def test_too_little_memory_halves_the_stack(
    runs: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    failed: list[weakref.ref[Stack]] = []
    take_step = Stack.take_step

    def limited_step(self: Stack, batch: tuple) -> None:
        sizes.append(self.runs)
        assert all(stack() is None for stack in failed), "its memory is still held"
        if self.runs > 2 and self.step == 5:
            failed.append(weakref.ref(self))
            raise torch.OutOfMemoryError("out of memory")
        take_step(self, batch)

    monkeypatch.setattr(Stack, "take_step", limited_step)
    sentences = []

    class Listening(SilentDisplay):
        def say(self, sentence: str) -> None:
            sentences.append(sentence)

    outcomes = train_stack(runs("halved"), "the command", [Listening() for _ in OWN])
    assert [outcome.state for outcome in outcomes] == ["finished"] * 3
    assert set(sizes) == {3, 2, 1}
    assert sentences == [
        "the device has too little memory for a stack of 3 runs; they go on in stacks of 2"
    ]
    for spec in runs("halved"):
        steps = read_events(spec.folder).scalars[tags.TRAIN_LOSS].steps.tolist()
        assert steps == list(range(STEPS))


def test_a_run_fails_and_is_locked_alone(runs: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = runs("mixed")
    with lock_run(first.study_folder, first.id):
        outcomes = train_stack([first, second], "the command", [SilentDisplay()] * 2)
    assert isinstance(outcomes[0], RunLockedError)
    assert outcomes[1].state == "finished"

    class Breaking(SilentDisplay):
        def update(self, step: int, loss: float, tokens_per_second: float) -> None:
            raise OSError(28, "No space left on device")

    outcomes = train_stack(
        [first, second, third], "c", [Breaking(), SilentDisplay(), SilentDisplay()]
    )
    assert [outcome.state for outcome in outcomes] == ["failed", "finished", "finished"]
    assert outcomes[0].reason.startswith("No space left on device")


def test_the_record_says_whether_there_was_a_graph_at_the_end(
    runs: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = iter(["", "the smaller step cannot be captured"])
    monkeypatch.setattr(stack_module, "capture_step", lambda step, *_: (step, next(problems)))
    own = (*OWN, DIVERGING)
    stack(runs("smaller", *own))
    graphs = [
        RunRecord.read(spec.folder).hardware["stack"]["graph"] for spec in runs("smaller", *own)
    ]
    assert graphs == [False, False, False, True]


def test_the_clock_counts_steps_and_not_a_smaller_stack(
    runs: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    select_runs, perf_counter, passed = Stack.select_runs, time.perf_counter, 0.0

    def select_slowly(self: Stack, rows: Sequence[int]) -> None:
        nonlocal passed
        passed += 1e6
        select_runs(self, rows)

    def wait_for_steps() -> None:
        nonlocal passed
        passed += 1e3

    clock = SimpleNamespace(perf_counter=lambda: perf_counter() + passed)
    monkeypatch.setattr(stack_follower, "time", clock)
    monkeypatch.setattr(Stack, "select_runs", select_slowly)
    monkeypatch.setattr(stack_follower, "wait_for_cuda", wait_for_steps)
    *records, _ = stack(runs("timed", *OWN, DIVERGING))
    assert passed > 1e6
    for record in records:
        assert 1e3 / 4 < record.train_seconds < 1e5


@pytest.mark.parametrize(
    ("device", "compiled", "rest", "gains"),
    [
        ("cpu", True, 3, True),
        ("cuda", False, 3, False),
        ("cuda", False, 2, True),
        ("cuda", True, 1, False),
    ],
)
def test_a_compiled_stack_on_a_gpu_keeps_runs_that_have_ended(
    device: str, compiled: bool, rest: int, gains: bool
) -> None:
    of_four = SimpleNamespace(
        stack=SimpleNamespace(device=torch.device(device), compiled=compiled), members=[None] * 4
    )
    assert StackFollower._gains_from_leaving(of_four, rest) == gains


def build_small_stack(specs: Sequence[RunSpec], precision: str = "32-true") -> StackBatches:
    first = specs[0]
    source = build_source(first.plain["data"], first.config.model.context)
    models = [build_stack_model(spec.config, source.vocabulary) for spec in specs]
    configs = [spec.config for spec in specs]
    small = Stack(models, configs, torch.device("cpu"), precision)
    return StackBatches(source, small, first.config.trainer.max_steps)


def test_on_a_gpu_windows_are_validated_in_parts(
    runs: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = build_small_stack(runs("none"))
    small = batches.stack
    assert small._sequences_at_once(16) == 16
    small.device = torch.device("cuda")  # three runs, batches of four sequences
    assert [small._sequences_at_once(count) for count in (9, 16)] == [4, 5]
    small.configs = small.configs[:1]
    assert small._sequences_at_once(16) == 16

    small = build_small_stack(runs("none")).stack
    windows = to_tensors(batches.source.validation()[0])
    sizes: list[int] = []
    map_loss = small._map_loss

    def note_size(dims: tuple, tokens: Tensor, *rest: object) -> Tensor:
        sizes.append(len(tokens))
        return map_loss(dims, tokens, *rest)

    monkeypatch.setattr(small, "_map_loss", note_size)
    at_once = small.token_losses(windows)
    monkeypatch.setattr(small, "_sequences_at_once", lambda count: 5)
    torch.testing.assert_close(small.token_losses(windows), at_once)
    assert at_once.shape == (3, 16, 16)
    assert sizes == [16, 5, 5, 5, 1]


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
def test_norms_that_take_bf16_as_it_is_can_be_mapped(
    norm: str, specified: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where torch's own kernels of these norms add up in fp32."""
    options = (*TINY, f"norm={norm}", "placement=output")
    specs = [specified(*options, f"seed={seed}") for seed in range(2)]
    batches = build_small_stack(specs, "bf16-mixed")
    batch = batches.batch(0)
    expected, wide = batches.stack.losses_and_gradients(batch)
    direct = 0

    def accumulates(x: Tensor) -> bool:
        nonlocal direct
        direct += x.dtype is torch.bfloat16
        return x.dtype is torch.bfloat16

    monkeypatch.setattr(norms, "accumulates_in_fp32", accumulates)
    losses, gradients = batches.stack.losses_and_gradients(batch)
    assert direct > 0
    torch.testing.assert_close(losses, expected, rtol=1e-2, atol=0)
    for name, gradient in gradients.items():
        scale = float(wide[name].abs().max())
        assert float((gradient - wide[name]).abs().max()) < 0.05 * scale, name


@pytest.mark.parametrize("other", [0, 1, 2])
def test_a_run_whose_model_differs_in_a_number_that_is_no_tensor_is_refused(
    other: int, specified: Callable
) -> None:
    """The runs of a stack are computed by one module, so such a run would get another's number."""
    # With the usual weights the first loss is nearly that of a uniform guess, whatever the norm.
    large = (*TINY, "model.init.std=0.5")
    specs = [specified(*large, f"norm.eps={9.0 if row == other else 1e-5}") for row in range(3)]
    source = build_source(specs[0].plain["data"], specs[0].config.model.context)
    models = [build_stack_model(spec.config, source.vocabulary) for spec in specs]
    mixed = Stack(models, [spec.config for spec in specs], torch.device("cpu"), "32-true")
    with pytest.raises(NormlabError, match="not what it is for a run alone"):
        mixed.prepare(StackBatches(source, mixed, 1).batch(0))
