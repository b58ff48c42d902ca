"""The frames of an event file: which of its bytes are whole records, and which are not.

A record is: length (8 bytes), checksum of the length (4), contents, checksum of the contents (4).
What stands in the records is not known here.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from normlab.archive.checksums import Bytes, Places, masked

_LENGTH, _HEADER, _FOOTER = 8, 12, 4

_WINDOW = 2**20  # bytes that are searched for headers at once
_SEARCHED = 4  # times the file's size: records behind damage that are checked, at most

# Records: looked at one by one, remembered to find what repeats, and looked at together then.
_GLANCE, _RECENT, _FORESEEN = 32, 512, 4096


@dataclass(frozen=True)
class Stretch:
    """Bytes of a file, as in a slice."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


@dataclass
class Frames:
    """A file taken apart.

    Attributes:
        starts, ends: where the contents of every whole record lie, in order, int64, shape (n,).
        damaged: what belongs to no whole record.
        cut: a last record that is sound as far as it goes, but ends with the file.
    """

    starts: Places
    ends: Places
    damaged: list[Stretch] = field(default_factory=list)
    cut: Stretch | None = None


def read_frames(buffer: bytes) -> Frames:
    """Find the records of a file; behind damage, the next that is whole wherever it begins."""
    data = np.frombuffer(buffer, dtype=np.uint8)
    starts, ends = _walk(buffer)
    sound = _sound(data, starts, ends)
    whole = len(starts) if sound.all() else int(np.argmin(sound))
    starts, ends = starts[:whole], ends[:whole]
    at = int(ends[-1]) if whole else 0
    found = Frames(starts + _HEADER, ends - _FOOTER)
    if at < len(buffer):
        at = _take(found, *_search(data, at), at)
    if at < len(buffer):
        rest = Stretch(at, len(buffer))
        if _goes_on(data, at):
            found.cut = rest
        else:
            found.damaged.append(rest)
    return found


def _take(found: Frames, starts: Places, ends: Places, at: int) -> int:
    """Take in the whole records from `at` on; what lies between them is damaged."""
    kept = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if start < at:  # inside of one that was taken
            continue
        if start > at:
            found.damaged.append(Stretch(at, start))
        kept.append((start + _HEADER, end - _FOOTER))
        at = end
    more = np.array(kept, np.int64).reshape(-1, 2)
    found.starts = np.append(found.starts, more[:, 0])
    found.ends = np.append(found.ends, more[:, 1])
    return at


def _goes_on(data: Bytes, at: int) -> bool:
    """Whether the file could have been cut off in the record that begins here."""
    return len(data) - at < _HEADER or bool(_headed(data, np.array([at]))[0])


def _walk(buffer: bytes) -> tuple[Places, Places]:
    """Where records begin and end, as far as their lengths can be believed.

    A run writes the same tags over and over, so the sizes of its records mostly repeat.
    """
    data = np.frombuffer(buffer, dtype=np.uint8)
    bounds, at = [np.zeros(1, np.int64)], 0
    recent = np.empty(0, np.int64)
    while at + _HEADER <= len(buffer):
        sizes = _one_by_one(buffer, at)
        recent = np.append(recent, sizes)[-_RECENT:]
        while sizes.size:
            bounds.append(at + np.cumsum(sizes))
            at = int(bounds[-1][-1])
            sizes = _repeated(data, at, recent)
    places = np.concatenate(bounds)
    return places[:-1], places[1:]


def _one_by_one(buffer: bytes, at: int) -> Places:
    """Sizes of the next few records."""
    length_at, size = struct.Struct("<Q").unpack_from, len(buffer)
    sizes: list[int] = []
    while at + _HEADER <= size and len(sizes) < _GLANCE:
        # A damaged length can be as large as 2^64; more than the file is all that matters.
        sizes.append(_HEADER + min(length_at(buffer, at)[0], size) + _FOOTER)
        at += sizes[-1]
    return np.array(sizes, np.int64)


def _repeated(data: Bytes, at: int, recent: Places) -> Places:
    """Sizes of the records from `at` on, as long as they repeat the recent ones; maybe none."""
    last, before = recent[-_GLANCE:].tobytes(), recent.tobytes()
    found = before.rfind(last, 0, -1)
    period, rest = divmod(len(before) - len(last) - found, recent.itemsize)
    if found < 0 or rest:
        return np.empty(0, np.int64)
    sizes = np.tile(recent[-period:], -(-_FORESEEN // period))
    starts = at + np.cumsum(sizes) - sizes
    sizes = sizes[: np.searchsorted(starts, len(data) - _HEADER, side="right")]
    lengths = _words(data, starts[: len(sizes)], "<u8")
    alike = lengths == (sizes - _HEADER - _FOOTER).astype(np.uint64)
    return sizes if alike.all() else sizes[: int(np.argmin(alike))]


def _search(data: Bytes, begin: int) -> tuple[Places, Places]:
    """Starts and ends of all whole records that begin behind `begin`, also inside of others."""
    found = list(_headers(data, begin + 1))
    starts = np.concatenate(found) if found else np.empty(0, np.int64)
    # As unsigned numbers, and never beyond the file: a length may be anything.
    lengths = np.minimum(_words(data, starts, "<u8"), len(data)).astype(np.int64)
    ends = starts + _HEADER + lengths + _FOOTER
    # Records that were made to overlap could ask for the file's square: the rest is damaged then.
    affordable = np.cumsum(lengths) <= _SEARCHED * len(data)
    starts, ends = starts[affordable], ends[affordable]
    sound = _sound(data, starts, ends)
    return starts[sound], ends[sound]


def _headers(data: Bytes, begin: int) -> Iterator[Places]:
    """Where a length stands with its checksum, window by window."""
    last = len(data) - _HEADER + 1
    for start in range(begin, last, _WINDOW):
        places = np.arange(start, min(start + _WINDOW, last))
        yield places[_headed(data, places)]


def _sound(data: Bytes, starts: Places, ends: Places) -> NDArray[np.bool_]:
    """Which of these records lie in the file and agree with both of their checksums."""
    sound = (ends <= len(data)) & _headed(data, starts)
    begin, end = starts[sound] + _HEADER, ends[sound] - _FOOTER
    sound[sound] = _words(data, end, "<u4") == masked(data, begin, end - begin)
    return sound


def _headed(data: Bytes, starts: Places) -> NDArray[np.bool_]:
    sums = masked(data, starts, np.full_like(starts, _LENGTH))
    headed: NDArray[np.bool_] = _words(data, starts + _LENGTH, "<u4") == sums
    return headed


def _words(data: Bytes, at: Places, kind: str) -> NDArray[np.uint64]:
    """The little-endian numbers that stand at these bytes."""
    places = max(0, len(data) - np.dtype(kind).itemsize + 1)
    words: NDArray[np.uint64] = np.ndarray((places,), kind, data, strides=(1,))[at]
    return words
