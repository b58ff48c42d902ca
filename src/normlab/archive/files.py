"""Files of a study: read only where they are regular and small, replaced whole or not at all.

A study's folder is where the user says, links in its path included. Below it nothing may be a link,
for what is read or written through it is elsewhere, and no pipe or device, which may never answer.
"""

import errno
import os
import platform
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import BinaryIO, TextIO

from normlab.errors import NormlabError
from normlab.text import closest_name

# Bytes. A record takes a few thousand; ten million training steps fit into an event file.
LARGEST_TEXT = 2**24
LARGEST_EVENT_FILE = 2**29

# Folders of a study that are not runs, and that are written into.
LOCKS_FOLDER, FIGURES_FOLDER = ".locks", "figures"

OUTPUTS = Path("outputs")  # where studies are, if nothing else is said

_RESULT_SUFFIXES = (".csv", ".html", ".json", ".png", ".svg")
_DRAFT = ".part"
# A draft of another machine that is older than this is abandoned.
_ABANDONED_SECONDS = 3600.0
# The answers (errno) of file systems that cannot flush.
_WITHOUT_FLUSH = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


# --- Writing ------------------------------------------------------------------------------------


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yield a draft to write next to `path`; on success it replaces `path`, durably.

    When the body raises, `path` is as it was and the draft is gone. Drafts that killed processes
    left are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():  # os.replace would find that out when all is written
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    # Escaped, for a name may hold brackets.
    for draft in path.parent.glob(f".{escape(path.name)}.*{_DRAFT}"):
        with suppress(OSError):  # another process may be removing it too
            if _is_abandoned(draft):
                draft.unlink()
    # The name tells whose draft it is: that of a living writer must be left alone.
    draft = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}{_DRAFT}")
    # O_EXCL: a link that waits under this name is not written through.
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield draft
        # Content first: after a crash of the machine the name must not lead to half of it.
        sync_to_disk(draft)
        os.replace(draft, path)
        sync_to_disk(path.parent)  # the folder has the name
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace `path` atomically by `text` in UTF-8. Raises OSError."""
    with replace_atomically(path) as draft:
        draft.write_text(text, encoding="utf-8")


def remove_drafts(folder: Path) -> None:
    """Remove what killed writers left below a folder that nobody else writes to."""
    for draft in folder.rglob(f".*{_DRAFT}"):
        draft.unlink(missing_ok=True)


def sync_to_disk(path: Path) -> bool:
    """Flush a file, or a folder's list of files, to the disk; False where that is not possible.

    Some file systems cannot flush, and nothing can be done about it. Raises OSError otherwise.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _WITHOUT_FLUSH:
            raise
        return False
    finally:
        os.close(handle)
    return True


def process_exists(pid: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except (ProcessLookupError, OverflowError):  # none, or more than a process number can be
        return False
    except OSError:  # another user's
        return True
    return True


def _is_abandoned(draft: Path) -> bool:
    # Only a process of this machine can be asked for; a draft of another one is told by its age.
    node, _, pid = draft.name.removesuffix(_DRAFT).rpartition(".")
    if node.endswith(f".{platform.node()}") and pid.isdecimal():
        return not process_exists(int(pid))
    return time.time() - draft.stat().st_mtime > _ABANDONED_SECONDS


# --- Reading ------------------------------------------------------------------------------------


def read_bytes(path: Path, limit: int = LARGEST_TEXT, *, follow_links: bool = False) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    `follow_links` is for what the user names; in a study's folder nothing may be a link.

    Raises:
        FileNotFoundError: it does not exist.
        OSError: it is a link, no regular file, larger, or cannot be read.
    """
    with open_to_read(path, follow_links=follow_links) as file:
        # A file that says that it is larger is not read at all; one that grows, up to the limit.
        large = os.fstat(file.fileno()).st_size > limit
        content = b"" if large else file.read(limit + 1)
    if large or len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes", str(path))
    return content


def read_text(path: Path, limit: int = LARGEST_TEXT) -> str:
    """The same as text in UTF-8. Raises OSError as `read_bytes` does, and ValueError."""
    return read_bytes(path, limit).decode("utf-8")


def open_to_read(path: Path, *, follow_links: bool = False) -> BinaryIO:
    """A regular file, open for reading. Raises OSError as `read_bytes` does."""
    return open(_open_regular_file(path, os.O_RDONLY, 0 if follow_links else os.O_NOFOLLOW), "rb")


def open_to_append(path: Path) -> TextIO:
    """A text file in UTF-8 to add lines to; it is created where it does not exist.

    A file that also has another name (a hard link) gets a content of its own first.

    Raises:
        OSError: it is a link or no regular file, or cannot be written.
    """
    # A copy of a study made of hard links shares its files: appending would change the original.
    if path.is_file() and path.stat().st_nlink > 1:
        content = read_bytes(path)
        with replace_atomically(path) as draft:
            draft.write_bytes(content)
    handle = _open_regular_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, os.O_NOFOLLOW)
    return open(handle, "a", encoding="utf-8", errors="replace")


def _open_regular_file(path: Path, flags: int, no_follow: int) -> int:
    # O_NONBLOCK: opening a pipe would wait for its other end.
    try:
        handle = os.open(path, flags | no_follow | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        # ELOOP is also the answer to a loop of links further up in the path.
        if error.errno == errno.ELOOP and path.is_symlink():
            raise OSError(errno.ELOOP, "it is a link", str(path)) from error
        raise
    # Asked of what is open: by now something else may be at the path.
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return handle


def suggest_closest_path(path: Path, marker: str = "") -> str:
    """`did you mean …? ` with the path that exists and is nearly this one, or nothing.

    A path is looked for in outputs/ too, where studies are. `marker` is the file that makes a
    folder the right one: where the path has it in folders below, the first of those is suggested.
    """
    with suppress(OSError):
        if path.exists():
            below = sorted(path.glob(f"*/{marker}")) if marker else []
            return f"did you mean {below[0].parent}? " if below else ""
        for start in (path, OUTPUTS / path):
            closest = _closest_path(start)
            if closest is not None:
                return f"did you mean {closest}? "
    return ""


def _closest_path(path: Path) -> Path | None:
    if path.exists():
        return path
    folder = _closest_path(path.parent)
    if folder is None or not folder.is_dir():
        return None
    name = closest_name(path.name, sorted(entry.name for entry in folder.iterdir()))
    return folder / name if name else None


# --- Links --------------------------------------------------------------------------------------


def check_links(folder: Path) -> None:
    """Refuse a folder that is, or that holds however deep, a link, a pipe or a device.

    A folder that does not exist is no error.

    Raises:
        NormlabError: naming the first of them.
        OSError: the folder cannot be listed.
    """
    if folder.is_symlink():
        raise _link_error(folder, "a link")
    pending = [folder]
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except (FileNotFoundError, NotADirectoryError):
            continue
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    kind = "a link" if entry.is_symlink() else "neither a file nor a folder"
                    raise _link_error(Path(entry.path), kind)


def check_study_files(study_folder: Path) -> None:
    """The same for a study's folders that are not runs; the study's folder may be a link.

    A folder where the study writes a file, or a file where it has a folder, is refused as well.
    """
    folders = [study_folder / name for name in (LOCKS_FOLDER, FIGURES_FOLDER)]
    for folder in folders:
        check_links(folder)
    for folder in (study_folder, *folders):
        if folder.is_file():
            raise _misplaced_error(folder, "a file", "folder")
        for suffix in _RESULT_SUFFIXES:
            for path in sorted(folder.glob(f"*{suffix}")):
                if path.is_dir():
                    raise _misplaced_error(path, "a folder", "file")


def _misplaced_error(path: Path, kind: str, expected: str) -> NormlabError:
    return NormlabError(
        f"{path} is {kind}, and the study has a {expected} of that name; rename or remove it, and "
        f"give the same command. All runs stay as they are."
    )


def _link_error(path: Path, kind: str) -> NormlabError:
    return NormlabError(
        f"{path} is {kind}, and what is written there would end up elsewhere; a folder of results "
        f"holds files and folders only: remove it, or put the file itself there."
    )
