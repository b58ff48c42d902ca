"""What a suite is asked and what it answers: tables, goals and panels, and their JSON."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from normlab.analysis.spread import Spread
from normlab.archive.files import write_text
from normlab.archive.versioned_json import read_json, restore_value
from normlab.errors import NormlabError

SCHEMA_VERSION = 1

# Who a number belongs to; each kind has one colour in every figure.
Kind = Literal["ours", "peer", "limit", "other"]


@dataclass(frozen=True)
class Settings:
    """What the command line says.

    Attributes:
        quick: fewer rounds and sizes; for a look, not for a table.
        rounds: how often everything is measured; None leaves it to the suite.
        threads: of every contender; None leaves it to torch.
        shapes: names of the sizes to measure; empty leaves it to the suite.
        overrides: of the configuration of normlab's own runs.
        progress: is told what is being measured.
    """

    quick: bool = False
    rounds: int | None = None
    threads: int | None = None
    shapes: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    progress: Callable[[str], None] = lambda sentence: None

    def times(self, standard: int, quick: int) -> int:
        """Rounds, where a suite has its own numbers of them."""
        return self.rounds or (quick if self.quick else standard)


@dataclass(frozen=True)
class Row:
    """A line of a table: a name and a number for each column, where there is one."""

    name: str
    values: dict[str, Spread]
    kind: Kind = "other"


@dataclass(frozen=True)
class Table:
    """Rows of numbers; a column is named with its unit."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    first: str = ""  # heading of the column of names


@dataclass(frozen=True)
class Goal:
    """A ratio or a time, and what it has to reach: at `least` or at `most` a number, or nothing."""

    what: str
    value: Spread
    least: float | None = None
    most: float | None = None

    @property
    def bound(self) -> str:
        """What it has to reach, in words; empty when nothing."""
        if self.least is not None:
            return f"≥ {self.least:g}"
        return "" if self.most is None else f"≤ {self.most:g}"

    @property
    def reached(self) -> bool | None:
        """Whether the median is there; None without a bound."""
        if self.least is not None:
            return self.value.median >= self.least
        return None if self.most is None else self.value.median <= self.most

    @property
    def verdict(self) -> str:
        """The same in a word."""
        return {True: "yes", False: "no", None: ""}[self.reached]


@dataclass(frozen=True)
class Bar:
    """A number in a panel of bars."""

    name: str
    value: Spread
    kind: Kind = "other"


@dataclass(frozen=True)
class Line:
    """A curve in a panel of lines, with the exponent that was fitted to it, if one was."""

    name: str
    x: tuple[float, ...]
    y: tuple[Spread, ...]
    exponent: Spread | None = None


@dataclass(frozen=True)
class Grid:
    """Numbers by row and column, coloured by how far they are above or below 1; None: a gap."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Panel:
    """A part of the figure; it holds bars, or lines, or a grid. Labels say the unit."""

    title: str
    x_label: str = ""
    y_label: str = ""
    bars: tuple[Bar, ...] = ()
    lines: tuple[Line, ...] = ()
    grid: Grid | None = None
    mark: float | None = None  # a number that all bars are compared with
    whole: float | None = None  # what all bars are parts of


@dataclass(frozen=True)
class Machine:
    """Where it was measured; `load` is the one-minute load average before and after."""

    date: str
    cpu: str
    cores: int
    memory_gib: float
    threads: int
    system: str
    versions: dict[str, str]
    load: tuple[float, ...]

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        load = ", then ".join(f"{one:.1f}" for one in self.load)
        return (
            f"{self.cores}-core {self.cpu}, {self.memory_gib:g} GiB, {threads}, "
            f"torch {self.versions['torch']}, {self.date}, load {load}"
        )


@dataclass(frozen=True)
class Result:
    """What a suite found.

    Attributes:
        notes: sentences: how it was measured, and what was left out.
        samples: every number, by contender (and what else tells them apart) and round.
    """

    suite: str
    title: str
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    goals: tuple[Goal, ...] = ()
    panels: tuple[Panel, ...] = ()
    samples: dict[str, list[dict[str, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """A result with where, when and how it came about: what the JSON file holds."""

    command: str
    seconds: float
    machine: Machine
    result: Result
    quick: bool = False
    schema_version: int = SCHEMA_VERSION

    def write(self, path: Path) -> None:
        """Write the JSON file, whole or not at all. Raises OSError."""
        write_text(path, json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Report":
        """A report from its JSON file.

        Raises:
            NormlabError: it is missing, damaged, or of a newer version.
        """
        try:
            raw = read_json(path)
            version = raw.get("schema_version") if isinstance(raw, dict) else None
            if isinstance(version, int) and version > SCHEMA_VERSION:
                raise ValueError(f"its schema version is {version}, this reads {SCHEMA_VERSION}")
            report: Report = restore_value(cls, raw)
        except (OSError, ValueError) as error:
            raise NormlabError(
                f"{path} is no result of bench.py that can be read ({error}); measure it again."
            ) from error
        return report


def column(samples: Sequence[dict[str, float]], quantity: str) -> list[float]:
    """One quantity over the rounds."""
    return [sample[quantity] for sample in samples]
