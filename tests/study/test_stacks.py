"""A study in stacks: which runs share one, where each goes, and what the command leaves."""

import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from normlab.archive import tags
from normlab.archive.record import RunRecord
from normlab.config.run_spec import RunSpec
from normlab.errors import ConfigError
from normlab.study import stack_process, sweep, workers
from normlab.study.allocation import (
    MEMORY_SHARE,
    PROCESS_BYTES,
    Machine,
    estimate_memory,
    estimate_parameters,
)
from normlab.study.parallel_runs import StudyLauncher
from normlab.study.stack_allocation import (
    StackAllocation,
    StackRequest,
    allocate_stacks,
    card_environment,
    distribute_stacks,
    split_evenly,
)
from normlab.training import hardware
from normlab.training.stack_groups import (
    check_explicit_request,
    find_difference,
    find_setting_obstacle,
    plan_stacks,
)
from run_equality import assert_same_run, list_steps
from study_process import Process, end_processes, read_records, read_rows, shell_code
from tiny_run import TINY

GIB = 2**30


COMPOSED: list[RunSpec] = []


def compose_once(specified: Callable) -> RunSpec:
    """A tiny run; composing takes longer than what is tested."""
    if not COMPOSED:
        COMPOSED.append(specified(*TINY))
    return COMPOSED[0]


def with_setting(spec: RunSpec, key: str, value: object) -> RunSpec:
    """The run with another value of a key such as `trainer.max_steps`."""
    section, name = key.split(".")
    part = replace(getattr(spec.config, section), **{name: value})
    plain = {**spec.plain, section: {**spec.plain.get(section, {}), name: value}}
    return replace(spec, config=replace(spec.config, **{section: part}), plain=plain)


def test_runs_share_a_stack_where_they_differ_in_numbers_only(specified: Callable) -> None:
    specs = [
        specified(*TINY),
        specified(*TINY, "seed=3", "optimizer.lr=1e-4", "schedule=constant", "model.init.std=0.1"),
        specified(*TINY, "norm=dyt"),
        specified(*TINY, "norm=dyt", "norm.alpha=0.5"),  # the start of a parameter
        specified(*TINY, "norm.eps=1e-3"),  # a constant in the model
        specified(*TINY, "trainer.max_steps=9"),
    ]
    assert plan_stacks(specs).groups == [[0, 1], [2, 3], [4], [5]]
    first = specs[0]
    assert [find_difference(first, other) for other in specs[1:]] == [
        *("", "norm._target_", "norm._target_", "norm.eps", "trainer.max_steps"),
    ]
    with pytest.raises(ConfigError, match=r"trainer.stack=2 .* they differ in norm.eps"):
        check_explicit_request(2, [first, specs[4]], plan_stacks([first, specs[4]]))


def test_where_a_study_ends_matters_to_no_stack_and_when_it_saves_does(specified: Callable) -> None:
    spec = compose_once(specified)
    other = replace(spec, plain={**spec.plain, "target": 1.5})
    assert find_difference(spec, other) == ""
    saving = with_setting(spec, "trainer.save_seconds", 5.0)
    assert find_difference(spec, saving) == "trainer.save_seconds"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.dropout", 0.1),
        ("trainer.accumulate", 2),
        ("trainer.gradient_checkpointing", True),
        ("probes.every", 5),
    ],
)
def test_a_setting_that_cannot_be_in_a_stack_is_named(
    key: str, value: object, specified: Callable
) -> None:
    spec = with_setting(compose_once(specified), key, value)
    assert find_setting_obstacle(spec.config).startswith(f"{key}={value} cannot be in a stack: ")
    plan = plan_stacks([spec])
    assert (plan.groups, list(plan.obstacles)) == ([], [0])


def test_a_norm_that_cannot_be_mapped_is_trained_alone(
    specified: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reading_norms.py").write_text(
        "import torch\n"
        "class Reading(torch.nn.Module):\n"
        "    def __init__(self, width):\n"
        "        super().__init__()\n"
        "    def forward(self, x):\n"
        "        return x / 2 if x.abs().max().item() > 1e9 else x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = compose_once(specified)
    norm = {"_target_": "reading_norms.Reading"}
    reading = replace(spec, config=replace(spec.config, norm=norm))
    plan = plan_stacks([spec, reading])
    assert plan.groups == [[0]]
    assert "vmap" in plan.obstacles[1]
    assert ".item()" in plan.obstacles[1]


def test_a_constant_of_a_norm_called_as_that_of_a_projection_is_no_start(
    specified: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`std` of a projection is how its weights are drawn; of a norm it may be what it computes."""
    (tmp_path / "constant_norms.py").write_text(
        "import torch\n"
        "class Target(torch.nn.Module):\n"
        "    def __init__(self, width, std):\n"
        "        super().__init__()\n"
        "        self.std = std\n"
        "    def forward(self, x):\n"
        "        return self.std * x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = compose_once(specified)
    specs = []
    for std in (0.1, 2.0):
        norm = {"_target_": "constant_norms.Target", "std": std}
        specs.append(
            replace(
                spec, config=replace(spec.config, norm=norm), plain={**spec.plain, "norm": norm}
            )
        )
    assert plan_stacks(specs).groups == [[0], [1]]


def test_a_group_is_split_evenly_and_no_process_waits() -> None:
    assert split_evenly(range(5), 2) == [[0], [1, 2], [3, 4]]
    assert split_evenly(range(4), 9) == [[0, 1, 2, 3]]
    queues = distribute_stacks([[0], [1, 2, 3], [4, 5], [6]], 2)
    assert queues == [[[1, 2, 3], [6]], [[4, 5], [0]]]


@pytest.mark.parametrize(
    ("cards", "jobs", "queues"),
    [(1, "auto", 1), (2, "auto", 2), (4, "auto", 4), (4, 2, 2), (2, 8, 2)],
)
def test_each_card_gets_a_process_and_work(
    cards: int, jobs: object, queues: int, specified: Callable
) -> None:
    spec = compose_once(specified)
    specs = [replace(spec, config=replace(spec.config, jobs=jobs), id=str(i)) for i in range(12)]
    request = StackRequest([list(range(8)), list(range(8, 12))], [], "", (80 * GIB,) * cards)
    sizes = {str(i): 65 for i in range(12)}
    allocation = allocate_stacks(specs, sizes, request, Machine(8, 16 * GIB))
    assert len(allocation.queues) == queues
    runs = [index for queue in allocation.queues for stack in queue for index in stack]
    assert sorted(runs) == list(range(12))
    loads = [sum(map(len, queue)) for queue in allocation.queues]
    assert max(loads) <= 12 // queues + 2


def test_a_stack_fits_into_the_memory_of_a_card(specified: Callable) -> None:
    spec = compose_once(specified)
    specs = [replace(spec, id=str(i)) for i in range(12)]
    # What a process needs without a run is the CPU's.
    need = estimate_memory(spec.config, 65) - PROCESS_BYTES
    need += 28 * estimate_parameters(spec.config, 65)  # the copies of a capture
    sizes = {str(i): 65 for i in range(12)}
    for runs, stacks in ((3.1, [3] * 4), (2.9, [2] * 6)):
        request = StackRequest([list(range(12))], [], "", (round(runs * need / MEMORY_SHARE),))
        allocation = allocate_stacks(specs, sizes, request, Machine(2, 16 * GIB))
        assert [len(stack) for stack in allocation.queues[0]] == stacks
    small = replace(request, cards=(1,))
    allocation = allocate_stacks(specs, sizes, small, Machine(2, 16 * GIB))
    assert [len(stack) for stack in allocation.queues[0]] == [1] * 12


def test_a_card_holds_the_copies_of_a_capture_too(specified: Callable) -> None:
    spec = compose_once(specified)
    specs = [replace(spec, id=str(i)) for i in range(12)]
    need = estimate_memory(spec.config, 65) - PROCESS_BYTES
    card = int((12 * need + 1000) / MEMORY_SHARE)  # without the copies, twelve runs fit
    request = StackRequest([list(range(12))], [], "", (card,))
    allocation = allocate_stacks(
        specs, {str(i): 65 for i in range(12)}, request, Machine(2, 16 * GIB)
    )
    copies = 28 * estimate_parameters(spec.config, 65)
    (queue,) = allocation.queues
    assert 1 < max(map(len, queue)) <= 12 * need / (need + copies)


def test_stacks_take_no_more_threads_than_the_environment_allows(
    specified: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = with_setting(compose_once(specified), "trainer.threads", None)
    specs = [replace(spec, id=str(i)) for i in range(4)]
    sizes, request = {str(i): 65 for i in range(4)}, StackRequest([list(range(4))], [])
    for limit, threads in (("3", 3), ("", 8)):
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        assert allocate_stacks(specs, sizes, request, Machine(8, 16 * GIB)).threads == threads


def test_a_process_sees_its_own_card() -> None:
    assert card_environment(1, None) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert card_environment(1, "4,GPU-7") == {"CUDA_VISIBLE_DEVICES": "GPU-7"}


def test_on_a_gpu_all_runs_are_stacked_or_none(
    specified: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "resolve_device", lambda trainer: "cuda")
    monkeypatch.setattr(hardware, "free_card_memory", lambda: [80 * GIB, 70 * GIB])
    spec = compose_once(specified)
    other = replace(spec, config=replace(spec.config, seed=1))
    request = workers.check_runs([spec, other], local=True).stacks
    assert request == StackRequest([[0, 1]], [], "", (80 * GIB, 70 * GIB))
    request = workers.check_runs([spec, with_setting(other, "model.dropout", 0.1)], True).stacks
    assert request is not None
    assert (request.groups, request.alone) == ([], [0, 1])
    assert request.cards == (80 * GIB, 70 * GIB)
    assert request.note.startswith("all runs are trained alone, for rmsnorm-pre-")
    alone = with_setting(spec, "trainer.stack", 1)
    assert workers.check_runs([alone, other], local=True).stacks is None


@pytest.mark.parametrize("stack", ["auto", 4])
def test_a_single_run_asks_no_card(
    stack: object, specified: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> list[int]:
        raise AssertionError("a context on every card")

    monkeypatch.setattr(hardware, "resolve_device", lambda trainer: "cuda")
    monkeypatch.setattr(hardware, "free_card_memory", refuse)
    spec = with_setting(compose_once(specified), "trainer.stack", stack)
    assert workers.check_runs([spec], local=True) == workers.CheckedRuns({"cuda"})


@pytest.mark.parametrize(("cards", "queues"), [(1, None), (4, 4)])
def test_runs_that_are_trained_alone_use_all_cards(
    cards: int, queues: int | None, specified: Callable, tmp_path: Path
) -> None:
    spec = compose_once(specified)
    config = replace(spec.config, output_dir=str(tmp_path))
    specs = [replace(spec, id=str(i), config=config) for i in range(6)]
    request = StackRequest([], list(range(6)), "why", (80 * GIB,) * cards)
    launcher = object.__new__(StudyLauncher)
    plan = SimpleNamespace(vocabularies={str(i): 65 for i in range(6)})
    with pytest.MonkeyPatch.context() as patched:
        checked = workers.CheckedRuns({"cuda"}, request)
        patched.setattr(workers, "call_in_process", lambda *_: checked)
        launch = sweep.StudySweeper._prepare_launch(SimpleNamespace(), launcher, plan, specs)
    assert launch.notes == ["why"]
    if queues is None:
        assert launch.stacks is None
        return
    assert launch.stacks is not None
    assert [len(queue) for queue in launch.stacks.queues] == [2, 2, 1, 1]
    assert launch.alone == tuple(range(6))
    assert launch.description.startswith("6 runs, each by itself, 4 of 4 cards")


def test_each_process_gets_the_stacks_of_its_card(
    specified: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    jobs = []

    class Recorded:
        def __init__(self, allocation: object, all_jobs: list) -> None:
            jobs.extend(all_jobs)

        def train(self) -> list:
            return []

    monkeypatch.setattr(stack_process, "ParallelRuns", Recorded)
    spec = compose_once(specified)
    specs = [replace(spec, id=str(index)) for index in range(5)]
    queues = [[[0, 1], [4]], [[2, 3]]]
    stack_process.train_in_stacks(specs, [4], StackAllocation(queues, 1, 2))
    assert [job.indices for job in jobs] == [[0, 1, 4], [2, 3]]
    assert [job.environment["CUDA_VISIBLE_DEVICES"] for job in jobs] == ["3", "5"]
    assert [job.train.args[1] for job in jobs] == [[False, True], [False]]
    assert [[run.id for run in stack] for stack in jobs[0].train.args[0]] == [["0", "1"], ["4"]]


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5", "null"])
def test_a_size_that_makes_no_sense_is_one_sentence(value: str, train_py: Callable) -> None:
    answer = train_py("-m", *TINY, f"trainer.stack={value}")
    assert answer.code == 2
    assert f"trainer.stack={value}" in answer.err or value == "null"
    assert "auto or a whole number from 1" in answer.err
    assert answer.err.count("\n") == 1


def test_the_size_of_a_stack_is_no_part_of_a_run(specified: Callable) -> None:
    spec, stacked = specified(*TINY), specified(*TINY, "trainer.stack=8")
    assert stacked.id == spec.id
    assert stacked.plain == spec.plain
    assert specified(*TINY, "trainer.compile=true").id != spec.id  # auto is hashed as the word


STUDY = ("-m", *TINY, "norm=rmsnorm,layernorm", "seed=0,1,2")


@pytest.mark.slow
def test_a_study_in_stacks_is_the_study(train_py: Callable, tmp_path: Path) -> None:
    stacked = train_py(*STUDY, "trainer.stack=2", "jobs=2", f"output_dir={tmp_path}/stacked")
    assert stacked.code == 0, stacked.err
    assert "4 stacks of up to 2 runs, 2 processes on the CPU" in stacked.out
    assert len(re.findall(r"^run [1-6]/6 .*  val ", stacked.out, re.MULTILINE)) == 6
    assert "Traceback" not in stacked.err + stacked.out
    alone = train_py(*STUDY, f"output_dir={tmp_path}/alone")
    ours, theirs = (read_rows(tmp_path / place / "synthetic") for place in ("stacked", "alone"))
    assert len(ours) == len(theirs) == 6
    for row, reference in zip(ours, theirs, strict=True):
        assert row.keys() == reference.keys()
        assert row["id"] == reference["id"]
        assert float(row["final.val_loss"]) == pytest.approx(float(reference["final.val_loss"]))
    sizes = [
        record.hardware["stack"]["runs"]
        for record in read_records(tmp_path / "stacked" / "synthetic").values()
    ]
    assert sorted(sizes) == [1, 1, 2, 2, 2, 2]
    # Runs that are there are not trained again; another arm, trained alone, is compared with care.
    more = train_py("-m", *TINY, "norm=rmsnorm,dyt", "seed=0,1,2", f"output_dir={tmp_path}/stacked")
    assert more.code == 0, more.err
    assert "Runs that are compared differ in how they were trained" in " ".join(more.out.split())
    assert alone.code == 0
    for path in (tmp_path / "stacked" / "synthetic").glob("*/run.json"):
        assert RunRecord.read(path.parent).state == "finished"


def test_a_size_for_runs_that_cannot_be_stacked_names_the_key(
    train_py: Callable, tmp_path: Path
) -> None:
    answer = train_py(
        "-m", *TINY, "seed=0,1", "model.dropout=0.1", "trainer.stack=4", f"output_dir={tmp_path}"
    )
    assert answer.code == 2
    assert "model.dropout=0.1 cannot be in a stack" in answer.err
    assert answer.err.count("\n") == 1
    assert not list(tmp_path.glob("*/*/run.json"))


# Long enough that something can happen to it; a state is saved at every step.
LONG = (
    *("-m", *TINY, "seed=0,1,2", "optimizer.lr=1e-3,3e-4", "trainer.stack=6"),
    *("trainer.max_steps=60", "trainer.val_every=9", "trainer.log_every=4"),
    "trainer.save_seconds=0",
)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    end_processes()


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stack_that_is_stopped_goes_on(signum: int, tmp_path: Path) -> None:
    study = tmp_path / "stopped" / "synthetic"
    arguments = (*LONG, f"output_dir={tmp_path}/stopped")
    process = Process(tmp_path, *arguments)
    assert process.until(lambda: len(list(study.glob("*/checkpoints/previous.ckpt"))) == 6)
    if signum == signal.SIGKILL:
        process.kill()
        process.end()
    else:
        process.send(signum)
        ended = process.end()
        assert ended.code == shell_code(signum)
        assert "Traceback" not in ended.err + ended.out
        states = [RunRecord.read(path.parent).state for path in study.glob("*/run.json")]
        assert states == ["interrupted"] * 6
    again = Process(tmp_path, *arguments).end()
    assert again.code == 0, again.err
    assert again.out.count("continues from step") == 6
    whole = Process(tmp_path, *LONG, f"output_dir={tmp_path}/whole").end()
    assert whole.code == 0, whole.err
    for name, record in read_records(study).items():
        other = tmp_path / "whole" / "synthetic" / name
        if signum != signal.SIGKILL:
            assert_same_run(study / name, other)
        # Killed while states were saved, runs are at two steps: they go on in two smaller stacks,
        # whose matrix products are rounded otherwise.
        expected = RunRecord.read(other)
        assert record.final.val_loss == pytest.approx(expected.final.val_loss, abs=1e-3)
        assert list_steps(study / name, tags.TRAIN_LOSS) == list(range(60))
    third = Process(tmp_path, *arguments).end()
    assert "6 already there" in third.out or third.out.count("there ") >= 6
