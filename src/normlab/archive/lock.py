"""One owner for a run at a time, on one machine or on several that share a folder.

The operating system's lock dies with its process: on a disk of this machine, a lock that can be
taken is free, whatever the owner's note says, also where a container comes back with another host
name. Machines that share a folder may not share its locks, and some file systems have none; there
the owner's note decides as well: it is renewed while a run goes on, and means nothing once it is
old.
"""

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from normlab.archive.files import LOCKS_FOLDER, check_links, read_text, write_text
from normlab.archive.versioned_json import parse_json, restore_value
from normlab.errors import NormlabError

# A note of another machine that was not renewed for this long (seconds) is a dead owner's.
STALE = 600.0
# What a file system without locks answers (errno).
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
# File systems whose every user is on this machine; any other may be shared with other machines.
_LOCAL = {
    *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "bcachefs", "overlay"),
    *("tmpfs", "ramfs", "apfs", "hfs", "ntfs", "vfat", "exfat"),
}


@dataclass(frozen=True)
class Owner:
    """Who trains a run."""

    pid: int
    host: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class RunLockedError(Exception):
    """Another process trains this run."""

    def __init__(self, owner: Owner | None) -> None:
        super().__init__(f"it is being trained by {owner or 'another process'}")


class RunLock:
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
def lock_run(study_folder: Path, run_id: str) -> Iterator[RunLock]:
    """Hold the lock of a run of a study.

    Raises:
        RunLockedError: another living process holds it.
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
        with _locked(lock) as locked:
            owner = json.dumps(asdict(Owner(os.getpid(), socket.gethostname())))
            if locked:
                other = None if _is_local(folder) else _elsewhere(note)
                if other is not None:
                    raise RunLockedError(other)
                write_text(note, owner)
            else:
                _create(note, owner)
            try:
                yield RunLock(note)
            finally:
                note.unlink(missing_ok=True)
    except Timeout as error:
        raise RunLockedError(_owner(note)) from error


def is_run_locked(study_folder: Path, run_id: str) -> bool:
    """Whether a living process seems to train this run; its lock is not touched."""
    note = study_folder / LOCKS_FOLDER / f"{run_id}.json"
    return _seems_alive(note)


def supports_locks(study_folder: Path) -> bool:
    """Whether the file system of a study's folder has locks. Raises OSError."""
    folder = study_folder / LOCKS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder / "probe.lock") as locked:
            return locked
    except Timeout:
        return True


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold the system's lock of a file; yields False where the file system has none.

    Raises:
        Timeout: another process holds it.
    """
    lock = FileLock(path, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        if isinstance(error, Timeout) or (
            isinstance(error, OSError) and error.errno not in _WITHOUT_LOCKS
        ):
            raise
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _create(note: Path, text: str) -> None:
    """Write the note where there is none: of two processes at once, one fails.

    Raises:
        RunLockedError: there is one, of an owner that seems to live.
    """
    with suppress(FileNotFoundError):
        # A container that comes back may have the process number that its killed one had.
        ours = _owner(note) == Owner(os.getpid(), socket.gethostname())
        old = time.time() - note.stat().st_mtime > STALE
        if ours or old or not _seems_alive(note):
            note.unlink()
    try:
        with note.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RunLockedError(_owner(note)) from None


def _is_local(folder: Path) -> bool:
    """Whether the folder is on a disk of this machine, as far as its file system tells."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    above = folder.resolve()
    return next((mounts[at] for at in (above, *above.parents) if at in mounts), "") in _LOCAL


def _seems_alive(note: Path) -> bool:
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
        owner: Owner = restore_value(Owner, parse_json(read_text(note)))
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
