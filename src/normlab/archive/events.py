"""Event files read back: every point of every scalar, and a sentence for whatever was unreadable.

TensorBoard's own EventAccumulator keeps 10,000 points a series and stops at damage without a word.
Here the records are framed and checked by numpy, and only their contents go through protobuf.
A run that was continued has several files, which are read as one.
"""

import errno
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from tensorboard.compat.proto import event_pb2, types_pb2  # type: ignore[import-untyped]

from normlab.archive.frames import Stretch, read_frames

EVENT_FILES = "events.out.tfevents*"


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
        unfinished: the sentence about a record that the last file ends in the middle of, which is
            no fault while the run is being written.
    """

    scalars: dict[str, Series] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    unfinished: str | None = None


def read_events(folder: Path) -> Events:
    """Read every event file that stands directly in `folder`, as one.

    Points are ordered by step; of a repeated step the one written later is kept. A folder without
    event files gives empty Events. Damage is no error: what is whole before and behind it is
    read, and `left_out` tells what is not.
    """
    parts, left_out = [], []
    for path in _event_files(folder):
        try:
            if not path.is_file():
                raise OSError(errno.ENOENT, "it is gone, or no file")
            parts.append(_Part.read(path))
        except OSError as error:
            left_out.append(f"{path} could not be read: {error.strerror}.")
    parts.sort(key=lambda part: part.resumed_at or 0)
    left_out += [part.damage for part in parts if part.damage]
    left_out += [part.unfinished for part in parts[:-1] if part.unfinished]
    texts = {tag: text for part in parts for tag, text in part.texts.items()}
    scalars = {tag: _series(points) for tag, points in _joined(parts).items() if points}
    return Events(scalars, texts, left_out, parts[-1].unfinished if parts else None)


def _event_files(folder: Path) -> list[Path]:
    """By age: `…tfevents.<seconds>.<host>.<pid>.<n>`, numbers by value, so that .10 follows .9."""
    return sorted(folder.glob(EVENT_FILES), key=lambda path: _spelled(path.name))


def _spelled(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def _joined(parts: "list[_Part]") -> "dict[str, list[_Point]]":
    """The points of all files, in the order in which they were written.

    A continued run starts over at a step: what a crash left beyond it never happened. That step
    puts the files in order even where a clock was set back; otherwise their age does.
    """
    joined: dict[str, list[_Point]] = defaultdict(list)
    for part in parts:
        if part.resumed_at is not None:
            for tag, points in joined.items():
                joined[tag] = [point for point in points if point[0] < part.resumed_at]
        for tag, points in part.points.items():
            joined[tag] += points
    return joined


_Point = tuple[int, float, float]  # step, value, wall time


class _Part:
    """One event file: its points, its texts, and what of it is not whole."""

    def __init__(self) -> None:
        self.points: dict[str, list[_Point]] = defaultdict(list)
        self.texts: dict[str, str] = {}
        self.resumed_at: int | None = None
        self.damage: str | None = None
        self.unfinished: str | None = None

    @classmethod
    def read(cls, path: Path) -> "_Part":
        """Raises OSError."""
        part, buffer = cls(), path.read_bytes()
        frames = read_frames(buffer)
        damaged = list(frames.damaged)
        for contents in frames.contents:
            try:
                event = event_pb2.Event.FromString(buffer[contents.start : contents.end])
            except DecodeError:
                damaged.append(contents)
                continue
            part._add(event)
        if damaged:
            part.damage = _told(path, damaged, len(buffer))
        if frames.cut:
            part.unfinished = (
                f"{path}: its last record is cut off at byte {frames.cut.start}, "
                f"{len(frames.cut)} bytes before the end (the run was killed while it wrote)."
            )
        elif not buffer:
            part.unfinished = f"{path} is empty (the run was killed before it wrote)."
        return part

    def _add(self, event: Any) -> None:
        if event.HasField("session_log") and event.session_log.status == event_pb2.SessionLog.START:
            self.resumed_at = event.step
        for value in event.summary.value:
            kind = value.WhichOneof("value")
            if kind == "simple_value":
                self._add_point(value.tag, event, value.simple_value)
            elif kind == "tensor":
                self._add_tensor(value, event)

    def _add_tensor(self, value: Any, event: Any) -> None:
        plugin = value.metadata.plugin_data.plugin_name
        if value.tensor.dtype == types_pb2.DT_STRING:
            if plugin == "text" and value.tensor.string_val:
                text = b"\n".join(value.tensor.string_val)
                self.texts[value.tag] = text.decode("utf-8", errors="replace")
            return
        if plugin not in ("", "scalars"):
            return
        # Seldom needed, and 0.3 s to import.
        from tensorboard.util.tensor_util import make_ndarray  # type: ignore[import-untyped]

        try:
            number = float(make_ndarray(value.tensor).item())
        except (TypeError, ValueError):  # several numbers, or none that a curve could be made of
            return
        self._add_point(value.tag, event, number)

    def _add_point(self, tag: str, event: Any, value: float) -> None:
        self.points[tag].append((event.step, value, event.wall_time))


def _told(path: Path, damaged: Sequence[Stretch], size: int) -> str:
    lost, first = sum(map(len, damaged)), min(stretch.start for stretch in damaged)
    places = "" if len(damaged) == 1 else f"in {len(damaged)} places "
    return (
        f"{path}: {lost} of its {size} bytes are damaged, {places}from byte {first} on, and were "
        f"left out; the rest was read."
    )


def _series(points: list[_Point]) -> Series:
    steps = np.array([point[0] for point in points], dtype=np.int64)
    order = np.argsort(steps, kind="stable")  # stable: the one written last stays last
    last = np.append(np.diff(steps[order]) > 0, True)
    kept = order[last]
    values = np.array([point[1] for point in points], dtype=np.float64)
    wall_times = np.array([point[2] for point in points], dtype=np.float64)
    return Series(steps[kept], values[kept], wall_times[kept])
