"""What stands in the records of an event file, and first of all the scalars.

Nearly every record holds one scalar, as TensorBoard's writers lay it out:

    09 <wall time, 8 bytes> [10 <step>] 2a <n> 0a <n> 0a <n> <tag> 15 <value, 4 bytes>

where each n is the length of what follows it. Of records that are equally long and whose steps
take as many bytes, everything but the tag stands in the same columns, so they are read together.
Any other record goes through protobuf, which gives the same numbers.
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from normlab.archive.checksums import Bytes, Places, by_length, differing, rows
from normlab.archive.points import Contents, Points

_WALL_TIME, _STEP, _SUMMARY, _VALUE, _TAG, _SIMPLE_VALUE = 0x09, 0x10, 0x2A, 0x0A, 0x0A, 0x15
_STEP_AT = 9  # behind the wall time
_MOST_STEP_BYTES = 10

# Numbers that spread what differs between two tags over 64 bits.
_SPREAD = np.random.default_rng(0).integers(2**64, size=2**10, dtype=np.uint64) | np.uint64(1)


_Chunk = tuple[Places, Points]  # numbers of the records, and their points


def read_contents(buffer: bytes, starts: Places, ends: Places) -> Contents:
    """Read the records that lie between these bytes, each shape (n,)."""
    data = np.frombuffer(buffer, dtype=np.uint8)
    plain: list[tuple[str, _Chunk]] = []
    others = np.ones(len(starts), dtype=bool)
    for length, alike in by_length(ends - starts):
        for tag, members, points in _scalars(rows(data, starts[alike], length)):
            numbers = alike[members]
            others[numbers] = False
            plain.append((tag, (numbers, points)))
    found = Contents()
    chunks: dict[str, list[_Chunk]] = defaultdict(list)
    rest = np.flatnonzero(others)
    if rest.size:
        # Seldom more than a few; a file whose beginning is known has none.
        from normlab.archive.messages import read_messages

        spans = zip(rest.tolist(), starts[rest].tolist(), ends[rest].tolist(), strict=True)
        for tag, chunk in read_messages(buffer, spans, found):
            chunks[tag].append(chunk)
    # After the others: only among those can two tags begin in one record, and be in order there.
    for tag, chunk in plain:
        chunks[tag].append(chunk)
    found.points = _in_order(chunks)
    return found


def _in_order(chunks: dict[str, list[_Chunk]]) -> dict[str, Points]:
    firsts, points = {}, {}
    for tag, parts in chunks.items():
        numbers = np.concatenate([part[0] for part in parts])
        points[tag] = Points.joined([part[1] for part in parts])
        if (np.diff(numbers) < 0).any():
            order = np.argsort(numbers, kind="stable")
            numbers, points[tag] = numbers[order], points[tag][order]
        firsts[tag] = int(numbers[0])
    return {tag: points[tag] for tag in sorted(points, key=firsts.__getitem__)}


def _scalars(records: Bytes) -> Iterator[tuple[str, Places, Points]]:
    """The records, shape (n, length), that hold one scalar: tag, which they are, their points."""
    if records.shape[1] <= _STEP_AT:
        return
    step_bytes = _step_bytes(records)
    for count in np.unique(step_bytes).tolist():
        if count < 0:
            continue
        members = np.flatnonzero(step_bytes == count)
        yield from _laid_out(records, members, count)


def _step_bytes(records: Bytes) -> NDArray[np.int8]:
    """How many bytes the step takes; 0 where it is left out, as 0 is; -1 where there is none."""
    length = records.shape[1]
    count = np.full(len(records), -1, dtype=np.int8)
    behind_wall_time = records[:, _STEP_AT]
    count[behind_wall_time == _SUMMARY] = 0
    open_ = np.flatnonzero(behind_wall_time == _STEP)
    for size in range(1, min(_MOST_STEP_BYTES, length - _STEP_AT - 1) + 1):
        if not open_.size:
            break
        goes_on = records[open_, _STEP_AT + size] >= 0x80
        count[open_[~goes_on]] = size
        open_ = open_[goes_on]
    return count


def _laid_out(
    records: Bytes, members: Places, step_bytes: int
) -> Iterator[tuple[str, Places, Points]]:
    """Of the members, whose steps take so many bytes, those that hold one scalar."""
    length = records.shape[1]
    begin = _STEP_AT + (1 + step_bytes if step_bytes else 0)
    head = _head(length - begin)
    if head is None:
        return
    tag_at, value_at = begin + len(head), length - 4
    some = records if len(members) == len(records) else records[members]
    fits = (some[:, 0] == _WALL_TIME) & (some[:, value_at - 1] == _SIMPLE_VALUE)
    fits &= _equal(some[:, begin:tag_at], np.frombuffer(head, np.uint8))
    if not fits.all():
        some, members = some[fits], members[fits]
    if not members.size:
        return
    points = Points(
        _steps(some[:, _STEP_AT + 1 : begin]),
        _numbers(some[:, value_at:], "<f4"),
        _numbers(some[:, 1:_STEP_AT], "<f8"),
    )
    for which in _alike(some[:, tag_at : value_at - 1]):
        tag = _tag(some[which[0], tag_at : value_at - 1])
        if tag is None:
            continue
        if len(which) == len(members):
            yield tag, members, points
        else:
            yield tag, members[which], points[which]


def _head(total: int) -> bytes | None:
    """What stands before the tag, where `total` bytes follow the step; None if nothing fits."""
    head = b""
    for key in (_SUMMARY, _VALUE):
        opened = _opened(key, total - len(head))
        if opened is None:
            return None
        head += opened
    opened = _opened(_TAG, total - len(head) - 5)  # behind it one byte and the value
    return None if opened is None else head + opened


def _opened(key: int, total: int) -> bytes | None:
    """Key and length of a field that takes `total` bytes with both."""
    for size in (1, 2):
        length = total - 1 - size
        if 0 <= length < 1 << 7 * size:
            low, high = length & 0x7F, length >> 7
            return bytes([key, low] if size == 1 else [key, low | 0x80, high])
    return None


def _steps(coded: Bytes) -> NDArray[np.int64]:
    """Numbers of seven bits a byte, the lowest first, shape (n, bytes) → (n,).

    Of a tenth byte only one bit is a number's; protobuf drops the others too.
    """
    steps = np.zeros(len(coded), dtype=np.uint64)
    for at in range(coded.shape[1]):
        steps |= (coded[:, at] & np.uint8(0x7F)).astype(np.uint64) << np.uint64(7 * at)
    return steps.view(np.int64)


def _numbers(coded: Bytes, kind: str) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
        return np.ascontiguousarray(coded).view(kind)[:, 0].astype(np.float64)


def _alike(tags: Bytes) -> Iterator[Places]:
    """The indices of equal rows, class by class, in their order."""
    columns = differing(tags)
    if not columns.size:
        yield np.arange(len(tags))
        return
    if len(columns) > len(_SPREAD):
        return
    key = np.zeros(len(tags), dtype=np.uint64)
    for column, factor in zip(columns.tolist(), _SPREAD, strict=False):
        key += tags[:, column] * factor
    order = np.argsort(key, kind="stable")
    bounds = np.flatnonzero(np.diff(key[order])) + 1
    for which in np.split(order, bounds):
        # Two tags with one key are next to impossible, and then protobuf's.
        yield which[_equal(tags[which], tags[which[0]])]


def _equal(some: Bytes, row: Bytes) -> NDArray[np.bool_]:
    """Which rows are this one; that all are is seen many times faster."""
    same = some == row
    return np.ones(len(some), np.bool_) if same.all() else same.all(axis=1)


def _tag(coded: Bytes) -> str | None:
    try:
        return coded.tobytes().decode("utf-8")
    except UnicodeDecodeError:
        return None
