"""A disk that fills, turns read-only or loses the study: said in words, nothing good is lost."""

import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from normlab.archive.record import RunRecord
from normlab.training.checkpoints import latest_state
from study_process import STUDY, Ended, Process


def mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Where a small disk can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    yield place
    while place.is_mount():
        subprocess.run(["umount", "-l", str(place)], check=True)


def start(disk: Path) -> Process:
    # What the command says goes elsewhere: this disk is not to be filled by us.
    return Process(disk.parent, *STUDY, f"output_dir={disk}", forked=True)


def assert_failed_in_words(ended: Ended, why: str) -> None:
    assert ended.code == 1, ended.err
    assert "runs did not finish; the same command tries them again" in ended.err
    assert why in ended.err


def assert_states_are_whole(study: Path) -> None:
    """Of every run that kept a state, one can be gone on from."""
    for folder in {path.parent.parent for path in study.glob("*/checkpoints/*.ckpt")}:
        if any((folder / "checkpoints").glob("[lp]*.ckpt")):
            saved, _ = latest_state(folder, RunRecord.read(folder).id)
            assert saved is not None


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [300, *range(60, 1100, 130)])
def test_a_full_disk_stops_the_runs_in_words_and_space_lets_them_go_on(
    kilobytes: int,
    disk: Path,
    whole: Path,
    counts: Counter[str],
    quiet: Callable,
    whole_again: Callable,
) -> None:
    mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk))
    study = disk / "synthetic"
    ended = quiet(start(disk).end())
    if ended.code == 0:
        pytest.skip("it fits")
    counts["disks filled"] += 1
    assert "No space left on device" in ended.err
    assert ended.code == 1
    for path in study.glob("*/run.json"):
        record = RunRecord.read(path.parent)
        assert record.state in ("finished", "failed", "running")
        if record.state == "failed":
            assert "No space left on device" in (record.reason or "")
    assert_states_are_whole(study)
    mount("-o", "remount,size=64m", str(disk))
    assert quiet(start(disk).end()).code == 0
    whole_again(study, whole)


@pytest.mark.slow
def test_a_disk_that_turns_read_only_fails_the_runs_in_words(
    disk: Path, whole: Path, counts: Counter[str], quiet: Callable, whole_again: Callable
) -> None:
    study = disk / "synthetic"
    process = start(disk)
    assert process.until(lambda: any(study.glob("*/checkpoints/last.ckpt")))
    # A mount over the folder: files that are open keep theirs, as nothing else can be forced.
    mount("--bind", str(disk), str(disk))
    mount("-o", "remount,bind,ro", str(disk))
    counts["disks made read-only"] += 1
    assert_failed_in_words(quiet(process.end()), "Read-only file system")
    assert_states_are_whole(study)
    subprocess.run(["umount", str(disk)], check=True)
    assert quiet(start(disk).end()).code == 0
    whole_again(study, whole)


@pytest.mark.slow
def test_a_study_that_vanishes_fails_its_run_in_words(
    disk: Path, whole: Path, counts: Counter[str], quiet: Callable, whole_again: Callable
) -> None:
    study = disk / "synthetic"
    process = start(disk)
    assert process.until(lambda: any(study.glob("*/checkpoints/last.ckpt")))
    study.rename(disk / "elsewhere")
    counts["studies moved away"] += 1
    assert_failed_in_words(quiet(process.end()), "vanished")
    assert quiet(start(disk).end()).code == 0
    whole_again(study, whole)
