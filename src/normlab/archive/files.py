"""Files of a study that a stranger may have made: regular, of bounded size, reached without a link.

A study's folder is where the user says, links in its path included. Below it nothing may be a link,
for what is read or written through it is elsewhere, and no pipe or device, which may never answer.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, TextIO

from normlab.archive.durable import replacing
from normlab.errors import NormlabError

# Bytes. A record takes a few thousand; ten million training steps fit into an event file.
LARGEST_TEXT = 2**24
LARGEST_EVENT_FILE = 2**29

# Folders of a study that are not runs, and that are written into.
LOCKS_FOLDER, FIGURES_FOLDER = ".locks", "figures"


def read_bytes(path: Path, limit: int = LARGEST_TEXT) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it is a link, no regular file, larger, or cannot be read.
    """
    with open_to_read(path) as file:
        # A file that says that it is larger is not read at all; one that grows, up to the limit.
        large = os.fstat(file.fileno()).st_size > limit
        content = b"" if large else file.read(limit + 1)
    if large or len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes", str(path))
    return content


def open_to_read(path: Path) -> BinaryIO:
    """A regular file, open for reading. Raises OSError as `read_bytes` does."""
    return open(_opened(path, os.O_RDONLY), "rb")


def read_text(path: Path, limit: int = LARGEST_TEXT) -> str:
    """The same as text in UTF-8. Raises OSError as `read_bytes` does, and ValueError."""
    return read_bytes(path, limit).decode("utf-8")


def open_to_append(path: Path) -> TextIO:
    """A text file in UTF-8 to add lines to, made where there is none.

    A file that is also known by another name (a hard link) gets a content of its own first.

    Raises:
        OSError: it is a link or no regular file, or cannot be written.
    """
    if path.is_file() and path.stat().st_nlink > 1:
        content = read_bytes(path)
        with replacing(path) as draft:
            draft.write_bytes(content)
    handle = _opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return open(handle, "a", encoding="utf-8", errors="replace")


def check_links(folder: Path) -> None:
    """Refuse a folder that is, or that holds however deep, a link, a pipe or a device.

    Of a folder that is not there nothing is wrong.

    Raises:
        NormlabError: naming the first of them.
        OSError: the folder cannot be listed.
    """
    if folder.is_symlink():
        raise _refusal(folder, "a link")
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
                    raise _refusal(Path(entry.path), kind)


def check_study_links(study_folder: Path) -> None:
    """The same for what a study's folder holds beside its runs; the folder itself may be a link."""
    for name in (LOCKS_FOLDER, FIGURES_FOLDER):
        check_links(study_folder / name)


def _refusal(path: Path, kind: str) -> NormlabError:
    return NormlabError(
        f"{path} is {kind}, and what is written there would end up elsewhere; a folder of results "
        f"holds files and folders only: remove it, or put the file itself there."
    )


def _opened(path: Path, flags: int) -> int:
    """Opened without following a link; O_NONBLOCK, for a pipe would wait for its other end."""
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise OSError(errno.ELOOP, "it is a link", str(path)) from error
        raise
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return handle
