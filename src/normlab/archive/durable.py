"""Writes that are there whole or not at all: a sibling file, flushed to disk, then renamed."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a sibling path to write; on success it takes the place of `path`, durably.

    When the body raises, `path` is as it was and the sibling is gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield draft
        sync(draft)
        os.replace(draft, path)
        sync(path.parent)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def clear_drafts(folder: Path) -> None:
    """Remove the siblings that killed writers left below a folder nobody else writes to."""
    for draft in folder.rglob(".*.part"):
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Replace `path` by what `write` puts into the path it is given."""
    with replacing(path) as draft:
        write(draft)


def sync(path: Path) -> None:
    """Have the disk take a file or a folder's list of files."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
