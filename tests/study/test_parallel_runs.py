"""Runs side by side: the same bits as one after the other, each in a process that can die alone."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from normlab.archive.record import RunRecord
from normlab.errors import ConfigError
from run_equality import assert_same_run
from study_process import STUDY, Ended, Process, end_processes, read_records, shell_code
from tiny_run import TINY

# Long enough that something can happen to it; a state is kept at every step.
LONG = (*STUDY, "trainer.max_steps=100", "seed=0,1")
ENDLESS = (*STUDY, "trainer.max_steps=1000000", "trainer.val_every=1000")


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    end_processes()


def quiet(ended: Ended) -> Ended:
    assert "Traceback" not in ended.err + ended.out, ended.err
    return ended


def owners(study: Path) -> dict[int, str]:
    """The processes that train, by the id of their run."""
    found = {}
    for note in (study / ".locks").glob("*.json"):
        pid = re.search(r'"pid": (\d+)', note.read_text() if note.exists() else "")
        if pid and psutil.pid_exists(int(pid[1])):
            found[int(pid[1])] = note.stem
    return found


def under_way(study: Path, number: int) -> bool:
    """Whether so many runs have done a step: the first state is kept before it, and then moved."""
    return len(list(study.glob("*/checkpoints/previous.ckpt"))) >= number


def gone(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_side_by_side_is_to_the_bit_what_one_after_the_other_is(
    train_py: Callable, tmp_path: Path
) -> None:
    both = train_py(*STUDY, "jobs=2", f"output_dir={tmp_path}/both")
    assert both.code == 0, both.err
    assert "runs    2 at once, 1 thread each (" in both.out
    one = train_py(*STUDY, "jobs=1", f"output_dir={tmp_path}/one")
    assert "runs    one after the other, 1 thread (" in one.out
    here = train_py(*STUDY, "hydra/launcher=basic", f"output_dir={tmp_path}/here")
    assert (one.code, here.code) == (0, 0), one.err + here.err
    names = read_records(tmp_path / "here" / "synthetic").keys()
    assert len(names) == 2
    for name in names:
        for place in ("both", "one"):
            ours = tmp_path / place / "synthetic" / name
            assert_same_run(ours, tmp_path / "here" / "synthetic" / name)
    for answer in (both, one, here):
        assert len(re.findall(r"^run [12]/2 .*  val ", answer.out, re.MULTILINE)) == 2


@pytest.mark.slow
def test_a_run_whose_process_is_killed_fails_alone_and_goes_on(tmp_path: Path) -> None:
    study = tmp_path / "hit" / "synthetic"
    arguments = (*LONG, f"output_dir={tmp_path}/hit")
    process = Process(tmp_path, *arguments)
    assert process.until(lambda: under_way(study, 2) and len(owners(study)) == 2)
    killed, run_id = next(iter(owners(study).items()))
    assert killed != process.pid
    # Its parent is no process that has trained: torch's threads would not have survived.
    assert psutil.Process(killed).ppid() != process.pid
    os.kill(killed, signal.SIGKILL)
    ended = quiet(process.end())
    assert ended.code == 1
    assert "1 of 4 runs did not finish" in ended.err
    assert ended.err.count("its process was killed by SIGKILL (out of memory?)") == 1
    done = read_records(study)
    assert len(done) == 3
    assert not any(record.id == run_id for record in done.values())
    assert (study / "figures" / "comparison.png").is_file()
    again = quiet(Process(tmp_path, *arguments).end())
    assert again.code == 0, again.err
    assert "continues from step" in again.out
    whole = quiet(Process(tmp_path, *LONG, f"output_dir={tmp_path}/whole").end())
    assert whole.code == 0
    (name,) = [name for name in read_records(study) if name.endswith(run_id)]
    assert_same_run(study / name, tmp_path / "whole" / "synthetic" / name)


@pytest.mark.parametrize(
    ("signum", "times"),
    [
        pytest.param(signal.SIGINT, 2, id="SIGINT-twice", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 1, id="SIGTERM-once", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 1, id="SIGINT-once", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 2, id="SIGTERM-twice", marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_the_parent_saves_and_stops_all(
    signum: int, times: int, tmp_path: Path
) -> None:
    study = tmp_path / "synthetic"
    process = Process(tmp_path, *ENDLESS, f"output_dir={tmp_path}")
    assert process.until(lambda: under_way(study, 2))
    pids = list(owners(study))
    for _ in range(times):
        process.send(signum)
        time.sleep(0.05)
    ended = quiet(process.end(60))
    assert ended.code == shell_code(signum)
    assert ended.err.count("saving, then stopping") == 1
    assert "stopped; the same command goes on where it was" in ended.err
    found = [RunRecord.read(path.parent) for path in study.glob("*/run.json")]
    assert len(found) == 2
    for record in found:
        assert record.state == "interrupted"
        assert record.reason == f"stopped by {signal.Signals(signum).name} at step {record.step}"
    # On a busy machine a second signal may come only as figures are drawn, and ends that.
    if times == 1:
        assert (study / "figures" / "comparison.png").is_file()
    assert gone(pids, 5)


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_reaches_all_of_them_and_asks_once(tmp_path: Path) -> None:
    study = tmp_path / "synthetic"
    process = Process(tmp_path, *ENDLESS, f"output_dir={tmp_path}")
    assert process.until(lambda: under_way(study, 2) and len(owners(study)) == 2)
    for pid in [*owners(study), process.pid]:
        os.kill(pid, signal.SIGINT)
    ended = quiet(process.end(60))
    assert ended.code == 130
    found = [RunRecord.read(path.parent) for path in study.glob("*/run.json")]
    assert len(found) == 2
    for record in found:  # none says "running", as one that was stopped at once may
        assert record.state == "interrupted"
        assert record.reason == f"stopped by SIGINT at step {record.step}"


def test_a_parent_that_is_killed_leaves_nobody_behind(tmp_path: Path) -> None:
    study = tmp_path / "synthetic"
    process = Process(tmp_path, *ENDLESS, f"output_dir={tmp_path}")
    assert process.until(lambda: under_way(study, 2) and len(owners(study)) == 2)
    pids = list(owners(study))
    process.send(signal.SIGKILL)
    process.end()
    assert gone(pids, 20)
    found = [RunRecord.read(path.parent) for path in study.glob("*/run.json")]
    assert [record.state for record in found] == ["interrupted"] * 2
    assert not list((study / ".locks").glob("*.json"))


@pytest.mark.slow
def test_a_parent_that_does_not_listen_stops_no_run(tmp_path: Path) -> None:
    study = tmp_path / "synthetic"
    process = Process(tmp_path, *STUDY, "trainer.log_every=1", f"output_dir={tmp_path}")
    assert process.until(lambda: under_way(study, 2))
    process.send(signal.SIGSTOP)
    deadline = time.monotonic() + 60
    while len(read_records(study)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    finished = len(read_records(study))
    process.send(signal.SIGCONT)
    assert quiet(process.end()).code == 0
    assert finished == 2


# Keeps its promises when it is tried, and fails once it is trained.
BROKEN = """
import torch

class Broken(torch.nn.Module):
    def __init__(self, width, why):
        super().__init__()
        self.why = why

    def forward(self, x):
        if torch.is_grad_enabled() and x.shape[:2] == (4, 16):  # of a batch of TINY
            raise RuntimeError(self.why)
        return x
"""


@pytest.mark.slow
def test_every_failure_is_listed(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own" / "norm"
    own.mkdir(parents=True)
    (tmp_path / "failing_norms.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    # The fork server may be older than this: the environment goes with the order.
    monkeypatch.setenv("NORMLAB_TRUST", "failing_norms")
    for name, why in (("one", "first reason"), ("two", "second reason")):
        lines = f"# fails\n_target_: failing_norms.Broken\nwhy: {why}\n"
        (own / f"{name}.yaml").write_text(lines)
    answer = train_py(
        *("--config-dir", str(own.parent), "-m", "norm=one,rmsnorm,two", *TINY),
        f"output_dir={tmp_path}/o",
    )
    assert answer.code == 1
    assert "2 of 3 runs did not finish" in answer.err
    assert "RuntimeError: first reason" in answer.err
    assert "RuntimeError: second reason" in answer.err
    assert "Traceback" not in answer.err
    assert [r.norm for r in read_records(tmp_path / "o" / "synthetic").values()] == ["rmsnorm"]


def test_a_number_of_runs_that_makes_no_sense_is_one_sentence(
    train_py: Callable, tmp_path: Path
) -> None:
    answer = train_py(*STUDY, "jobs=0", f"output_dir={tmp_path}/o")
    assert answer.code == 2
    assert "jobs=0 " in answer.err
    assert "auto or a whole number from 1" in answer.err
    assert answer.err.count("\n") == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("value", ["-1", "x", "true", "1.5", "null", "[1]"])
def test_what_is_no_number_of_runs_is_refused(value: str, specified: Callable) -> None:
    with pytest.raises(ConfigError, match=r"jobs=.* auto or a whole number from 1"):
        specified(f"jobs={value}")


def test_the_number_of_runs_at_once_is_no_part_of_a_run(specified: Callable) -> None:
    assert specified("jobs=3").id == specified().id


@pytest.mark.slow
def test_a_run_that_goes_on_keeps_its_threads(train_py: Callable, tmp_path: Path) -> None:
    shape = [word for word in STUDY if not word.startswith("trainer.threads")]
    study = tmp_path / "synthetic"
    process = Process(tmp_path, *shape, "trainer.max_steps=2000", f"output_dir={tmp_path}")
    assert process.until(lambda: under_way(study, 2))
    process.send(signal.SIGTERM)
    process.end(60)
    for path in study.glob("*/run.json"):
        record = RunRecord.read(path.parent)
        assert record.hardware["threads"] == 1
        record.hardware["threads"] = 2  # as if it had been begun alone
        record.write(path.parent)
    process = Process(tmp_path, *shape, "trainer.max_steps=2000", f"output_dir={tmp_path}")
    assert process.until(lambda: len(owners(study)) == 1)
    time.sleep(1)
    assert len(owners(study)) <= 1  # two threads each: there is room for one
    process.send(signal.SIGTERM)
    process.end(60)
    again = [RunRecord.read(path.parent) for path in study.glob("*/run.json")]
    assert 2 in [record.hardware.get("threads") for record in again if len(record.resumed_at)]
