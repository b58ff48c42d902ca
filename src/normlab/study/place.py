"""Whether a folder can hold results, asked before anything is done for them."""

import logging
import os
from pathlib import Path

from normlab.archive.files import sync_to_disk
from normlab.archive.lock import supports_locks
from normlab.errors import NormlabError


def check_place(folder: Path) -> None:
    """Ask before torch is imported, and before anything is made, whether results can be kept.

    Raises:
        NormlabError: they cannot.
    """
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "cannot be written" if there.is_dir() else "is not a folder"
        raise NormlabError(
            f"{folder} cannot hold results, because {there} {what}; give a place that can be "
            f"written with output_dir=…"
        )


def make_folder(folder: Path) -> None:
    """Make the folder, and say what its file system lacks. Raises NormlabError if it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        durable, locks = sync_to_disk(folder), supports_locks(folder)
    except OSError as error:
        raise NormlabError(
            f"{folder} cannot be made ({error.strerror}); give a place that can be written with "
            f"output_dir=…"
        ) from error
    log = logging.getLogger("normlab")
    if not durable:
        log.warning(
            "note: the file system of %s cannot flush folders: after a crash of the machine the "
            "last files may be missing",
            folder,
        )
    if not locks:
        log.warning(
            "note: the file system of %s has no locks: do not train the same study from two "
            "machines at once",
            folder,
        )
