"""Several sweeps over one study: each run is trained by one of them, once, and all end well."""

import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from study_process import STUDY, Process, read_records

# A line of a run's log for every time that training begins.
BEGIN = re.compile(r" INFO \S+: [\d,]+ parameters")


def begun(study: Path) -> list[int]:
    """How often each run was begun."""
    return [len(BEGIN.findall(path.read_text())) for path in study.glob("*/train.log")]


def trained(outs: list[str]) -> int:
    """How many runs these sweeps say that they have trained."""
    return sum(len(re.findall(r"^run .*  val ", out, re.MULTILINE)) for out in outs)


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 3])
def test_sweeps_at_once_train_nothing_twice(
    number: int,
    tmp_path: Path,
    whole: Path,
    counts: Counter[str],
    quiet: Callable,
    whole_again: Callable,
) -> None:
    sweeps = [Process(tmp_path, *STUDY, f"output_dir={tmp_path}") for _ in range(number)]
    ended = [quiet(sweep.end()) for sweep in sweeps]
    counts["sweeps at once"] += number
    # Who ends while another still trains says so; who ends last has all.
    codes = {one.code for one in ended}
    assert 0 in codes
    assert codes <= {0, 1}, [one.err for one in ended]
    study = tmp_path / "synthetic"
    assert begun(study) == [1, 1]
    assert all(record.resumed_at == [] for record in read_records(study).values())
    assert trained([one.out for one in ended]) == 2
    whole_again(study, whole)


@pytest.mark.slow
def test_a_run_in_other_hands_is_left_to_them(
    tmp_path: Path, whole: Path, counts: Counter[str], quiet: Callable, whole_again: Callable
) -> None:
    study = tmp_path / "synthetic"
    arguments = (*STUDY, f"output_dir={tmp_path}")
    # It trains its runs itself, one after the other; the second has a process for each.
    first = Process(tmp_path, *arguments, "hydra/launcher=basic", forked=True)
    assert first.until(lambda: any(study.glob("*/checkpoints/last.ckpt")))
    first.send(signal.SIGSTOP)  # it holds its run until the second has come and gone
    second = quiet(Process(tmp_path, *arguments, forked=True).end())
    first.send(signal.SIGCONT)
    owner = quiet(first.end())
    counts["sweeps at once"] += 2
    assert (second.code, owner.code) == (1, 0)
    assert "1 of 2 runs are not there yet" in second.err
    assert f"it is being trained by process {first.pid} on" in second.out
    assert begun(study) == [1, 1]
    assert trained([second.out]) == trained([owner.out]) == 1
    whole_again(study, whole)


@pytest.mark.slow
def test_the_lock_of_a_killed_sweep_is_taken_over(
    tmp_path: Path, whole: Path, counts: Counter[str], quiet: Callable, whole_again: Callable
) -> None:
    study = tmp_path / "synthetic"
    arguments = (*STUDY, f"output_dir={tmp_path}")
    owner = Process(tmp_path, *arguments, forked=True)
    assert owner.until(lambda: any(study.glob("*/checkpoints/last.ckpt")))
    owner.kill()
    owner.end()
    counts["kill -9"] += 1
    assert any((study / ".locks").glob("*.json"))
    ended = quiet(Process(tmp_path, *arguments, forked=True).end())
    assert ended.code == 0
    assert "being trained" not in ended.out
    whole_again(study, whole)
