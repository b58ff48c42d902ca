"""A published claim, the test it is put to, and what came out: plain words and numbers.

`conf/claim/*.yaml` holds claims, `normlab.config.claims` reads them, `normlab.analysis.claims`
judges them. What came out is kept as JSON, where None stands for an end that is open.
"""

import json
import zlib
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from normlab.archive.durable import write_text
from normlab.archive.restore import read_json, restored
from normlab.errors import NormlabError

SCHEMA_VERSION = 1

Word = Literal["reproduced", "not reproduced", "refuted", "cannot tell"]
WORDS: tuple[Word, ...] = ("reproduced", "not reproduced", "refuted", "cannot tell")


class Quantity(Enum):
    """What is compared of a run: a validation loss, or how the stream's variance grows.

    `growth` is the slope of the logarithm of the residual stream's variance over the blocks, at the
    last step that was probed.
    """

    best = "best"
    final = "final"
    growth = "growth"


@dataclass
class Lower:
    """Arm a ends lower than arm b, on equal seeds. Less than `margin` apart there is no effect.

    An arm is what its runs have in common: `norm=layernorm placement=post optimizer.lr=1e-3`. Where
    its runs differ in more than the seed, as in the learning rate, each arm is taken where it is
    lowest on average.
    """

    a: str
    b: str
    margin: float
    quantity: Quantity = Quantity.final


@dataclass
class Parity:
    """Arms a and b end less than `margin` apart, each where it is lowest."""

    a: str
    b: str
    margin: float
    quantity: Quantity = Quantity.final


@dataclass
class Sensitivity:
    """Arm a is less sensitive to the learning rate than arm b (2309.14322)."""

    a: str
    b: str
    margin: float


@dataclass
class Diverges:
    """Arm a diverges at a learning rate at which arm b does not.

    The share of diverged runs of a minus that of b, at the rate where they differ most; where they
    differ nowhere, over all rates. Within `margin` there is no effect.
    """

    a: str
    b: str
    margin: float = 0.5


@dataclass
class Level:
    """An arm's number is between `low` and `high`, where it is lowest."""

    arm: str
    low: float
    high: float
    quantity: Quantity = Quantity.final


@dataclass
class Slope:
    """A fitted slope, one for each seed, is within `margin` of `value`; near zero there is none."""

    of: str
    value: float
    margin: float


@dataclass
class Ratio:
    """A ratio is between `low` and `high`; from 1 − margin to 1 + margin there is no effect."""

    of: str
    margin: float
    low: float | None = None
    high: float | None = None


@dataclass
class Value:
    """A measured value is between `low` and `high`."""

    of: str
    low: float | None = None
    high: float | None = None


@dataclass
class Exact:
    """An equation holds to rounding: its sides are at most `tolerance` of their size apart."""

    of: str
    tolerance: float


ArmsTest = Lower | Parity | Sensitivity | Diverges | Level
MeasuredTest = Slope | Ratio | Value | Exact
Test = ArmsTest | MeasuredTest

# What `test.kind` may be in a claim's file.
ARMS_KINDS: dict[str, type[ArmsTest]] = {
    "lower": Lower,
    "parity": Parity,
    "sensitivity": Sensitivity,
    "diverges": Diverges,
    "level": Level,
}
MEASURED_KINDS: dict[str, type[MeasuredTest]] = {
    "slope": Slope,
    "ratio": Ratio,
    "value": Value,
    "exact": Exact,
}
KINDS: dict[str, type[Test]] = {**ARMS_KINDS, **MEASURED_KINDS}


@dataclass
class Published:
    """What was reported, in words and, where it is one number on the test's scale, as that."""

    text: str
    value: float | None = None


@dataclass
class Claim:
    """One claim. `experiment` or `measurement` says what tests it; the other is None.

    Attributes:
        statement: one sentence, as it was published.
        source: an arXiv id, or what else it was read in.
        published: what was reported for it.
        setup: what it was obtained in.
        differs: what is different here.
        unit: of the number that the test looks at.
        experiment: an option of conf/experiment, whose runs are compared.
        measurement: the name of a measurement that needs no training.
        test: what decides.
    """

    statement: str
    source: str
    published: Published
    setup: str
    differs: str
    unit: str
    test: Test
    experiment: str | None = None
    measurement: str | None = None


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

    def write(self, path: Path) -> None:
        """Write it, whole or not at all. Raises OSError."""
        _write(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Report":
        """What `write` wrote.

        Raises:
            FileNotFoundError: there is none.
            NormlabError: it is damaged, or of a newer normlab.
        """
        report: Report = _read(path, cls)
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
        _write(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Measured":
        """What `write` wrote.

        Raises:
            FileNotFoundError: there is none.
            NormlabError: it is damaged, or of a newer normlab.
        """
        measured: Measured = _read(path, cls)
        return measured


def _write(path: Path, plain: dict[str, Any]) -> None:
    whole = {"schema_version": SCHEMA_VERSION, **plain, "checksum": _checksum(plain)}
    write_text(path, json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _read(path: Path, kind: type) -> Any:
    try:
        raw = read_json(path)
        if not isinstance(raw, dict):
            raise ValueError("it is no object")
        version, checksum = raw.pop("schema_version", None), raw.pop("checksum", None)
        if version != SCHEMA_VERSION:
            raise ValueError(f"its schema version is {version}, this reads {SCHEMA_VERSION}")
        if checksum != _checksum(raw):
            raise ValueError("wrong checksum")
        return restored(kind, raw)
    except (ValueError, TypeError) as error:
        raise NormlabError(
            f"{path} is damaged or was written by another version ({error}); delete it, and it is "
            f"made again."
        ) from error


def _checksum(plain: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(plain).encode())
