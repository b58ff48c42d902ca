"""The runs that verdicts rest on as small files, so that verdicts outlive the machine.

A file an experiment and budget, compressed JSON lines: first what it holds, then a line for every
run with its configuration, seed, result and losses by step. No checkpoint, no path, no command.
"""

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from normlab.apps.claims.record import OUTPUT_REMEDY, unwritable_error
from normlab.archive import tags
from normlab.archive.events import Events, Series
from normlab.archive.files import read_bytes, replace_atomically
from normlab.archive.record import RunRecord
from normlab.archive.study import Run
from normlab.archive.versioned_json import parse_json
from normlab.errors import NormlabError

SCHEMA_VERSION = 1
# Bytes of the text of a file: a hundred runs of 5000 steps have five million.
_LARGEST_TEXT = 2**28

# The curves that claims look at: losses, and how the stream's variance grows.
_ARCHIVED_TAGS = (tags.TRAIN_LOSS, tags.VALIDATION_LOSS, tags.probe_tag(tags.STREAM_VARIANCE, ""))

# Of a record, what says nothing of the result, and what tells about the machine that made it.
_LEFT_OUT = ("traceback", "command", "git", "hardware", "files", "started", "ended")


@dataclass(frozen=True)
class ArchivedRuns:
    """Runs as they are read back, with the day on which the last ended and their machine."""

    runs: tuple[Run, ...]
    date: str
    machine: str


def archive_path(folder: Path, experiment: str, budget: str) -> Path:
    """Where the runs of an experiment are."""
    return folder / f"{experiment}-{budget}.jsonl.gz"


def describe_origin(runs: Sequence[Run]) -> tuple[str, str]:
    """The day on which the last of the runs ended, and where they were trained; empty if unknown.

    `cpu (Intel Xeon), torch 2.13.0`; several, where runs are from several.
    """
    records = [run.record for run in runs]
    places = {
        f"{record.device}, torch {record.versions.get('torch', 'unknown')}"
        for record in records
        if record.device
    }
    last = max((record.ended or "" for record in records), default="")
    return last[:10], "; ".join(sorted(places))


def write_archive(path: Path, runs: Sequence[Run], remedy: str = OUTPUT_REMEDY) -> None:
    """Write all runs, atomically; the same runs give the same bytes. Raises NormlabError."""
    date, machine = describe_origin(runs)
    head = {"schema_version": SCHEMA_VERSION, "date": date, "machine": machine, "runs": len(runs)}
    lines = [head, *map(_plain_run, sorted(runs, key=lambda run: run.record.name))]
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    try:
        with replace_atomically(path) as draft:
            # Without `mtime` gzip writes the time of day into the file.
            draft.write_bytes(gzip.compress(text.encode(), mtime=0))
    except OSError as error:
        raise unwritable_error(path, error, remedy) from error


def _plain_run(run: Run) -> dict[str, Any]:
    record = {key: value for key, value in asdict(run.record).items() if key not in _LEFT_OUT}
    config = dict(run.record.config)
    # Paths tell about the user's machine, and nothing about the result.
    config.pop("output_dir", None)
    if isinstance(config.get("data"), dict) and "path" in config["data"]:
        config["data"] = {**config["data"], "path": None}
    scalars = {
        tag: _plain_series(series)
        for tag, series in sorted(run.events.scalars.items())
        if tag.startswith(_ARCHIVED_TAGS)
    }
    return {"record": {**record, "config": config}, "scalars": scalars}


def _plain_series(series: Series) -> dict[str, Any]:
    """Steps and values; event files hold 32 bits a value, which take half of the digits of 64."""
    narrow = series.values.astype(np.float32)
    is_narrow = np.array_equal(narrow, series.values, equal_nan=True)
    # The shortest digits that are the same in 32 bits.
    digits = [float(str(value)) for value in narrow] if is_narrow else series.values.tolist()
    return {
        "bits": 32 if is_narrow else 64,
        "steps": series.steps.tolist(),
        "values": [value if np.isfinite(value) else None for value in digits],
    }


def read_archive(path: Path) -> ArchivedRuns:
    """The runs of a file.

    Raises:
        FileNotFoundError: there is none.
        NormlabError: it is damaged, too large, or of a newer normlab.
    """
    try:
        lines = [parse_json(line) for line in _decompress(read_bytes(path)).splitlines()]
        head, *rest = lines
        if head["schema_version"] != SCHEMA_VERSION or head["runs"] != len(rest):
            raise ValueError("its first line does not fit the others")
        runs = tuple(
            Run(
                path,
                RunRecord.parse(raw["record"]),
                Events({tag: _restore_series(series) for tag, series in raw["scalars"].items()}),
            )
            for raw in rest
        )
        return ArchivedRuns(runs, str(head["date"]), str(head["machine"]))
    # It is an OSError too, and the caller has an answer to it.
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NormlabError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise NormlabError(
            f"{path} is damaged or was written by another version ({error}); restore it from "
            f"version control, or write it again with --export."
        ) from error


def _decompress(content: bytes) -> str:
    """The text of a gzip file, which may be far larger than the file. Raises ValueError."""
    # `gzip.decompress` has no limit. The flag 16 asks zlib for gzip's header.
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    text = decoder.decompress(content, _LARGEST_TEXT)
    if decoder.unconsumed_tail or not decoder.eof:
        raise ValueError("it is cut off, or larger than such files are")
    return text.decode()


def _restore_series(raw: Mapping[str, Any]) -> Series:
    # Through 32 bits: as 64 bits the short digits would be another number.
    values = np.array(
        [np.nan if value is None else value for value in raw["values"]],
        dtype=np.float32 if raw["bits"] == 32 else np.float64,
    ).astype(np.float64)
    steps = np.array(raw["steps"], dtype=np.int64)
    if steps.shape != values.shape or steps.ndim != 1:
        raise ValueError("a curve has not as many values as steps")
    return Series(steps, values)
