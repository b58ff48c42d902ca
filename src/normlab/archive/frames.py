"""The frames of an event file: which of its bytes are whole records, and which are not.

A record is: length (8 bytes), checksum of the length (4), contents, checksum of the contents (4).
What stands in the records is not known here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_LENGTH, _HEADER, _FOOTER = 8, 12, 4

# Up to here the checksums of many contents are computed side by side, beyond it one by one.
_SHORT = 512
_ROW = 64
_WINDOW = 2**20  # bytes that are searched for headers at once

_Bytes = NDArray[np.uint8]
_Sums = NDArray[np.uint32]
_Places = NDArray[np.int64]


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
        contents: of every whole record, in order.
        damaged: what belongs to no whole record.
        cut: a last record that is sound as far as it goes, but ends with the file.
    """

    contents: list[Stretch] = field(default_factory=list)
    damaged: list[Stretch] = field(default_factory=list)
    cut: Stretch | None = None


def read_frames(buffer: bytes) -> Frames:
    """Find the records of a file; behind damage, the next that is whole wherever it begins."""
    data = np.frombuffer(buffer, dtype=np.uint8)
    starts, ends = _walk(buffer)
    sound = _sound(data, starts, ends)
    first_bad = len(starts) if sound.all() else int(np.argmin(sound))
    found = Frames()
    at = _take(found, starts[:first_bad], ends[:first_bad], 0)
    if at < len(buffer):
        at = _take(found, *_search(data, at), at)
    if at < len(buffer):
        rest = Stretch(at, len(buffer))
        if _goes_on(data, at):
            found.cut = rest
        else:
            found.damaged.append(rest)
    return found


def _take(found: Frames, starts: _Places, ends: _Places, at: int) -> int:
    """Take in the whole records from `at` on; what lies between them is damaged."""
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if start < at:  # inside of one that was taken
            continue
        if start > at:
            found.damaged.append(Stretch(at, start))
        found.contents.append(Stretch(start + _HEADER, end - _FOOTER))
        at = end
    return at


def _goes_on(data: _Bytes, at: int) -> bool:
    """Whether the file could have been cut off in the record that begins here."""
    return len(data) - at < _HEADER or bool(_headed(data, np.array([at]))[0])


def _walk(buffer: bytes) -> tuple[_Places, _Places]:
    """Where records begin and end, as far as their lengths can be believed."""
    starts, ends = [], []
    at, size = 0, len(buffer)
    while at + _HEADER <= size:
        # A damaged length can be as large as 2^64; more than the file is all that matters.
        length = min(int.from_bytes(buffer[at : at + _LENGTH], "little"), size)
        starts.append(at)
        at += _HEADER + length + _FOOTER
        ends.append(at)
    return np.array(starts, np.int64), np.array(ends, np.int64)


def _search(data: _Bytes, begin: int) -> tuple[_Places, _Places]:
    """Starts and ends of all whole records that begin behind `begin`, also inside of others."""
    found = list(_headers(data, begin + 1))
    starts = np.concatenate(found) if found else np.empty(0, np.int64)
    # As unsigned numbers, and never beyond the file: a length may be anything.
    lengths = np.minimum(_words(data, starts, "<u8"), len(data)).astype(np.int64)
    ends = starts + _HEADER + lengths + _FOOTER
    sound = _sound(data, starts, ends)
    return starts[sound], ends[sound]


def _headers(data: _Bytes, begin: int) -> Iterator[_Places]:
    """Where a length stands with its checksum, window by window."""
    last = len(data) - _HEADER + 1
    for start in range(begin, last, _WINDOW):
        places = np.arange(start, min(start + _WINDOW, last))
        yield places[_headed(data, places)]


def _sound(data: _Bytes, starts: _Places, ends: _Places) -> NDArray[np.bool_]:
    """Which of these records lie in the file and agree with both of their checksums."""
    sound = (ends <= len(data)) & _headed(data, starts)
    begin, end = starts[sound] + _HEADER, ends[sound] - _FOOTER
    sound[sound] = _words(data, end, "<u4") == _checksums(data, begin, end - begin)
    return sound


def _headed(data: _Bytes, starts: _Places) -> NDArray[np.bool_]:
    sums = _checksums(data, starts, np.full_like(starts, _LENGTH))
    headed: NDArray[np.bool_] = _words(data, starts + _LENGTH, "<u4") == sums
    return headed


def _words(data: _Bytes, at: _Places, kind: str) -> NDArray[np.uint64]:
    """The little-endian numbers that stand at these bytes."""
    size = np.dtype(kind).itemsize
    words: NDArray[np.uint64] = data[at[:, None] + np.arange(size)].view(kind)[:, 0]
    return words


def _checksums(data: _Bytes, starts: _Places, lengths: _Places) -> _Sums:
    """TFRecord's masked CRC-32C of many pieces."""
    short = lengths <= _SHORT
    crc = np.empty(len(starts), dtype=np.uint32)
    crc[short] = _side_by_side(data, starts[short], lengths[short])
    for index in np.flatnonzero(~short):
        crc[index] = _alone(data[starts[index] : starts[index] + lengths[index]])
    masked: _Sums = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)
    return masked


def _side_by_side(data: _Bytes, starts: _Places, lengths: _Places) -> _Sums:
    """CRC-32C of many short pieces: a loop over bytes, not over pieces."""
    order = np.argsort(-lengths, kind="stable")
    starts, lengths = starts[order], lengths[order]
    crc = np.full(len(starts), 0xFFFFFFFF, dtype=np.uint32)
    for at in range(lengths.max(initial=0)):
        active = int(np.searchsorted(-lengths, -at))  # the pieces longer than `at` come first
        crc[:active] = _next(crc[:active], data[starts[:active] + at])
    unsorted = np.empty_like(crc)
    unsorted[order] = ~crc
    return unsorted


def _alone(piece: _Bytes) -> int:
    """CRC-32C of one long piece: its rows side by side, then their sums joined.

    It is linear: zeros in front change nothing where it starts at 0, and starting at all ones is
    starting at 0 with the first four bytes inverted.
    """
    rows = np.zeros((-(-len(piece) // _ROW), _ROW), dtype=np.uint8)
    padded = rows.reshape(-1)[-len(piece) :]
    padded[:] = piece
    padded[:4] ^= 0xFF
    sums = np.zeros(len(rows), dtype=np.uint32)
    for column in rows.T:
        sums = _next(sums, column)
    a, b, c, d = _SHIFTS
    crc = 0
    for one in sums.tolist():
        crc = a[crc & 255] ^ b[crc >> 8 & 255] ^ c[crc >> 16 & 255] ^ d[crc >> 24] ^ one
    return crc ^ 0xFFFFFFFF


def _next(crc: _Sums, byte: _Bytes | np.uint8) -> _Sums:
    following: _Sums = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return following


def _table() -> _Sums:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):  # 0x82F63B78 is Castagnoli's polynomial, bit-reversed
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table


def _shifts() -> list[list[int]]:
    """What each byte of a sum becomes when a row of zeros follows."""
    tables = []
    for byte in range(4):
        crc = np.arange(256, dtype=np.uint32) << np.uint32(8 * byte)
        for _ in range(_ROW):
            crc = _next(crc, np.uint8(0))
        tables.append(crc.tolist())
    return tables


_TABLE = _table()
_SHIFTS = _shifts()
