"""Ctrl-C, SIGTERM and SIGHUP, whenever, once or twice: an exit code, no traceback, the same end."""

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from normlab.archive.record import RunRecord
from study_process import STUDY, Process, list_drafts, random_pauses, shell_code

SIGNALS = pytest.mark.parametrize(
    "signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda s: s.name
)
TWICE = pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])

# Long enough that a signal comes before its end; never trained to that end.
ENDLESS = (*STUDY, "trainer.max_steps=1000000", "trainer.val_every=50")


def a_step_was_logged(study: Path) -> bool:
    return any(study.glob("*/checkpoints/last.ckpt"))


def a_state_is_written(study: Path) -> bool:
    return any(path.name.startswith(".last") for path in list_drafts(study))


PHASES = {"between steps": a_step_was_logged, "in a checkpoint": a_state_is_written}


def stopped(process: Process, signum: int, times: int, counts: Counter[str]) -> None:
    assert process.alive
    for _ in range(times):
        process.send(signum)  # where the first ended it at once, there is nobody for the second
        counts[signal.Signals(signum).name] += 1
        time.sleep(0.01)


def stop_and_go_on(
    place: Path, phase: str, signum: int, times: int, counts: Counter[str], quiet: Callable
) -> Path:
    """A study that was stopped in a phase, checked, and then trained to its end."""
    study = place / "synthetic"
    arguments = [*STUDY, f"output_dir={place}"]
    process = Process(place, *arguments, forked=True)
    assert process.until(lambda: PHASES[phase](study))
    stopped(process, signum, times, counts)
    ended = quiet(process.end())
    assert ended.code == shell_code(signum)
    assert "stopped; the same command goes on where it was" in ended.err
    # Both runs are under way, of which the other may not have come to its first step.
    kept = [path.parent.parent for path in study.glob("*/checkpoints/last.ckpt")]
    assert kept or times == 2  # a second signal may come before anything was saved
    for record in map(RunRecord.read, kept):
        assert record.state == "interrupted"
        assert record.reason == f"stopped by {signal.Signals(signum).name} at step {record.step}"
    assert (study / "figures" / "comparison.png").stat().st_size > 10_000
    assert quiet(Process(place, *arguments, forked=True).end()).code == 0
    return study


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
@SIGNALS
@TWICE
def test_a_stopped_study_goes_on_to_the_same_end(
    phase: str,
    signum: int,
    times: int,
    tmp_path: Path,
    whole: Path,
    counts: Counter[str],
    quiet: Callable,
    whole_again: Callable,
) -> None:
    whole_again(stop_and_go_on(tmp_path, phase, signum, times, counts, quiet), whole)


@pytest.mark.slow
def test_stopped_twice_while_it_saves_a_study_goes_on_to_the_same_end(
    tmp_path: Path, whole: Path, counts: Counter[str], quiet: Callable, whole_again: Callable
) -> None:
    study = stop_and_go_on(tmp_path, "in a checkpoint", signal.SIGTERM, 2, counts, quiet)
    whole_again(study, whole)


@pytest.mark.slow
@SIGNALS
@TWICE
def test_a_signal_at_any_time_of_the_start_ends_it_in_words(
    signum: int, times: int, tmp_path: Path, counts: Counter[str], quiet: Callable
) -> None:
    pause = random_pauses(int(signum) + times, 6)
    for _ in range(6):
        process = Process(tmp_path, *ENDLESS, f"output_dir={tmp_path}")
        time.sleep(0.1 + next(pause))  # Python itself has begun
        stopped(process, signum, times, counts)
        assert quiet(process.end()).code == shell_code(signum)


@SIGNALS
def test_a_signal_during_imports_ends_it_without_a_traceback(
    signum: int, tmp_path: Path, counts: Counter[str], quiet: Callable
) -> None:
    process = Process(tmp_path, *ENDLESS, f"output_dir={tmp_path}")
    time.sleep(0.3)
    stopped(process, signum, 1, counts)
    assert quiet(process.end()).code == shell_code(signum)


@pytest.mark.slow
def test_what_nohup_began_outlives_its_terminal(
    tmp_path: Path, counts: Counter[str], quiet: Callable
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        process = Process(tmp_path, *STUDY, f"output_dir={tmp_path}")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert process.until(lambda: a_step_was_logged(tmp_path / "synthetic"))
    stopped(process, signal.SIGHUP, 2, counts)
    assert quiet(process.end()).code == 0
