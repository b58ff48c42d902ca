"""What was read of a run's event files before, so that only what was added is read.

Kept is the beginning of every file, up to the last record before any damage, with a digest of its
bytes: a file that does not begin with them any more, rewound or damaged, is read anew. So the cache
never changes what is read. One that is damaged, or cannot be written, is as none.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from normlab import __version__
from normlab.archive.durable import replacing
from normlab.archive.points import Contents, Points

CACHE_FOLDER = ".cache"  # in a study's folder: nothing in a run's own is ever touched

# The file: these bytes, a CRC-32 of what follows, the length of a JSON header; the header; and the
# steps, values and wall times of all points, 8 bytes each.
_MAGIC = b"normlab events\n\x01"
_FIXED = struct.Struct(f"<{len(_MAGIC)}sII")
_ALIGNED = 8


@dataclass(frozen=True)
class Beginning:
    """The first bytes of an event file: how many, their SHA-256, and what stands in them."""

    size: int = 0
    digest: bytes = field(default_factory=lambda: sha256().digest())
    contents: Contents = field(default_factory=Contents)


def load(path: Path) -> dict[str, Beginning]:
    """The beginnings kept in a file, by the names of the event files; none if it is not sound."""
    try:
        data = path.read_bytes()
        magic, checksum, length = _FIXED.unpack_from(data)
        if magic != _MAGIC or checksum != zlib.crc32(memoryview(data)[_FIXED.size :]):
            return {}
        header = json.loads(data[_FIXED.size : _FIXED.size + length])
        if header["version"] != __version__:
            return {}
        return _beginnings(header["files"], data, _FIXED.size + length)
    except (OSError, struct.error, ValueError, KeyError, TypeError, RecursionError):
        return {}


def store(path: Path, beginnings: Mapping[str, Beginning]) -> None:
    """Replace what the file keeps, if that can be done."""
    files: list[dict[str, Any]] = []
    points: list[Points] = []
    for name, kept in beginnings.items():
        contents = kept.contents
        files.append(
            {
                "name": name,
                "size": kept.size,
                "digest": kept.digest.hex(),
                "points": [[tag, len(columns)] for tag, columns in contents.points.items()],
                "texts": contents.texts,
                "resumed_at": contents.resumed_at,
            }
        )
        points += contents.points.values()
    text = json.dumps({"version": __version__, "files": files}).encode()
    text += b" " * (-(_FIXED.size + len(text)) % _ALIGNED)
    every = Points.joined(points)
    columns = (
        every.steps.astype("<i8"),
        every.values.astype("<f8"),
        every.wall_times.astype("<f8"),
    )
    body = b"".join([text, *(column.tobytes() for column in columns)])
    # A crash may leave it damaged, which shows: nothing waits for the disk.
    with suppress(OSError), replacing(path, synced=False) as draft:
        draft.write_bytes(_FIXED.pack(_MAGIC, zlib.crc32(body), len(text)) + body)


def _beginnings(files: list[dict[str, Any]], data: bytes, at: int) -> dict[str, Beginning]:
    count = (len(data) - at) // 3 // _ALIGNED
    every = Points(
        np.frombuffer(data, "<i8", count, at),
        np.frombuffer(data, "<f8", count, at + _ALIGNED * count),
        np.frombuffer(data, "<f8", count, at + 2 * _ALIGNED * count),
    )
    begin, found = 0, {}
    for one in files:
        points = {}
        for tag, length in one["points"]:
            points[tag] = every[begin : begin + length]
            begin += length
        contents = Contents(points, one["texts"], one["resumed_at"])
        found[one["name"]] = Beginning(one["size"], bytes.fromhex(one["digest"]), contents)
    return found
