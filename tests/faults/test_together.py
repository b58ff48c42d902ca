"""Several sweeps over one study: each run is trained by one of them, once, and all end well."""

import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from faulted import STUDY, Process, records

# A line of a run's log for every time that training begins.
BEGIN = re.compile(r" INFO \S+: [\d,]+ parameters")


def begun(study: Path) -> list[int]:
    """How often each run was begun."""
    return [len(BEGIN.findall(path.read_text())) for path in study.glob("*/train.log")]


def together(
    number: int, place: Path, arguments: tuple[str, ...], forked: bool, quiet: Callable
) -> list[str]:
    commands = [*arguments, f"output_dir={place}"]
    sweeps = [Process(place, *commands, forked=forked) for _ in range(number)]
    ended = [quiet(sweep.end()) for sweep in sweeps]
    assert [one.code for one in ended] == [0] * number, [one.err for one in ended]
    return [one.out for one in ended]


@pytest.mark.parametrize(
    ("number", "forked"),
    [(2, True), *(pytest.param(number, False, marks=pytest.mark.slow) for number in (2, 3))],
)
def test_sweeps_at_once_train_nothing_twice(
    number: int,
    forked: bool,
    tmp_path: Path,
    whole: Path,
    counts: Counter[str],
    quiet: Callable,
    whole_again: Callable,
) -> None:
    said = together(number, tmp_path, STUDY, forked, quiet)
    counts["sweeps at once"] += number
    study = tmp_path / "synthetic"
    assert begun(study) == [1, 1]
    assert all(record.resumed_at == [] for record in records(study).values())
    trained = sum(len(re.findall(r"^run .*  val ", out, re.MULTILINE)) for out in said)
    assert trained == 2
    assert any("it is being trained by process" in out for out in said)
    whole_again(study, whole)


def test_the_lock_of_a_killed_sweep_is_taken_over(
    tmp_path: Path, whole: Path, counts: Counter[str], quiet: Callable, whole_again: Callable
) -> None:
    study = tmp_path / "synthetic"
    arguments = (*STUDY, f"output_dir={tmp_path}")
    owner = Process(tmp_path, *arguments, forked=True)
    assert owner.until(lambda: any(study.glob("*/checkpoints/last.ckpt")))
    owner.send(signal.SIGKILL)
    owner.end()
    counts["kill -9"] += 1
    assert any((study / ".locks").glob("*.json"))
    ended = quiet(Process(tmp_path, *arguments, forked=True).end())
    assert ended.code == 0
    assert "being trained" not in ended.out
    whole_again(study, whole)
