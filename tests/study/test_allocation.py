"""How runs share a machine: by a rule that can be read, within memory, as the user says."""

from collections.abc import Callable
from pathlib import Path

import pytest

from normlab.archive.record import LAST_CHECKPOINT, RunRecord
from normlab.config.run_spec import RunSpec
from normlab.study import allocation
from normlab.study.allocation import (
    Allocation,
    Machine,
    allocate_runs,
    choose_threads,
    estimate_memory,
    estimate_parameters,
    resumed_threads,
)
from normlab.training.build import build_model

GIB = 2**30
LARGE = ("model=nanogpt_gpu", "data.batch_size=16")


@pytest.fixture(autouse=True)
def no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture
def share(specified: Callable[..., RunSpec]) -> Callable[..., Allocation]:
    """How a number of runs share a machine."""

    def of(
        *overrides: str, runs: int = 4, cores: int = 2, memory: float = 16, device: str = "cpu"
    ) -> Allocation:
        pending = [specified(f"seed={seed}", *overrides) for seed in range(runs)]
        vocabularies = {spec.id: 65 for spec in pending}
        return allocate_runs(pending, vocabularies, {device}, Machine(cores, int(memory * GIB)))

    return of


def test_small_runs_go_side_by_side_with_a_thread_each(share: Callable[..., Allocation]) -> None:
    chosen = share()
    assert (chosen.jobs, chosen.threads) == (2, 1)
    assert str(chosen) == "2 at once, 1 thread each (2 cores; jobs, trainer.threads change it)"


def test_large_runs_whose_threads_pay_go_one_after_the_other(
    share: Callable[..., Allocation],
) -> None:
    chosen = share(*LARGE)
    assert (chosen.jobs, chosen.threads) == (1, 2)
    assert str(chosen).startswith("one after the other, 2 threads (")


def test_a_run_that_would_be_left_over_decides_too(share: Callable[..., Allocation]) -> None:
    # Of three runs on two cores the last would have one thread, and the other core nothing.
    middling = ("model.width=256", "model.context=128")
    assert share(*middling, runs=3).jobs == 1
    assert share(*middling, "model.width=128", runs=4).jobs == 2


@pytest.mark.parametrize(
    ("runs", "cores", "jobs", "threads"), [(4, 1, 1, 1), (2, 8, 2, 4), (16, 8, 8, 1), (4, 2, 2, 1)]
)
def test_threads_are_the_cores_over_the_runs(
    runs: int, cores: int, jobs: int, threads: int, share: Callable[..., Allocation]
) -> None:
    chosen = share(runs=runs, cores=cores)
    assert (chosen.jobs, chosen.threads) == (jobs, threads)


def test_memory_sets_a_limit_and_says_so(share: Callable[..., Allocation]) -> None:
    assert share(cores=8, runs=8, memory=64).jobs == 8
    chosen = share(cores=8, runs=8, memory=1)
    assert 1 <= chosen.jobs < 8
    assert "1.0 GiB free, a run needs 0." in str(chosen)
    assert share(cores=8, runs=8, memory=0.01).jobs == 1


def test_a_gpu_is_not_shared_unless_the_user_says_so(share: Callable[..., Allocation]) -> None:
    chosen = share(cores=8, runs=8, device="cuda")
    assert chosen.jobs == 1
    assert "on cuda" in str(chosen)
    assert share("jobs=2", runs=8, device="cuda").jobs == 2


def test_the_user_decides(
    share: Callable[..., Allocation], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert share("jobs=1").jobs == 1
    assert share("jobs=1").threads == 2
    assert (share("jobs=3").jobs, share("jobs=3").threads) == (3, 1)
    assert share("jobs=9").jobs == 4  # there are no more runs
    assert share("trainer.threads=3", "jobs=2").threads == 3
    for threads in ("1", "1,2"):  # one for each level of nesting
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert share(runs=2, cores=8).threads == 1


def test_a_run_that_goes_on_keeps_its_threads_unless_told(
    specified: Callable[..., RunSpec], tmp_path: Path
) -> None:
    spec = specified(f"output_dir={tmp_path}")
    one = Allocation(2, 1, "")
    assert (resumed_threads(spec), choose_threads(spec, one)) == (None, 1)
    record = RunRecord(
        spec.id, spec.name, "rmsnorm", "pre", "synthetic", 0, spec.choices, spec.plain
    )
    record.hardware = {"threads": 6}
    record.write(spec.folder)
    assert choose_threads(spec, one) == 1  # it has no state to go on from
    (spec.folder / LAST_CHECKPOINT).parent.mkdir()
    (spec.folder / LAST_CHECKPOINT).touch()
    assert choose_threads(spec, one) == 6
    told = specified(f"output_dir={tmp_path}", "trainer.threads=2")
    assert choose_threads(told, one) == 2


@pytest.mark.parametrize(
    "overrides", [(), LARGE, ("model=minimind",), ("model.tie=false", "model.depth=2")], ids=str
)
def test_the_parameters_that_are_counted_are_those_of_the_model(
    overrides: tuple[str, ...], specified: Callable[..., RunSpec]
) -> None:
    config = specified(*overrides, "norm=none").config
    built = sum(weight.numel() for weight in build_model(config, 65).parameters())
    assert estimate_parameters(config, 65) == pytest.approx(built, rel=0.02)


def test_what_a_run_needs_grows_with_everything_that_it_holds(
    specified: Callable[..., RunSpec],
) -> None:
    base = estimate_memory(specified().config, 65)
    assert estimate_memory(specified().config, 50_000) > base
    for more in ("data.batch_size=64", "model.context=256", "model.width=512", "model.depth=12"):
        assert estimate_memory(specified(more).config, 65) > base


# Peaks of memory that a process had for itself (MiB), from docs/log.md.
@pytest.mark.parametrize(
    ("overrides", "peak"),
    [
        (("data.batch_size=12",), 185),
        (("data.batch_size=64",), 368),
        (("model=nanogpt_gpu", "data.batch_size=4"), 560),
        (LARGE, 1847),
    ],
    ids=str,
)
def test_what_a_run_needs_is_what_it_was_seen_to_take_or_more(
    overrides: tuple[str, ...], peak: int, specified: Callable[..., RunSpec]
) -> None:
    need = estimate_memory(specified(*overrides).config, 8) / 2**20
    assert peak <= need <= 1.5 * peak


def test_a_container_is_a_machine_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, there = allocation.free_memory(), allocation.count_cores()
    assert free > 0
    assert there >= 1
    monkeypatch.setattr(allocation, "_CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(allocation, "_control_groups", lambda _: [tmp_path])
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    (tmp_path / "memory.max").write_text(f"{GIB}\n")
    (tmp_path / "memory.current").write_text(f"{GIB // 2}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {GIB // 4}\n")
    assert allocation.count_cores() == 2
    assert allocation.free_memory() == GIB * 3 // 4
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert allocation.count_cores() == 8
    assert allocation.free_memory() > GIB
