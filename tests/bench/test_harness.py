"""Contenders take turns, workers answer, and whatever happens nothing of them is left."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness import (
    PAUSE_SECONDS,
    Block,
    Contender,
    Settings,
    TimedCommand,
    WorkerProcess,
    interleave,
)
from normlab.errors import ConfigError, NormlabError

sys.path.append(str(Path(__file__).parent))

import bench_workers

StartWorker = Callable[..., WorkerProcess]


@dataclass
class LoggedContender(Contender):
    name: str
    events: list[str]
    cost: Callable[[int], float] = float
    blocks: int = 0

    def start(self) -> None:
        self.events.append(f"start {self.name}")

    def run_block(self) -> Block:
        self.events.append(self.name)
        self.blocks += 1
        return {"ms": self.cost(self.blocks)}

    def stop(self) -> None:
        self.events.append(f"stop {self.name}")


def test_contenders_take_turns_between_start_and_stop() -> None:
    events: list[str] = []
    interleave([LoggedContender(name, events) for name in "AB"], rounds=2, warmup=1)
    assert events == ["start A", "start B", *"ABABAB", "stop B", "stop A"]


def test_warmup_is_run_and_thrown_away() -> None:
    contender = LoggedContender("A", [])
    samples = interleave([contender], rounds=3, warmup=2)
    assert samples == {"A": [{"ms": 3.0}, {"ms": 4.0}, {"ms": 5.0}]}


def test_nothing_runs_before_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr("time.sleep", lambda seconds: events.append(f"pause {seconds}"))
    interleave([LoggedContender(name, events) for name in "AB"], rounds=1, warmup=0)
    assert events[2:6] == [f"pause {PAUSE_SECONDS}", "A", f"pause {PAUSE_SECONDS}", "B"]


def test_when_a_contender_fails_all_are_stopped() -> None:
    def cost(block: int) -> float:
        if block == 2:
            raise NormlabError("failed")
        return 1.0

    events: list[str] = []
    contenders = [LoggedContender("A", events, cost), LoggedContender("B", events)]
    with pytest.raises(NormlabError, match="failed"):
        interleave(contenders, rounds=3, warmup=0)
    assert events[-2:] == ["stop B", "stop A"]


def test_the_progress_names_the_round_and_the_contender() -> None:
    titles: list[str] = []
    contenders = [LoggedContender(name, []) for name in "AB"]
    interleave(contenders, 1, titles.append, warmup=1)
    assert titles == ["warm-up: A", "warm-up: B", "round 1 of 1: A", "round 1 of 1: B"]


def test_rounds_are_the_users_before_the_suites() -> None:
    assert Settings().choose_rounds(9, 3) == 9
    assert Settings(quick=True).choose_rounds(9, 3) == 3
    assert replace(Settings(quick=True), rounds=5).choose_rounds(9, 3) == 5


def test_shapes_are_the_users_before_the_suites() -> None:
    assert Settings().choose_shapes("abc", "ab", "a") == ["a", "b"]
    assert Settings(quick=True).choose_shapes("abc", "ab", "a") == ["a"]
    assert Settings(shapes=("c",)).choose_shapes("abc", "ab", "a") == ["c"]
    with pytest.raises(ConfigError, match=r"--shapes d does not exist in this suite; .* a, b, c"):
        Settings(shapes=("d",)).choose_shapes("abc", "ab", "a")


@pytest.fixture
def start_worker() -> Iterator[StartWorker]:
    workers: list[WorkerProcess] = []

    def start(set_up: Callable[..., Any], **options: Any) -> WorkerProcess:
        workers.append(WorkerProcess(set_up.__name__, set_up, **options))
        workers[-1].start()
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()


def test_a_worker_answers_from_one_other_process(start_worker: StartWorker) -> None:
    set_up = bench_workers.multiply_steps
    worker = start_worker(set_up, arguments={"factor": 3.0, "steps": 4})
    first, second = worker.run_block(), worker.run_block()
    assert first == second
    assert first["product"] == 12.0
    assert first["pid"] != os.getpid()
    worker.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(int(first["pid"]), 0)


@pytest.mark.parametrize(
    ("set_up", "sentence"),
    [
        (bench_workers.refuse_set_up, "refuse_set_up failed: NormlabError: it will not"),
        (bench_workers.fail_in_block, "fail_in_block failed: ValueError: two lines"),
        (bench_workers.exit_in_block, "exit_in_block failed: BrokenProcessPool: A process in"),
    ],
)
def test_a_worker_that_fails_is_one_sentence(
    start_worker: StartWorker, set_up: Callable[..., Any], sentence: str
) -> None:
    worker = start_worker(set_up)
    with pytest.raises(NormlabError, match=f"^the contender {sentence}"):
        worker.run_block()


def test_a_worker_gets_its_number_of_threads(start_worker: StartWorker) -> None:
    assert start_worker(bench_workers.count_threads, threads=1).run_block() == {"threads": 1}
    assert "OMP_NUM_THREADS" not in os.environ or os.environ["OMP_NUM_THREADS"] != "1"


def test_a_command_is_timed_from_start_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = TimedCommand("sleep", ["-c", "import time; time.sleep(0.3)"]).run_block()["seconds"]
    assert seconds > 0.3  # whatever the machine does, it slept so long


def test_a_command_must_end_as_it_should() -> None:
    words = ["-c", "import sys; print('this is why'); sys.exit(3)"]
    TimedCommand("refuses", words, code=3).run_block()
    with pytest.raises(NormlabError, match="refuses ended with code 3: this is why"):
        TimedCommand("refuses", words).run_block()


def test_a_command_is_killed_when_what_it_waits_for_exists(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, time; pathlib.Path(r'{folder}', 'pid').write_text(str(os.getpid())); "
        "time.sleep(600)"
    )
    pids: list[int] = []

    def has_pid(folder: Path) -> bool:
        path = folder / "pid"
        if path.exists() and path.read_text():
            pids.append(int(path.read_text()))
        return bool(pids)

    TimedCommand("waits", ["-c", code], until=has_pid).run_block()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_command_that_dies_without_a_word_has_its_code() -> None:
    with pytest.raises(NormlabError, match="dies ended with code 9: no output"):
        TimedCommand("dies", ["-c", "import os; os._exit(9)"]).run_block()


def test_a_command_that_ends_before_has_no_time() -> None:
    with pytest.raises(NormlabError, match="waits ended with code 0"):
        TimedCommand("waits", ["-c", "pass"], until=lambda folder: False).run_block()
