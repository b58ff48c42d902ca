"""One TensorBoard event file: which of its records are sound, and the numbers and texts in them.

A record is the length of its content (8 bytes), the checksum of the length (4), the content, and
the checksum of the content (4). Checksums are CRC-32C, masked (TFRecord). Nearly every content is
one scalar, as TensorBoard's writers lay it out in protobuf:

    09 <wall time, 8 bytes> [10 <step>] 2a <n> 0a <n> 0a <n> <tag> 15 <value, 4 bytes>

where n is the length of what follows. Contents that are equally long differ only in few of these
bytes, so numpy reads them together, which is 20 times as fast as a message at a time. All other
contents go through TensorBoard's own protobuf messages.
"""

import math
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH, _HEADER, _FOOTER = 8, 12, 4  # bytes

_CRC_BLOCK = 64  # bytes whose checksum is looked up side by side
# From the initial state zero, these bytes lead to the state that CRC-32C begins with, all ones.
_CRC_PREFIX = np.frombuffer(b"\x54\x64\x1f\x64", np.uint8)
_CRC_MASK = np.uint32(0xA282EAD8)

_SEARCH_WINDOW = 2**20  # bytes that are searched for headers at once
# Headers behind damage may claim contents that overlap: at most so many times the file is checked.
_SEARCH_BUDGET = 4
_DT_STRING = 7  # in TensorBoard's types.proto

POINT = np.dtype([("record", "i8"), ("step", "i8"), ("value", "f8")])
"""A point of a curve, with the number of the record that it was read from."""

Bytes = NDArray[np.uint8]
Indices = NDArray[np.int64]
Points = NDArray[np.void]
Span = tuple[int, int]  # start and end, in bytes of the file


@dataclass
class EventFile:
    """What was read from one event file.

    Attributes:
        size: bytes of the file.
        points: tag → its points as they were written (dtype POINT), tags in the order of their
            first points.
        texts: tag → the text written last.
        damaged: spans of the file that belong to no sound record.
        cut_at: where a last record begins that is sound as far as it goes, but ends with the file.
    """

    size: int
    points: dict[str, Points] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    damaged: list[Span] = field(default_factory=list)
    cut_at: int | None = None


def parse_event_file(buffer: bytes) -> EventFile:
    """Read all sound records of a file's content; damage is skipped and noted, never believed."""
    data = np.frombuffer(buffer, np.uint8)
    file = EventFile(len(buffer))
    starts, ends = _find_records(data, file)  # (records,)
    scalars: list[tuple[str, Points]] = []
    is_scalar = np.zeros(len(starts), np.bool_)
    for length, members in _group_equal(ends - starts):
        for tag, points in _parse_scalars(_gather_rows(data, starts[members], length), members):
            is_scalar[points["record"]] = True
            scalars.append((tag, points))
    chunks: dict[str, list[Points]] = defaultdict(list)
    # Messages first: only in one of these can two tags begin in the same record, in this order.
    messages = np.flatnonzero(~is_scalar)
    if messages.size:
        for tag, points in _parse_messages(buffer, messages, starts, ends, file):
            chunks[tag].append(points)
    for tag, points in scalars:
        chunks[tag].append(points)
    # The parts are in the order of their lengths, not in that of the file.
    joined = {tag: _sort_by_record(np.concatenate(parts)) for tag, parts in chunks.items()}
    # Tags in the order of TensorBoard's own loader.
    file.points = dict(sorted(joined.items(), key=lambda item: int(item[1]["record"][0])))
    return file


def _sort_by_record(points: Points) -> Points:
    if (np.diff(points["record"]) < 0).any():
        # Stable: one record may hold several values of a tag, and the later one counts.
        points = points[np.argsort(points["record"], kind="stable")]
    return points


# --- Records ------------------------------------------------------------------------------------


def _find_records(data: Bytes, file: EventFile) -> tuple[Indices, Indices]:
    """Starts and ends of the contents of all sound records; what is between them is `damaged`."""
    starts, ends = _follow_lengths(data)
    sound = _are_sound(data, starts, ends)
    # Up to the first that is not sound: a wrong length misplaces all records behind it.
    count = len(sound) if sound.all() else int(np.argmin(sound))
    spans = [(starts[:count], ends[:count])]
    at = int(ends[count - 1]) + _FOOTER if count else 0
    if at < len(data):
        # Behind damage a record may begin anywhere.
        candidates = _search_records(data, at + 1)
        chosen = []
        for start, end in zip(*(column.tolist() for column in candidates), strict=True):
            if start - _HEADER < at:  # inside of a record that was taken
                continue
            if start - _HEADER > at:
                file.damaged.append((at, start - _HEADER))
            chosen.append((start, end))
            at = end + _FOOTER
        columns = np.array(chosen, np.int64).reshape(-1, 2)
        spans.append((columns[:, 0], columns[:, 1]))
    if at < len(data):
        # The file ends inside of a record: no damage, for the run may still be writing.
        if len(data) - at < _HEADER or _have_sound_headers(data, np.array([at]))[0]:
            file.cut_at = at
        else:
            file.damaged.append((at, len(data)))
    starts, ends = (np.concatenate(columns) for columns in zip(*spans, strict=True))
    return starts, ends


def _follow_lengths(data: Bytes) -> tuple[Indices, Indices]:
    """Where contents start and end if the length of every record is right."""
    read_length, buffer, size = struct.Struct("<Q").unpack_from, data.data, len(data)
    bounds, at, last = [], 0, size - _HEADER
    # Not by numpy: where a record begins is known only from the one before it.
    while at <= last:
        bounds.append(at)
        at += read_length(buffer, at)[0] + _HEADER + _FOOTER
    # A damaged length can be as large as 2^64; beyond the file is all that matters.
    bounds.append(min(at, size + _HEADER + _FOOTER))
    offsets = np.array(bounds, np.int64)
    return offsets[:-1] + _HEADER, offsets[1:] - _FOOTER


def _search_records(data: Bytes, begin: int) -> tuple[Indices, Indices]:
    """Contents of all sound records that begin at `begin` or later, also inside of others."""
    last = len(data) - _HEADER + 1
    parts = [np.empty(0, np.int64)]
    for first in range(begin, last, _SEARCH_WINDOW):
        window = np.arange(first, min(first + _SEARCH_WINDOW, last))
        parts.append(window[_have_sound_headers(data, window)])
    headers = np.concatenate(parts)
    # A length may be any number of 64 bits: limited first, it fits into a signed one.
    lengths = np.minimum(_read_words(data, headers, "<u8"), len(data)).astype(np.int64)
    headers = headers[np.cumsum(lengths) <= _SEARCH_BUDGET * len(data)]
    starts = headers + _HEADER
    ends = starts + lengths[: len(headers)]
    sound = _are_sound(data, starts, ends)
    return starts[sound], ends[sound]


def _are_sound(data: Bytes, starts: Indices, ends: Indices) -> NDArray[np.bool_]:
    """Which records lie in the file and agree with both of their checksums."""
    sound: NDArray[np.bool_] = ends + _FOOTER <= len(data)
    # Each test is only of what passed the one before: the others may lead out of the file.
    sound[sound] = _have_sound_headers(data, starts[sound] - _HEADER)
    begin, end = starts[sound], ends[sound]
    sound[sound] = _read_words(data, end, "<u4") == masked_crc32c(data, begin, end - begin)
    return sound


def _have_sound_headers(data: Bytes, headers: Indices) -> NDArray[np.bool_]:
    sums = masked_crc32c(data, headers, np.full_like(headers, _LENGTH))
    sound: NDArray[np.bool_] = _read_words(data, headers + _LENGTH, "<u4") == sums
    return sound


def _read_words(data: Bytes, offsets: Indices, kind: str) -> NDArray[np.unsignedinteger[Any]]:
    """The little-endian numbers of `kind` at these offsets."""
    count = max(0, len(data) - np.dtype(kind).itemsize + 1)
    # Strides of one byte: a view with a number at every offset, also at odd ones.
    words: NDArray[np.unsignedinteger[Any]] = np.ndarray((count,), kind, data, strides=(1,))
    return words[offsets]


def _gather_rows(data: Bytes, starts: Indices, length: int) -> Bytes:
    """Pieces of one length, shape (n, length)."""
    if not length or not len(starts):  # numpy cannot count rows of no bytes
        return np.empty((len(starts), length), np.uint8)
    # An item is a whole piece: an index for every byte would take eight times the memory.
    pieces = np.ndarray((len(data) - length + 1,), f"V{length}", data, strides=(1,))
    return pieces[starts].view(np.uint8).reshape(-1, length)


def _group_equal(keys: NDArray[Any]) -> Iterator[tuple[int, Indices]]:
    """Every key with its indices, ascending."""
    if keys.size and keys.max() < 2**16:
        keys = keys.astype(np.uint16)  # numpy sorts these without comparing them
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    bounds = [0, *(np.flatnonzero(np.diff(ordered)) + 1).tolist(), len(order)]
    for begin, end in pairwise(bounds):
        if begin < end:
            yield int(ordered[begin]), order[begin:end]


# --- Checksums ----------------------------------------------------------------------------------


def masked_crc32c(data: Bytes, starts: Indices, lengths: Indices) -> NDArray[np.uint32]:
    """TFRecord's masked CRC-32C of the pieces of `data` that begin at `starts`, shape (n,)."""
    crc = np.empty(len(starts), np.uint32)
    for length, members in _group_equal(lengths):
        crc[members] = _crc_of_rows(_gather_rows(data, starts[members], length))
    crc = ~crc
    # The CRC of data that end in their own CRC is always the same, so TFRecord changes it.
    masked: NDArray[np.uint32] = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + _CRC_MASK
    return masked


def _crc_of_rows(rows: Bytes) -> NDArray[np.uint32]:
    """The register of CRC-32C behind each row, (n, length) → (n,).

    A checksum from the state zero is linear: it is the exclusive or of what each byte contributes,
    which depends on the number of bytes behind it. Long rows are cut into blocks, whose sums are
    joined in pairs. Zeros in front change nothing.
    """
    count, length = rows.shape
    size = len(_CRC_PREFIX) + length
    blocks = -(-size // _CRC_BLOCK)
    end = blocks * _CRC_BLOCK
    padded = np.zeros((count, end), np.uint8)  # zeros, the prefix, the row
    padded[:, end - size : end - length] = _CRC_PREFIX
    padded[:, end - length :] = rows
    columns = padded.reshape(count * blocks, _CRC_BLOCK).T  # (_CRC_BLOCK, count · blocks)
    first = _CRC_BLOCK - size if blocks == 1 else 0
    sums = np.zeros(count * blocks, np.uint32)
    for column, table in zip(columns[first:], _CRC_TABLES[first:], strict=True):
        sums ^= table.take(column)
    # A register acts as the first four bytes of the block behind it, which have 63 to 60 bytes
    # behind them: so the first four tables move it by one block.
    sums, shift = sums.reshape(count, blocks), _CRC_TABLES[:4]
    while sums.shape[1] > 1:
        if sums.shape[1] % 2:
            sums = np.pad(sums, ((0, 0), (1, 0)))
        sums = _shift_crc(sums[:, ::2], shift) ^ sums[:, 1::2]
        shift = _shift_crc(shift, shift)  # by twice as many bytes
    return sums[:, 0]


def _shift_crc(crc: NDArray[np.uint32], tables: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """What a register becomes behind as many zeros as the four tables are for."""
    shifted = np.zeros_like(crc)
    for n, table in enumerate(tables):
        shifted ^= table[crc >> np.uint32(8 * n) & np.uint32(255)]
    return shifted


def _build_crc_tables() -> NDArray[np.uint32]:
    """What a byte contributes at each place of a block, shape (_CRC_BLOCK, 256)."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):  # 0x82F63B78 is Castagnoli's polynomial, bit-reversed
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    tables = [table]
    while len(tables) < _CRC_BLOCK:
        tables.append(table[tables[-1] & 255] ^ (tables[-1] >> 8))
    return np.stack(tables[::-1])


_CRC_TABLES = _build_crc_tables()


# --- Contents -----------------------------------------------------------------------------------


def _parse_scalars(rows: Bytes, records: Indices) -> Iterator[tuple[str, Points]]:
    """Points of the contents, shape (n, length), that are laid out as one scalar, tag by tag."""
    length = rows.shape[1]
    if length < 20:  # the parts below take 20 bytes with an empty tag and no step
        return
    # A step takes as many bytes as there are up to the first below 128; 0 is left out.
    step_bytes = (rows[:, 10:20] < 128).argmax(axis=1) + 1
    step_bytes[rows[:, 9] != 0x10] = 0
    for size, members in _group_equal(step_bytes):
        step_end = 9 + (1 + size if size else 0)
        head = _scalar_head(length - step_end)
        if head is None:
            continue
        tag_start = step_end + len(head)
        scalars = rows if len(members) == len(rows) else rows[members]
        fits = (scalars[:, 0] == 0x09) & (scalars[:, -5] == 0x15)
        fits &= _equal_rows(scalars[:, step_end:tag_start], np.frombuffer(head, np.uint8))
        if not fits.all():
            scalars, members = scalars[fits], members[fits]
        points = np.empty(len(members), POINT)
        points["record"] = records[members]
        points["step"] = _decode_varints(scalars[:, 10:step_end])
        with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
            points["value"] = np.ascontiguousarray(scalars[:, -4:]).view("<f4")[:, 0]
        for tag, chosen in _group_tags(scalars[:, tag_start:-5]):
            yield tag, points if len(chosen) == len(points) else points[chosen]


def _scalar_head(size: int) -> bytes | None:
    """The bytes in front of the tag where `size` bytes follow the step; None where none fit."""
    head = b""
    # A length takes one byte below 2^7 and two below 2^14; longer tags are left to protobuf.
    for key, behind in ((0x2A, 0), (0x0A, 0), (0x0A, 5)):
        rest = size - len(head) - behind
        if 2 <= rest < 2 + 2**7:
            head += bytes([key, rest - 2])
        elif 3 + 2**7 <= rest < 3 + 2**14:
            head += bytes([key, (rest - 3) & 127 | 128, (rest - 3) >> 7])
        else:
            return None
    return head


def _decode_varints(coded: Bytes) -> Indices:
    """Protobuf's numbers of seven bits a byte, the lowest first, (n, bytes) → (n,)."""
    numbers = np.zeros(len(coded), np.uint64)
    for n, column in enumerate(coded.T):
        numbers |= (column & np.uint8(127)).astype(np.uint64) << np.uint64(7 * n)
    return numbers.view(np.int64)


def _group_tags(coded: Bytes) -> Iterator[tuple[str, Indices]]:
    """Every tag with the indices of its rows; what is no text in UTF-8 is left out."""
    if not len(coded):
        return
    same = bool((coded == coded[0]).all())
    for _, members in _group_equal(np.zeros(len(coded)) if same else _crc_of_rows(coded)):
        tag = coded[members[0]]
        # Of two tags with one checksum the first is taken, and the other goes through protobuf.
        members = members[_equal_rows(coded[members], tag)]
        try:
            yield tag.tobytes().decode("utf-8"), members
        except UnicodeDecodeError:
            continue


def _equal_rows(rows: Bytes, row: Bytes) -> NDArray[np.bool_]:
    """Which rows equal `row`; that all do is seen many times faster."""
    same = rows == row
    return np.ones(len(rows), np.bool_) if same.all() else same.all(axis=1)


def _parse_messages(
    buffer: bytes, records: Indices, starts: Indices, ends: Indices, file: EventFile
) -> Iterator[tuple[str, Points]]:
    """Points of any other records, tag by tag; all else that they hold goes into `file`."""
    # Imported late: a file's scalars do without, and it takes 0.1 s.
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.compat.proto import event_pb2  # type: ignore[import-untyped]

    written: dict[str, list[tuple[int, int, float]]] = defaultdict(list)
    for record in records.tolist():
        start, end = int(starts[record]), int(ends[record])
        try:
            event = event_pb2.Event.FromString(buffer[start:end])
        except DecodeError:  # both checksums are right, but it is no event
            file.damaged.append((start, end))
            continue
        for value in event.summary.value:
            scalar = _read_value(value, file.texts)
            if scalar is not None:
                written[value.tag].append((record, event.step, scalar))
    for tag, points in written.items():
        yield tag, np.array(points, POINT)


def _read_value(value: Any, texts: dict[str, str]) -> float | None:
    """The number that a value holds; None where it is a text, which goes into `texts`, or more."""
    # torch writes numbers as simple values, or with `new_style=True` as tensors; texts are tensors
    # too, and the plugin tells them apart.
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor":
        return None
    plugin = value.metadata.plugin_data.plugin_name
    if value.tensor.dtype == _DT_STRING:
        if plugin == "text" and value.tensor.string_val:
            text = b"\n".join(value.tensor.string_val)
            texts[value.tag] = text.decode("utf-8", errors="replace")
        return None
    if plugin not in ("", "scalars"):
        return None
    # A shape is a claim, and an array of that shape would be made before anybody looks at it.
    if math.prod(dim.size for dim in value.tensor.tensor_shape.dim) != 1:
        return None
    # Imported late: seldom needed, and it takes 0.3 s.
    from tensorboard.util.tensor_util import make_ndarray  # type: ignore[import-untyped]

    try:
        with np.errstate(all="ignore"):  # a number beyond its own type is infinite
            return float(make_ndarray(value.tensor).item())
    # Several numbers, none that a curve could be made of, or a type that does not exist.
    except (TypeError, ValueError, KeyError, OverflowError):
        return None
