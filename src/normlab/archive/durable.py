"""Writes that are there whole or not at all: a sibling file, flushed to disk, then renamed."""

import errno
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

_DRAFT = ".part"
# What a file system answers that cannot be asked to flush (errno).
_UNABLE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


# A draft that nobody has touched for so long is nobody's, whichever machine it was written on.
_ABANDONED_SECONDS = 3600.0


@contextmanager
def replacing(path: Path, *, synced: bool = True) -> Iterator[Path]:
    """Yield a sibling path to write; on success it takes the place of `path`, durably.

    When the body raises, `path` is as it was and the sibling is gone. What a killed process left
    beside `path` is swept away. Without `synced` nothing waits for the disk, and what a machine
    that crashes leaves at `path` may be damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    draft = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}{_DRAFT}")
    # Made here, and by nobody before: a link that waits under this name is not written through.
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield draft
        if synced:
            sync(draft)
        os.replace(draft, path)
        if synced:
            sync(path.parent)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def clear_drafts(folder: Path) -> None:
    """Remove the siblings that killed writers left below a folder nobody else writes to."""
    for draft in folder.rglob(".*.part"):
        draft.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove the drafts of `path` whose writers are gone."""
    for draft in path.parent.glob(f".{escape(path.name)}.*{_DRAFT}"):
        with suppress(OSError):  # another process may be sweeping too
            if _is_abandoned(draft):
                draft.unlink()


def _is_abandoned(draft: Path) -> bool:
    node, _, writer = draft.name.removesuffix(_DRAFT).rpartition(".")
    if node.endswith(f".{platform.node()}") and writer.isdecimal():
        return not _is_alive(int(writer))
    return time.time() - draft.stat().st_mtime > _ABANDONED_SECONDS


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Replace `path` by what `write` puts into the path it is given."""
    with replacing(path) as draft:
        write(draft)


def sync(path: Path) -> bool:
    """Have the disk take a file or a folder's list of files.

    Returns whether it did: some file systems cannot be asked for that, and nothing can be done
    about it. Raises OSError.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
        return False
    finally:
        os.close(handle)
    return True
