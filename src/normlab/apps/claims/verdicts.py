"""What came out of claims, and what was measured for them: JSON, where None is an open end."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from normlab.archive.versioned_json import read_versioned_json, restore_value, write_versioned_json

SCHEMA_VERSION = 1
_REMEDY = "delete it, and it is made again"

Word = Literal["reproduced", "not reproduced", "refuted", "cannot tell"]
WORDS: tuple[Word, ...] = ("reproduced", "not reproduced", "refuted", "cannot tell")


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included; None is an open end."""

    low: float | None = None
    high: float | None = None

    def holds(self, low: float, high: float) -> bool:
        """Whether everything from `low` to `high` is in it."""
        return (self.low is None or low >= self.low) and (self.high is None or high <= self.high)

    def misses(self, low: float, high: float) -> bool:
        """Whether nothing from `low` to `high` is in it."""
        return (self.low is not None and high < self.low) or (
            self.high is not None and low > self.high
        )


@dataclass(frozen=True)
class Runs:
    """How the runs that a claim rests on stand."""

    finished: int = 0
    diverged: int = 0
    failed: int = 0
    missing: int = 0


@dataclass(frozen=True)
class Judged:
    """A claim and what came out.

    Attributes:
        name: of the claim's file.
        kind: of its test.
        word: one of `WORDS`.
        reason: why nothing can be told; empty otherwise.
        value, low, high: what was measured, and its 95 % interval; None where there is none.
        claimed: where the interval has to lie for the claim to hold.
        absent: where it has to lie for the effect not to be there; None where no such thing is.
        basis: what the interval is taken over.
        command: what does it again.
    """

    name: str
    statement: str
    source: str
    published: str
    published_value: float | None
    setup: str
    differs: str
    kind: str
    unit: str
    word: Word
    reason: str
    value: float | None
    low: float | None
    high: float | None
    claimed: Range
    absent: Range | None
    basis: str
    runs: Runs
    seeds: tuple[int, ...]
    command: str
    date: str
    machine: str


@dataclass(frozen=True)
class Report:
    """The claims judged at one budget, by name."""

    budget: str
    judged: tuple[Judged, ...]

    def __or__(self, newer: "Report") -> "Report":
        """This, with what `newer` says of the same claims in its place."""
        found = {one.name: one for one in (*self.judged, *newer.judged)}
        return Report(newer.budget, tuple(found[name] for name in sorted(found)))

    def only(self, names: Collection[str]) -> "Report":
        """The claims of these names."""
        return Report(self.budget, tuple(one for one in self.judged if one.name in names))

    def write(self, path: Path) -> None:
        """Write it, whole or not at all. Raises OSError."""
        write_versioned_json(path, asdict(self), SCHEMA_VERSION)

    @classmethod
    def read(cls, path: Path) -> "Report":
        """What `write` wrote.

        Raises:
            FileNotFoundError: there is none.
            NormlabError: it is damaged, or of a newer normlab.
        """
        report: Report = read_versioned_json(
            path, SCHEMA_VERSION, partial(restore_value, cls), _REMEDY
        )
        return report


@dataclass(frozen=True)
class Measured:
    """A measurement that needs no training: values by name, one for each seed, width or round.

    `over` is the word for that, `setup` says in a line what was measured, `asked` what decides it:
    where that is another, it is measured again.
    """

    name: str
    asked: dict[str, Any]
    setup: str
    over: str
    series: dict[str, list[float]] = field(default_factory=dict)
    machine: str = ""
    date: str = ""

    def write(self, path: Path) -> None:
        """Write it, whole or not at all. Raises OSError."""
        write_versioned_json(path, asdict(self), SCHEMA_VERSION)

    @classmethod
    def read(cls, path: Path) -> "Measured":
        """What `write` wrote.

        Raises:
            FileNotFoundError: there is none.
            NormlabError: it is damaged, or of a newer normlab.
        """
        measured: Measured = read_versioned_json(
            path, SCHEMA_VERSION, partial(restore_value, cls), _REMEDY
        )
        return measured
