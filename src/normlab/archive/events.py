"""Event files read back: every point of every scalar, and a sentence for whatever was unreadable.

TensorBoard's own EventAccumulator keeps 10,000 points a series and stops at damage without a word.
Here the records are framed and checked by numpy, and only their contents go through protobuf.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from tensorboard.compat.proto import event_pb2, types_pb2  # type: ignore[import-untyped]

EVENT_FILES = "events.out.tfevents*"

# A record is: length (8 bytes), checksum of the length (4), contents, checksum of the contents (4).
_LENGTH, _HEADER, _FOOTER = 8, 12, 4

# A flipped bit inside a scalar is a wrong number in a figure. Longer records are texts and
# histograms: no figure reads a number from them, and checking them byte by byte is slow.
_CHECKED_CONTENTS = 512

_Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Series:
    """One scalar over a run, by increasing step; the three arrays are equally long.

    Attributes:
        steps: optimizer steps done, int64.
        values: the scalar, float64; may hold NaN and infinities.
        wall_times: seconds since 1970, float64.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    wall_times: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)

    def until_divergence(self) -> "Series":
        """The points before the first value that is not finite."""
        bad = np.flatnonzero(~np.isfinite(self.values))
        end = int(bad[0]) if bad.size else len(self)
        return Series(self.steps[:end], self.values[:end], self.wall_times[:end])


@dataclass
class Events:
    """What the event files of one run hold.

    Attributes:
        scalars: tag → series.
        texts: tag → the text written last.
        left_out: sentences about what could not be read; empty when all was.
    """

    scalars: dict[str, Series] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def read_events(folder: Path) -> Events:
    """Read every event file that stands directly in `folder`, oldest first.

    A folder without event files gives empty Events. Damage is no error: it ends the reading of
    its file and is told in `left_out`.
    """
    gathered = _Gathered()
    left_out = []
    for path in sorted(folder.glob(EVENT_FILES), key=_age):
        try:
            buffer = path.read_bytes()
        except OSError as error:
            left_out.append(f"{path} could not be read: {error.strerror}.")
            continue
        damage = gathered.add_file(buffer)
        if damage:
            left_out.append(f"{path}: {damage}; what stands before it was read.")
    scalars = {tag: _series(points) for tag, points in gathered.points.items() if points}
    return Events(scalars, gathered.texts, left_out)


def _age(path: Path) -> list[str | int]:
    """`…tfevents.<seconds>.<host>.<pid>.<n>`: numbers by value, so that .10 follows .9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", path.name)]


_Point = tuple[int, float, float]


class _Gathered:
    """The points and texts of a run's files, in the order in which they were written."""

    def __init__(self) -> None:
        self.points: dict[str, list[_Point]] = defaultdict(list)
        self.texts: dict[str, str] = {}

    def add_file(self, buffer: bytes) -> str | None:
        """Take in one file; returns what is wrong with it, if anything."""
        records, damage = _sound_records(buffer)
        for start, length in records:
            contents = start + _HEADER
            try:
                event = event_pb2.Event.FromString(buffer[contents : contents + length])
            except DecodeError:
                return f"the record at byte {start} is damaged (it is not an event)"
            self._add(event)
        return damage

    def _add(self, event: Any) -> None:
        if event.HasField("session_log") and event.session_log.status == event_pb2.SessionLog.START:
            self._forget_from(event.step)
        for value in event.summary.value:
            kind = value.WhichOneof("value")
            if kind == "simple_value":
                self._add_point(value.tag, event, value.simple_value)
            elif kind == "tensor":
                self._add_tensor(value, event)

    def _add_tensor(self, value: Any, event: Any) -> None:
        if value.tensor.dtype == types_pb2.DT_STRING:
            if value.metadata.plugin_data.plugin_name == "text" and value.tensor.string_val:
                text = b"\n".join(value.tensor.string_val)
                self.texts[value.tag] = text.decode("utf-8", errors="replace")
            return
        # Seldom needed, and 0.3 s to import.
        from tensorboard.util.tensor_util import make_ndarray  # type: ignore[import-untyped]

        array = make_ndarray(value.tensor)
        if array.size == 1 and value.metadata.plugin_data.plugin_name in ("", "scalars"):
            self._add_point(value.tag, event, float(array.item()))

    def _add_point(self, tag: str, event: Any, value: float) -> None:
        self.points[tag].append((event.step, value, event.wall_time))

    def _forget_from(self, step: int) -> None:
        """A resumed run starts over at `step`: what a crash left beyond it never happened."""
        for tag, points in self.points.items():
            self.points[tag] = [point for point in points if point[0] < step]


def _series(points: list[_Point]) -> Series:
    steps = np.array([point[0] for point in points], dtype=np.int64)
    order = np.argsort(steps, kind="stable")  # stable: the one written last stays last
    last = np.append(np.diff(steps[order]) > 0, True)
    kept = order[last]
    values = np.array([point[1] for point in points], dtype=np.float64)
    wall_times = np.array([point[2] for point in points], dtype=np.float64)
    return Series(steps[kept], values[kept], wall_times[kept])


def _sound_records(buffer: bytes) -> tuple[list[tuple[int, int]], str | None]:
    """Start and length of the records before the first damage, and what that damage is."""
    starts, lengths, rest = _walk(buffer)
    data = np.frombuffer(buffer, dtype=np.uint8)
    ends = starts + _HEADER + lengths
    cut = ends + _FOOTER > len(buffer)
    bad_length = _stored(data, starts + _LENGTH) != _checksums(
        data, starts, np.full_like(starts, 8)
    )
    bad_contents = np.zeros_like(cut)
    checked = ~cut & (lengths <= _CHECKED_CONTENTS)
    sums = _checksums(data, starts[checked] + _HEADER, lengths[checked])
    bad_contents[checked] = _stored(data, ends[checked]) != sums

    damaged = np.flatnonzero(bad_length | cut | bad_contents)
    count = int(damaged[0]) if damaged.size else len(starts)
    records = list(zip(starts[:count].tolist(), lengths[:count].tolist(), strict=True))
    if count < len(starts):
        if cut[count] and not bad_length[count]:
            return records, _cut_off(starts[count])
        part = "length" if bad_length[count] else "contents"
        return records, f"the record at byte {starts[count]} is damaged ({part}: wrong checksum)"
    return records, _cut_off(len(buffer) - rest) if rest else None


def _cut_off(at: int) -> str:
    return f"the record at byte {at} is cut off (the run was killed, or still writes)"


def _walk(buffer: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Starts and claimed lengths of all records with a whole header, and how many bytes remain."""
    starts, lengths = [], []
    at, size = 0, len(buffer)
    while at + _HEADER <= size:
        # A damaged length can be as large as 2^64; more than the file is all that matters.
        length = min(int.from_bytes(buffer[at : at + _LENGTH], "little"), size)
        starts.append(at)
        lengths.append(length)
        at += _HEADER + length + _FOOTER
    return np.array(starts, np.int64), np.array(lengths, np.int64), max(size - at, 0)


def _stored(data: _Bytes, at: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The little-endian checksums that stand at these bytes."""
    words: NDArray[np.uint32] = data[at[:, None] + np.arange(4)].view("<u4")[:, 0]
    return words


def _checksums(
    data: _Bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.uint32]:
    """TFRecord's masked CRC-32C of many pieces at once: a loop over bytes, not over pieces."""
    order = np.argsort(-lengths, kind="stable")
    starts, lengths = starts[order], lengths[order]
    crc = np.full(len(starts), 0xFFFFFFFF, dtype=np.uint32)
    for at in range(lengths.max(initial=0)):
        active = int(np.searchsorted(-lengths, -at))  # the pieces longer than `at` come first
        now = crc[:active]
        crc[:active] = _CRC_TABLE[(now ^ data[starts[:active] + at]) & 0xFF] ^ (now >> 8)
    crc = ~crc
    masked = np.empty_like(crc)
    masked[order] = ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)
    return masked


def _crc_table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):  # 0x82F63B78 is Castagnoli's polynomial, bit-reversed
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table


_CRC_TABLE = _crc_table()
