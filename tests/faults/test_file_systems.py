"""Folders of file systems that cannot flush a folder, or have no locks."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from normlab.archive import lock
from normlab.archive.lock import RunLockedError, lock_run
from study_process import Process, environment_here, read_records
from tiny_run import TINY

SOURCE = Path(__file__).parent / "nolock.c"


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library to preload: `flock`, and `fsync` of a folder, fail with a code of one's choice."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler, and Linux")
    library = tmp_path_factory.mktemp("preload") / "nolock.so"
    command = [compiler, "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True)
    return str(library)


def test_a_run_is_trained_where_neither_folders_are_flushed_nor_locks_are_there(
    preload: str, tmp_path: Path, quiet: Callable, counts: Counter[str]
) -> None:
    failing = {"LD_PRELOAD": preload, "FAIL_FSYNC_FOLDER": "22", "FAIL_FLOCK": "37"}
    ended = quiet(Process(tmp_path, *TINY, f"output_dir={tmp_path}", **failing).end())
    counts["file systems that lack something"] += 1
    assert ended.code == 0, ended.err
    assert [record.state for record in read_records(tmp_path / "synthetic").values()] == [
        "finished"
    ]
    flush, locks = ended.err.splitlines()
    assert "flush" in flush
    assert "locks" in locks


OWN = """
import sys
from pathlib import Path
from normlab.archive.lock import RunLockedError, lock_run
try:
    with lock_run(Path(sys.argv[1]), "run"):
        print("taken")
except RunLockedError as held:
    print(held)
"""


@pytest.mark.parametrize("code", ["37", "38", "95"])
def test_without_locks_the_owners_note_decides(code: str, preload: str, tmp_path: Path) -> None:
    def taken_by(pid: int) -> str:
        note = tmp_path / ".locks" / "run.json"
        note.parent.mkdir(exist_ok=True)
        note.write_text(json.dumps({"pid": pid, "host": socket.gethostname()}))
        done = subprocess.run(
            [sys.executable, "-c", OWN, str(tmp_path)],
            env=environment_here(LD_PRELOAD=preload, FAIL_FLOCK=code),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert f"process {os.getpid()}" in taken_by(os.getpid())
    assert taken_by(2**22 + 1) == "taken\n"  # no process has this number


def note_of_another_host(folder: Path) -> None:
    (folder / ".locks").mkdir()
    (folder / ".locks" / "run.json").write_text('{"pid": 1, "host": "another"}')


def test_on_a_local_disk_a_lock_that_can_be_taken_is_free(tmp_path: Path) -> None:
    note_of_another_host(tmp_path)
    with lock_run(tmp_path, "run"):
        pass


def test_on_a_disk_that_machines_share_the_note_of_another_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_LOCAL_FILE_SYSTEMS", set())
    note_of_another_host(tmp_path)
    with pytest.raises(RunLockedError, match="1 on another"), lock_run(tmp_path, "run"):
        pass
