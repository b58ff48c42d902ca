"""The event files of a run read back: every point of every scalar, and what was unreadable.

TensorBoard's own EventAccumulator keeps 10,000 points a series, stops at damage without a word,
and takes 20 times as long. A run that was continued has several files, which are read as one.
"""

import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from normlab.archive.event_file import EventFile, Points, parse_event_file
from normlab.archive.files import LARGEST_EVENT_FILE, read_bytes
from normlab.archive.record import EVENT_FILES


@dataclass(frozen=True)
class Series:
    """One scalar over a run, by increasing step; the two arrays are equally long.

    Attributes:
        steps: optimizer steps done, int64.
        values: the scalar, float64; may hold NaN and infinities.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)

    def until_divergence(self) -> "Series":
        """The points before the first value that is not finite."""
        bad = np.flatnonzero(~np.isfinite(self.values))
        end = int(bad[0]) if bad.size else len(self)
        return Series(self.steps[:end], self.values[:end])


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

    Of `tags`, one that ends in a slash means all that begin with it; only the first part of a tag
    can be given so: `probe/`, not `probe/angle/`.

    Points are ordered by step; of a repeated step the one written later counts. A folder without
    event files gives empty Events. Damage is no error: what is sound before and behind it is read,
    and `left_out` says what is not.
    """
    files: list[tuple[Path, EventFile]] = []
    left_out = []
    # By age: `…tfevents.<seconds>.<host>.<pid>.<n>`, numbers by value, so that .10 follows .9.
    for path in sorted(folder.glob(EVENT_FILES), key=lambda path: _split_numbers(path.name)):
        try:
            files.append((path, parse_event_file(read_bytes(path, LARGEST_EVENT_FILE))))
        except OSError as error:
            left_out.append(f"{path} could not be read: {error.strerror}.")
    # Only the last file may still be written: any other that is cut off has lost something.
    cuts = [_describe_cut(path, file) for path, file in files]
    left_out += [_describe_damage(path, file) for path, file in files if file.damaged]
    left_out += filter(None, cuts[:-1])
    points = _join_files([file for _, file in files])
    return Events(
        {
            tag: _make_series(of_tag)
            for tag, of_tag in points.items()
            if tags is None or tag in tags or f"{tag.partition('/')[0]}/" in tags
        },
        # Not the last point: after a clock was set back, files are not in the order of steps.
        {tag: int(of_tag["step"].max()) for tag, of_tag in points.items()},
        {tag: text for _, file in files for tag, text in file.texts.items()},
        left_out,
        cuts[-1] if cuts else None,
    )


def _split_numbers(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def _describe_damage(path: Path, file: EventFile) -> str:
    lost, first = sum(end - start for start, end in file.damaged), min(file.damaged)[0]
    places = "" if len(file.damaged) == 1 else f"in {len(file.damaged)} places "
    return (
        f"{path}: {lost} of its {file.size} bytes are damaged, {places}from byte {first} on, "
        f"and were left out; the rest was read."
    )


def _describe_cut(path: Path, file: EventFile) -> str | None:
    if not file.size:
        return f"{path} is empty (the run was killed before it wrote)."
    if file.cut_at is None:
        return None
    return (
        f"{path}: its last record is cut off at byte {file.cut_at}, {file.size - file.cut_at} "
        f"bytes before the end (the run was killed while it wrote)."
    )


def _join_files(files: list[EventFile]) -> dict[str, Points]:
    """The points of all files by tag, in the order in which they were written."""
    joined: dict[str, list[Points]] = defaultdict(list)
    for file in files:
        for tag, points in file.points.items():
            joined[tag].append(points)
    all_points = {tag: np.concatenate(parts) for tag, parts in joined.items()}
    return {tag: points for tag, points in all_points.items() if len(points)}


def _make_series(points: Points) -> Series:
    steps = points["step"]
    if (steps[1:] <= steps[:-1]).any():
        order = np.argsort(steps, kind="stable")  # stable: the point written last stays last
        ordered = steps[order]
        points = points[order[np.append(ordered[1:] > ordered[:-1], True)]]
    # Copies: a view would keep all that was read with it.
    return Series(points["step"].copy(), points["value"].copy())
