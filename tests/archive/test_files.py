"""A file is there whole, as it was or as it shall be, whenever the writer is killed."""

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import normlab
from normlab.archive.files import (
    check_study_files,
    replace_atomically,
    suggest_closest_path,
    write_text,
)
from normlab.errors import NormlabError

SOURCE = Path(normlab.__path__[0]).parent

# Writes half of the text, says so, and waits to be killed.
HALF = """
import sys, time
from pathlib import Path
from normlab.archive.files import replace_atomically

with replace_atomically(Path(sys.argv[1])) as draft, draft.open("w") as out:
    out.write("half of it")
    out.flush()
    print("writing", flush=True)
    time.sleep(60)
"""

# Replaces the file over and over, each time by a long text of one letter.
AGAIN = """
import itertools, sys
from pathlib import Path
from normlab.archive.files import write_text

for letter in itertools.cycle("abc"):
    write_text(Path(sys.argv[1]), letter * 300_000)
    print("written", flush=True)
"""


def writer(code: str, path: Path) -> "subprocess.Popen[str]":
    """A process that is in the middle of writing `path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(SOURCE), "PATH": ""},
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("before", [None, "what was there"])
def test_a_writer_killed_midway_changes_nothing_and_its_draft_is_swept(
    before: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "run[1].json"
    if before is not None:
        path.write_text(before)
    kill(writer(HALF, path))
    assert (path.read_text() if path.exists() else None) == before
    assert len(names(tmp_path)) == 1 + (before is not None)
    write_text(path, "whole")
    assert names(tmp_path) == [path.name]
    assert path.read_text() == "whole"


def test_a_writer_killed_at_any_moment_leaves_one_whole_text(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    for delay in range(5):
        process = writer(AGAIN, path)
        time.sleep(0.01 * delay)
        kill(process)
        text = path.read_text()
        assert len(text) == 300_000
        assert len(set(text)) == 1


def test_the_draft_of_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    process = writer(HALF, path)
    write_text(path, "whole")
    assert len(names(tmp_path)) == 2
    kill(process)
    write_text(path, "again")
    assert names(tmp_path) == ["last.ckpt"]


def test_the_draft_of_another_machine_is_left_alone_for_an_hour(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    draft = tmp_path / ".last.ckpt.elsewhere.1.part"
    other = tmp_path / f".best.ckpt.{platform.node()}.999999999.part"
    for left in (draft, other):
        left.write_text("half")
    write_text(path, "whole")
    assert draft.exists()
    os.utime(draft, (0, 0))
    write_text(path, "whole")
    assert names(tmp_path) == [other.name, "last.ckpt"]


def test_what_fails_midway_leaves_no_draft(tmp_path: Path) -> None:
    def write_half() -> None:
        with replace_atomically(tmp_path / "figure.png") as draft:
            draft.write_text("half")
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_half()
    assert names(tmp_path) == []


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("sync"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("rename"), rename(*paths)))
    with replace_atomically(tmp_path / "card.json") as draft:
        draft.write_text("{}")
    assert done == ["sync", "rename", "sync"]


@pytest.mark.parametrize(
    ("path", "closest"),
    [
        ("outputs/studdy", "outputs/study"),
        ("outputs/studdy/rmsnorm-pre-s1", "outputs/study/rmsnorm-pre-s0"),
        ("studdy", "outputs/study"),  # outputs/ left out
        ("rmsnorm-pre-s0", None),
        ("nothing/like/it", None),
        ("outputs/study/rmsnorm-pre-s0/run.jsn", "outputs/study/rmsnorm-pre-s0/run.json"),
        ("outputs/study/rmsnorm-pre-s0/run.json/below", None),
        ("outputs/study", "outputs/study/rmsnorm-pre-s0"),  # a study where a run is meant
        ("outputs/study/rmsnorm-pre-s0", None),
    ],
)
def test_the_nearest_path_that_exists(
    path: str, closest: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path("outputs/study/rmsnorm-pre-s0")
    run.mkdir(parents=True)
    (run / "run.json").touch()
    hint = f"did you mean {closest}? " if closest else ""
    assert suggest_closest_path(Path(path), "run.json") == hint


@pytest.mark.parametrize(
    "name", ["runs.csv", "report.html", "gradient_vanishing.json", "figures/a.png", "figures/a.svg"]
)
def test_a_folder_where_a_study_writes_a_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(NormlabError, match=f"{name} is a folder, and the study has a file of that"):
        check_study_files(tmp_path)
    with pytest.raises(IsADirectoryError, match=name):
        write_text(tmp_path / name, "")
    assert list((tmp_path / name).parent.iterdir()) == [tmp_path / name]  # no draft is left


@pytest.mark.parametrize("name", [".locks", "figures"])
def test_a_file_where_a_study_has_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(NormlabError, match=f"{name} is a file, and the study has a folder of that"):
        check_study_files(tmp_path)
