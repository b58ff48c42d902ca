"""What lies beside a run's record: known by digest in `run.json`, so that damage is noticed."""

import hashlib
from pathlib import Path

from normlab.archive.durable import write_text
from normlab.archive.files import read_bytes
from normlab.archive.record import (
    BEST_CHECKPOINT,
    CONFIG_FILE,
    LAST_CHECKPOINT,
    RUN_FILE,
    VOCABULARY_FILE,
    RunRecord,
)
from normlab.errors import NormlabError


def write(folder: Path, record: RunRecord, name: str, text: str) -> None:
    """Write a small file and its digest (SHA-256, in hexadecimal digits), which comes first.

    Raises:
        OSError: the folder cannot be written.
    """
    record.files[name] = _digest(text.encode())
    record.write(folder)
    write_text(folder / name, text)


def changed(folder: Path, record: RunRecord, name: str) -> str:
    """What is wrong with the small file `name` of a run; empty where it is as the run wrote it.

    Where the record has no digest of it, nothing is wrong.
    """
    if name not in record.files:
        return ""
    try:
        found = _digest(read_bytes(folder / name))
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return "" if found == record.files[name] else f"{name} is not what the run wrote"


def altered(folder: Path, record: RunRecord) -> str:
    """One sentence about all files of a run that are missing or changed; empty where none is.

    Of checkpoints only those of a finished run are looked for, and not into.
    """
    problems = [changed(folder, record, name) for name in (CONFIG_FILE, VOCABULARY_FILE)]
    if record.files and record.state == "finished":
        problems += [
            f"{name} is missing"
            for name in (LAST_CHECKPOINT, BEST_CHECKPOINT)
            if not (folder / name).is_file()
        ]
    told = ", ".join(filter(None, problems))
    return told and (
        f"{folder}: {told}; tables and figures do without, but scripts/sample.py and --from may "
        f"give something else than this run."
    )


def altered_as_told(folder: Path) -> str:
    """The same for a folder whose record has not been read, or cannot be."""
    try:
        record = RunRecord.read(folder)
    except (OSError, NormlabError):
        return (
            f"{folder / RUN_FILE} cannot be read, so nothing tells whether the run's other files "
            f"are what it wrote."
        )
    return altered(folder, record)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
