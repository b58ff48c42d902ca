"""One process at a time trains a run, on one machine or on several that share a folder.

The operating system's lock dies with its process: on a disk of this machine, a lock that can be
taken is free, whatever the owner's note says, also where a container comes back with another host
name. Machines that share a folder may not share its locks, and some file systems have none; in
these cases the owner's note decides as well: it is renewed while a run goes on, and counts for
nothing once it is old.
"""

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from normlab.archive.files import LOCKS_FOLDER, check_links, process_exists, read_text, write_text
from normlab.archive.versioned_json import parse_json, restore_value
from normlab.errors import NormlabError

# A note of another machine that was not renewed for so long (seconds) is a dead owner's.
STALE_SECONDS = 600.0
# The answers (errno) of file systems without locks.
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
# File systems whose users are all on this machine; any other may be shared with other machines.
_LOCAL_FILE_SYSTEMS = {
    *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "bcachefs", "overlay"),
    *("tmpfs", "ramfs", "apfs", "hfs", "ntfs", "vfat", "exfat"),
}


@dataclass(frozen=True)
class LockOwner:
    """The process that trains a run, as its note names it."""

    pid: int
    host: str

    @classmethod
    def current_process(cls) -> "LockOwner":
        """This process."""
        return cls(os.getpid(), socket.gethostname())

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class RunLockedError(Exception):
    """Another process trains this run."""

    def __init__(self, owner: LockOwner | None) -> None:
        super().__init__(f"it is being trained by {owner or 'another process'}")


_held: set[Path] = set()  # the notes of the runs that this process has locked
_renewal = threading.Thread()  # what renews them; it starts with the first lock of a process


@contextmanager
def lock_run(study_folder: Path, run_id: str) -> Iterator[None]:
    """Keep other processes from a run of a study, and its note renewed, while the body runs.

    Raises:
        RunLockedError: another living process trains it.
        OSError: the study's folder cannot be written.
        NormlabError: a lock is a link.
    """
    folder = study_folder / LOCKS_FOLDER
    check_links(folder)
    folder.mkdir(parents=True, exist_ok=True)
    note, lock = folder / f"{run_id}.json", folder / f"{run_id}.lock"
    # filelock 3 emptied the file that it locked; by a hard link this may be another file too.
    if lock.exists() and lock.stat().st_nlink > 1 and lock.stat().st_size > 0:
        raise NormlabError(f"{lock} is also another file, by a hard link; remove it.")
    try:
        with _lock_file(lock) as locked:
            text = json.dumps(asdict(LockOwner.current_process()))
            if locked:
                # On a disk of this machine a note may be left from a killed container, whose host
                # name was another; on a shared one the lock may hold for this machine alone.
                owner = None if _is_local(folder) else _read_remote_owner(note)
                if owner is not None:
                    raise RunLockedError(owner)
                write_text(note, text)
            else:
                _create_note(note, text)
            _keep_renewed(note)
            try:
                yield
            finally:
                _held.discard(note)
                note.unlink(missing_ok=True)
    except Timeout as error:
        raise RunLockedError(_read_owner(note)) from error


def _keep_renewed(note: Path) -> None:
    """Show other machines that the owner lives, until the note is taken out of `_held`."""
    # By a thread, not at training steps: a run also validates and waits.
    global _renewal
    if not _renewal.is_alive():
        # A process that was forked has its parent's notes, which are not its own, and no thread.
        _held.clear()
        _renewal = threading.Thread(target=_renew_notes, name="locks", daemon=True)
        _renewal.start()
    _held.add(note)


def _renew_notes() -> None:
    while True:
        time.sleep(STALE_SECONDS / 10)
        for note in tuple(_held):  # a copy: other threads change the set
            with suppress(OSError):  # the run may just have been left
                os.utime(note)


def is_run_locked(study_folder: Path, run_id: str) -> bool:
    """Whether a living process seems to train this run; its lock is not touched."""
    return _is_owner_alive(study_folder / LOCKS_FOLDER / f"{run_id}.json")


def supports_locks(study_folder: Path) -> bool:
    """Whether the file system of a study's folder has locks. Raises OSError."""
    folder = study_folder / LOCKS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _lock_file(folder / "test.lock") as locked:
            return locked
    except Timeout:  # held by another process: so there are locks
        return True


@contextmanager
def _lock_file(path: Path) -> Iterator[bool]:
    """Hold the system's lock of a file; yields False where the file system has none.

    Raises:
        Timeout: another process holds it.
    """
    # By default filelock would put a file of its own in the place of locks that do not exist; here
    # the owner's note decides.
    lock = FileLock(path, timeout=0, fallback_to_soft=False)
    locked = True
    try:
        lock.acquire()
    except NotImplementedError:
        locked = False
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in _WITHOUT_LOCKS:
            raise
        locked = False
    try:
        yield locked
    finally:
        if locked:
            lock.release()


def _create_note(note: Path, text: str) -> None:
    """Write a note where none exists: of two processes at once, one fails.

    Raises:
        RunLockedError: one exists, of an owner that seems to live.
    """
    with suppress(FileNotFoundError):
        # A container that comes back may have the process number that its killed one had.
        is_ours = _read_owner(note) == LockOwner.current_process()
        is_stale = time.time() - note.stat().st_mtime > STALE_SECONDS
        if is_ours or is_stale or not _is_owner_alive(note):
            note.unlink()
    try:
        with note.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RunLockedError(_read_owner(note)) from None


def _is_local(folder: Path) -> bool:
    """Whether the folder is on a disk of this machine, as far as its file system shows."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    folder = folder.resolve()
    mount = next((path for path in (folder, *folder.parents) if path in mounts), None)
    return mount is not None and mounts[mount] in _LOCAL_FILE_SYSTEMS


def _is_owner_alive(note: Path) -> bool:
    owner = _read_owner(note)
    if owner is not None and owner.host == socket.gethostname():
        return process_exists(owner.pid)
    return _read_remote_owner(note) is not None


def _read_owner(note: Path) -> LockOwner | None:
    try:
        owner: LockOwner = restore_value(LockOwner, parse_json(read_text(note)))
    except (OSError, ValueError):
        return None  # the run has just been taken, or just been left
    # Signals to 0 and to negative numbers go to groups of processes.
    return owner if 0 < owner.pid < 2**31 else None


def _read_remote_owner(note: Path) -> LockOwner | None:
    """The owner on another machine, if one seems to live."""
    owner = _read_owner(note)
    if owner is None or owner.host == socket.gethostname():
        return None
    try:
        age = time.time() - note.stat().st_mtime
    except FileNotFoundError:
        return None  # the run has just been left
    # A time ahead of ours, by another clock, must not hold the run for ever.
    return owner if abs(age) < STALE_SECONDS else None
