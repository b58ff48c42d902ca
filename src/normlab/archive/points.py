"""The points that an event file holds, as columns, and what else it says."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from normlab.archive.frames import Stretch


@dataclass(frozen=True)
class Points:
    """Points of one tag as they were written; the three arrays are equally long.

    Attributes:
        steps: int64, in any order, and any step as often as it was written.
        values, wall_times: float64.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    wall_times: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, kept: "slice | NDArray[np.bool_] | NDArray[np.int64]") -> "Points":
        return Points(self.steps[kept], self.values[kept], self.wall_times[kept])

    @classmethod
    def joined(cls, parts: "Sequence[Points]") -> "Points":
        """One behind the other."""
        if len(parts) == 1:
            return parts[0]
        nothing = np.empty(0, np.int64), np.empty(0), np.empty(0)
        return cls(
            np.concatenate([nothing[0], *(part.steps for part in parts)]),
            np.concatenate([nothing[1], *(part.values for part in parts)]),
            np.concatenate([nothing[2], *(part.wall_times for part in parts)]),
        )


@dataclass
class Contents:
    """What the records of a file hold.

    Attributes:
        points: tag → its points, tags in the order of their first.
        texts: tag → the text written last.
        resumed_at: the step at which the file says that a run was continued, if it does.
        unreadable: records that hold no event.
    """

    points: dict[str, Points] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    resumed_at: int | None = None
    unreadable: list[Stretch] = field(default_factory=list)
