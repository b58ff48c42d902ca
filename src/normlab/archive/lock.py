"""One owner for a run at a time, on one machine or on several that share a folder.

The operating system's lock dies with its process, so a lock that nobody holds is free, whatever
its file says. Where two machines do not share such locks, the owner's note decides: it is renewed
while a run goes on, and means nothing once it is old.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from normlab.archive.durable import write_text
from normlab.archive.files import LOCKS_FOLDER, check_links, read_text
from normlab.archive.restore import parse_json, restored
from normlab.errors import NormlabError

# A note of another machine that was not renewed for this long (seconds) is a dead owner's.
STALE = 600.0


@dataclass(frozen=True)
class Owner:
    """Who trains a run."""

    pid: int
    host: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class HeldError(Exception):
    """Another process trains this run."""

    def __init__(self, owner: Owner | None) -> None:
        super().__init__(f"it is being trained by {owner or 'another process'}")


class Lock:
    """The lock of one run, while it is held."""

    def __init__(self, note: Path) -> None:
        self._note = note
        self._renewed = time.monotonic()

    def renew(self) -> None:
        """Tell other machines that the owner lives; cheap enough to be called often."""
        if time.monotonic() - self._renewed > STALE / 10:
            self._renewed = time.monotonic()
            with suppress(OSError):
                os.utime(self._note)


@contextmanager
def owned(study_folder: Path, run_id: str) -> Iterator[Lock]:
    """Hold the lock of a run of a study.

    Raises:
        HeldError: another living process holds it.
        OSError: the study's folder cannot be written.
        NormlabError: a lock is a link.
    """
    folder = study_folder / LOCKS_FOLDER
    check_links(folder)
    folder.mkdir(parents=True, exist_ok=True)
    note, lock = folder / f"{run_id}.json", folder / f"{run_id}.lock"
    # Locking empties the file: under another name (a hard link) it may be something else.
    if lock.exists() and lock.stat().st_nlink > 1 and lock.stat().st_size > 0:
        raise NormlabError(f"{lock} is also another file, by a hard link; remove it.")
    try:
        with FileLock(lock, timeout=0):
            owner = _elsewhere(note)
            if owner is not None:
                raise HeldError(owner)
            write_text(note, json.dumps(asdict(Owner(os.getpid(), socket.gethostname()))))
            try:
                yield Lock(note)
            finally:
                note.unlink(missing_ok=True)
    except Timeout as error:
        raise HeldError(_owner(note)) from error


def is_held(study_folder: Path, run_id: str) -> bool:
    """Whether a living process seems to train this run; its lock is not touched."""
    note = study_folder / LOCKS_FOLDER / f"{run_id}.json"
    owner = _owner(note)
    if owner is None or owner.host != socket.gethostname():
        return _elsewhere(note) is not None
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's process
    return True


def _owner(note: Path) -> Owner | None:
    try:
        owner: Owner = restored(Owner, parse_json(read_text(note)))
    except (OSError, ValueError):
        return None  # it has just been taken, or just been left
    return owner if 0 < owner.pid < 2**31 else None


def _elsewhere(note: Path) -> Owner | None:
    """The owner on another machine, if one seems to live."""
    owner = _owner(note)
    if owner is None or owner.host == socket.gethostname():
        return None
    age = time.time() - note.stat().st_mtime
    return owner if abs(age) < STALE else None
