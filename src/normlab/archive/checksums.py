"""CRC-32C of many pieces of a file at once, as TFRecord masks it.

A checksum is linear: where two pieces of one length differ, only the bytes that differ tell their
sums apart. Records of one kind agree in most bytes, so most bytes are looked at once.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# Up to here pieces of one length are computed side by side, beyond it one by one.
_SHORT = 512
_LONG = 4096  # from here on a piece is cut into rows of this many bytes
_ROW = 64
_TOGETHER = 32

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]
_Sums = NDArray[np.uint32]


def masked(data: Bytes, starts: Places, lengths: Places) -> NDArray[np.uint32]:
    """TFRecord's masked CRC-32C of the pieces of `data` that begin at `starts`, shape (n,)."""
    crc = np.empty(len(starts), dtype=np.uint32)
    for length, alike in by_length(lengths):
        if length > _SHORT or len(alike) == 1:
            crc[alike] = [_alone(data[at : at + length]) for at in starts[alike].tolist()]
        else:
            crc[alike] = _side_by_side(rows(data, starts[alike], length))
    mask: NDArray[np.uint32] = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + _MASK
    return mask


def by_length(lengths: Places) -> Iterator[tuple[int, Places]]:
    """Every length with the indices that have it, in their order."""
    if not lengths.size:
        return
    if int(lengths.max()) < 2**16:  # numpy sorts these without comparing them
        order = np.argsort(lengths.astype(np.uint16), kind="stable")
    else:
        order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    bounds = [0, *(np.flatnonzero(np.diff(ordered)) + 1).tolist(), len(order)]
    for begin, end in pairwise(bounds):
        yield int(ordered[begin]), order[begin:end]


def rows(data: Bytes, starts: Places, length: int) -> Bytes:
    """Pieces of one length below each other, shape (n, length); they lie in `data`."""
    if not length or not len(starts):
        return np.empty((len(starts), length), np.uint8)
    kind = f"V{length}"
    everywhere = np.ndarray((len(data) - length + 1,), kind, data, strides=(1,))
    return everywhere[starts].view(np.uint8).reshape(-1, length)


def differing(pieces: Bytes) -> Places:
    """The columns in which not all rows are the same."""
    other = pieces != pieces[0]
    # Short rows are slow to go through, so many at once are taken as one long row.
    length, whole = pieces.shape[1], len(pieces) // _TOGETHER * _TOGETHER
    together = other[:whole].reshape(whole // _TOGETHER, _TOGETHER * length).any(axis=0)
    return np.flatnonzero(
        together.reshape(_TOGETHER, length).any(axis=0) | other[whole:].any(axis=0)
    )


def _side_by_side(pieces: Bytes) -> _Sums:
    """CRC-32C of rows, shape (n, length) → (n,): the first one's, and how the others differ."""
    length = pieces.shape[1]
    first = pieces[0]
    sums = np.full(len(pieces), _alone(first), dtype=np.uint32)
    _grow(length)
    for column in differing(pieces).tolist():
        sums ^= _BEHIND[length - 1 - column].take(pieces[:, column] ^ first[column])
    return sums


def _alone(piece: Bytes) -> int:
    """CRC-32C of one piece."""
    if len(piece) > _LONG:
        return _in_rows(piece)
    crc = 0xFFFFFFFF
    for byte in piece.tobytes():
        crc = _PLAIN[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _in_rows(piece: Bytes) -> int:
    """CRC-32C of one long piece: its rows side by side, then their sums joined.

    Zeros in front change nothing where it starts at 0, and starting at all ones is starting at 0
    with the first four bytes inverted.
    """
    table = np.zeros((-(-len(piece) // _ROW), _ROW), dtype=np.uint8)
    padded = table.reshape(-1)[-len(piece) :]
    padded[:] = piece
    padded[:4] ^= 0xFF
    sums = np.zeros(len(table), dtype=np.uint32)
    for column in table.T:
        sums = _next(sums, column)
    a, b, c, d = _SHIFTS
    crc = 0
    for one in sums.tolist():
        crc = a[crc & 255] ^ b[crc >> 8 & 255] ^ c[crc >> 16 & 255] ^ d[crc >> 24] ^ one
    return crc ^ 0xFFFFFFFF


def _next(crc: _Sums, byte: Bytes | np.uint8) -> _Sums:
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


def _grow(length: int) -> None:
    """Have a table for each of the last `length` bytes of a piece."""
    while len(_BEHIND) < length:
        _BEHIND.append(_next(_BEHIND[-1], np.uint8(0)))


_MASK = np.uint32(0xA282EAD8)
_TABLE = _table()
_PLAIN = _TABLE.tolist()
_SHIFTS = _shifts()
# What a byte adds to the sum, by how many bytes follow it.
_BEHIND = [_TABLE]
