"""Event files read back: every point of every scalar, and a sentence for whatever was unreadable.

TensorBoard's own EventAccumulator keeps 10,000 points a series and stops at damage without a word.
Here the records are framed, checked and read by numpy, and only what is no plain scalar goes
through protobuf. A run that was continued has several files, which are read as one.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from normlab.archive.contents import read_contents
from normlab.archive.files import LARGEST_EVENT_FILE, read_bytes
from normlab.archive.frames import Stretch, read_frames
from normlab.archive.points import Contents, Points

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
        scalars: tag → series, of the tags that were asked for.
        last_steps: tag → its last step, of every tag.
        texts: tag → the text written last.
        left_out: sentences about what could not be read; empty when all was.
        unfinished: the sentence about a record that the last file ends in the middle of, which is
            no fault while the run is being written.
    """

    scalars: dict[str, Series] = field(default_factory=dict)
    last_steps: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    unfinished: str | None = None


def read_events(folder: Path, tags: Collection[str] | None = None) -> Events:
    """Read every event file that stands directly in `folder`, as one; of `tags` alone, if given.

    Of `tags`, one that ends in a slash means all that begin with it.

    Points are ordered by step; of a repeated step the one written later is kept. A folder without
    event files gives empty Events. Damage is no error: what is whole before and behind it is
    read, and `left_out` tells what is not.
    """
    parts, left_out = [], []
    for path in _event_files(folder):
        try:
            parts.append(_Part.read(path))
        except OSError as error:
            left_out.append(f"{path} could not be read: {error.strerror}.")
    return _as_one(parts, left_out, tags)


def _as_one(parts: "list[_Part]", left_out: list[str], tags: Collection[str] | None) -> Events:
    parts.sort(key=lambda part: part.contents.resumed_at or 0)
    left_out += [part.damage for part in parts if part.damage]
    left_out += [part.unfinished for part in parts[:-1] if part.unfinished]
    texts = {tag: text for part in parts for tag, text in part.contents.texts.items()}
    joined = {tag: points for tag, points in _joined(parts).items() if len(points)}
    return Events(
        {tag: _series(points) for tag, points in joined.items() if _is_wanted(tag, tags)},
        {tag: int(points.steps.max()) for tag, points in joined.items()},
        texts,
        left_out,
        parts[-1].unfinished if parts else None,
    )


def _is_wanted(tag: str, tags: Collection[str] | None) -> bool:
    return tags is None or tag in tags or f"{tag.partition('/')[0]}/" in tags


def _event_files(folder: Path) -> list[Path]:
    """By age: `…tfevents.<seconds>.<host>.<pid>.<n>`, numbers by value, so that .10 follows .9."""
    return sorted(folder.glob(EVENT_FILES), key=lambda path: _spelled(path.name))


def _spelled(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def _joined(parts: "list[_Part]") -> dict[str, Points]:
    """The points of all files, in the order in which they were written.

    A continued run starts over at a step: what a crash left beyond it never happened. That step
    puts the files in order even where a clock was set back; otherwise their age does.
    """
    joined: dict[str, list[Points]] = defaultdict(list)
    for part in parts:
        resumed_at = part.contents.resumed_at
        if resumed_at is not None:
            for pieces in joined.values():
                pieces[:] = [points[points.steps < resumed_at] for points in pieces]
        for tag, points in part.contents.points.items():
            joined[tag].append(points)
    return {tag: Points.joined(pieces) for tag, pieces in joined.items()}


@dataclass
class _Part:
    """One event file: what stands in it, and what of it is not whole."""

    contents: Contents
    damage: str | None = None
    unfinished: str | None = None

    @classmethod
    def read(cls, path: Path) -> "_Part":
        """Read a file. Raises OSError."""
        buffer = read_bytes(path, LARGEST_EVENT_FILE)
        frames = read_frames(buffer)
        part = cls(read_contents(buffer, frames.starts, frames.ends))
        damaged = [*frames.damaged, *part.contents.unreadable]
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


def _told(path: Path, damaged: Sequence[Stretch], size: int) -> str:
    lost, first = sum(map(len, damaged)), min(stretch.start for stretch in damaged)
    places = "" if len(damaged) == 1 else f"in {len(damaged)} places "
    return (
        f"{path}: {lost} of its {size} bytes are damaged, {places}from byte {first} on, and were "
        f"left out; the rest was read."
    )


def _series(points: Points) -> Series:
    if (points.steps[1:] <= points.steps[:-1]).any():
        order = np.argsort(points.steps, kind="stable")  # stable: the one written last stays last
        ordered = points.steps[order]
        points = points[order[np.append(ordered[1:] > ordered[:-1], True)]]
    # Copies: a view would keep all that was read with it.
    return Series(points.steps.copy(), points.values.copy(), points.wall_times.copy())
