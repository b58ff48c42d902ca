"""What came out of claims and what was measured for them, as JSON: None is an open end.

The verdicts and what they mean stand here; the rules that decide are in `judge`.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from normlab.archive.versioned_json import read_versioned_json, restore_value, write_versioned_json
from normlab.errors import NormlabError

SCHEMA_VERSION = 1

Verdict = Literal[
    "reproduced",
    "not reproduced",
    "refuted",
    "cannot tell",
    "vacuous",
    "out of regime",
    "not measured",
]
MEANINGS: dict[Verdict, str] = {
    "reproduced": "the 95 % interval lies where the claim says: beyond the margin on its side, or "
    "for a claim of equality within the margin",
    "not reproduced": "the interval lies within the margin around no effect: an effect larger than "
    "the margin would have been seen",
    "refuted": "the interval lies beyond the margin on the other side, or for a claim of a value "
    "or of equality wholly outside",
    "cannot tell": "the interval reaches over a border; or it is not judged, because of one seed, "
    "some runs that are missing, runs that failed or diverged, a best learning rate at the end of "
    "the grid, or an arm that is less sensitive to the learning rate and learns less",
    "vacuous": "no arm has learned, so the losses say nothing about trained models; what was "
    "measured is printed, not judged",
    "out of regime": "the runs are shorter or smaller than those that the claim is about, an arm "
    "that must learn has not, or no result could be larger than the margin; what was measured is "
    "printed, not judged",
    "not measured": "there is nothing to judge: none of its runs has ended, or its measurement is "
    "missing",
}


# What a verdict on a check is called: an equation is not reproduced, it holds.
CHECK_WORDS: dict[Verdict, str] = {"reproduced": "holds", "refuted": "does not hold"}


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included; None is an open end."""

    low: float | None = None
    high: float | None = None

    def contains(self, low: float, high: float) -> bool:
        """Whether everything from `low` to `high` is in it."""
        return (self.low is None or low >= self.low) and (self.high is None or high <= self.high)


@dataclass(frozen=True)
class RunCounts:
    """How many of a claim's runs are in which state."""

    finished: int = 0
    diverged: int = 0
    failed: int = 0
    missing: int = 0

    @property
    def total(self) -> int:
        """All runs of the arms that the claim compares."""
        return self.finished + self.diverged + self.failed + self.missing


@dataclass(frozen=True, kw_only=True)
class IntervalVerdict:
    """A verdict, and the value with its 95 % interval that it rests on; None where there is none.

    What is measured is in the claim's own unit.
    """

    word: Verdict
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class HorizonVerdict(IntervalVerdict):
    """What came out at one length of runs, in optimizer steps; as in `ClaimVerdict`."""

    steps: int
    reason: str
    basis: str
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class EarlierVerdict(IntervalVerdict):
    """What came out before the claim's test or its budget was changed; as in `ClaimVerdict`."""

    digest: str
    date: str


@dataclass(frozen=True, kw_only=True)
class ClaimVerdict(IntervalVerdict):
    """A claim and what came out. The names of fields are the file's keys.

    Attributes:
        name: of the claim's file.
        kind: of its test.
        reason: why there is no verdict; empty otherwise.
        claimed: where the interval has to lie for the claim to hold.
        absent: where it has to lie for the effect not to be there; None where no such range is.
        basis: what the interval is taken over.
        command: what does it again.
        horizons: what came out at every length of its runs, by increasing length; the verdict is
            that of the longest in regime. Empty where nothing is trained.
        regime: which runs are judged, in words; empty where all are.
        role: `claim` or `check`.
        digest: the hash of all that decides the verdict; empty where it is not known.
        registration: a sentence on when that hash was registered.
        earlier: what came out under other hashes, the oldest first.
        trained: size and lengths of its runs, in words; empty where there are none.
        budget: of its runs, among verdicts of several budgets; elsewhere the record has it.
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
    reason: str
    claimed: Range
    absent: Range | None
    basis: str
    runs: RunCounts
    seeds: tuple[int, ...]
    command: str
    date: str
    machine: str
    horizons: tuple[HorizonVerdict, ...] = ()
    regime: str = ""
    role: Literal["claim", "check"] = "claim"
    digest: str = ""
    registration: str = ""
    earlier: tuple[EarlierVerdict, ...] = ()
    trained: str = ""
    budget: str = ""

    @property
    def lacks_data(self) -> bool:
        """Whether runs or a measurement were missing where it was judged."""
        return self.word == "not measured" or self.runs.missing > 0

    def follow(self, older: "ClaimVerdict") -> "ClaimVerdict":
        """This verdict, with the older one's history and that one, where it is of another hash.

        Where this one lacks data, an older one of the same hash that has them stays.
        """
        if self.lacks_data and not older.lacks_data and self.digest and self.digest == older.digest:
            return replace(older, registration=self.registration)
        history = [*older.earlier]
        # Of the same hash the newer verdict takes the older one's place.
        if older.digest != self.digest:
            kept = {key.name: getattr(older, key.name) for key in fields(EarlierVerdict)}
            history.append(EarlierVerdict(**kept))
        # Two records of one claim may share a part of its history.
        history += [verdict for verdict in self.earlier if verdict not in history]
        return replace(self, earlier=tuple(history))

    @property
    def label(self) -> str:
        """The verdict's word as it is printed."""
        return self.label_of(self.word)

    def label_of(self, word: Verdict) -> str:
        """A word on this claim as it is printed: on a check it is another."""
        return CHECK_WORDS.get(word, word) if self.role == "check" else word


@dataclass(frozen=True)
class ClaimsRecord:
    """The verdicts at one budget, or of `combine_budgets`, by the claims' names."""

    budget: str
    verdicts: tuple[ClaimVerdict, ...]

    def update(self, newer: "ClaimsRecord") -> "ClaimsRecord":
        """These verdicts, those of `newer` in place of older ones of the same claims."""
        merged = {verdict.name: verdict for verdict in self.verdicts}
        for verdict in newer.verdicts:
            older = merged.get(verdict.name)
            merged[verdict.name] = verdict.follow(older) if older else verdict
        return ClaimsRecord(newer.budget, tuple(merged[name] for name in sorted(merged)))

    def select(self, names: Collection[str]) -> "ClaimsRecord":
        """The verdicts of these claims."""
        return ClaimsRecord(self.budget, tuple(v for v in self.verdicts if v.name in names))

    def split_roles(self) -> tuple["ClaimsRecord", "ClaimsRecord"]:
        """The verdicts on claims, and those on checks."""
        claims, checks = (
            tuple(v for v in self.verdicts if v.role == role) for role in ("claim", "check")
        )
        return ClaimsRecord(self.budget, claims), ClaimsRecord(self.budget, checks)


def merge_records(records: Sequence[ClaimsRecord]) -> ClaimsRecord | None:
    """Of each claim the latest verdict, of two of one day that of the later record; None of none.

    Those before it are in its history.
    """
    if not records:
        return None
    verdicts = [verdict for record in records for verdict in record.verdicts]
    merged = ClaimsRecord(records[-1].budget, ())
    # `sorted` is stable: of one day the later record's verdict stays the later one.
    for verdict in sorted(verdicts, key=lambda verdict: verdict.date):
        merged = merged.update(ClaimsRecord(merged.budget, (verdict,)))
    return merged


def combine_budgets(records: Sequence[ClaimsRecord]) -> ClaimsRecord:
    """Of each claim the verdict at the largest budget that measured it.

    `records` are of one budget each, the smallest first; at least one.
    """
    chosen: dict[str, ClaimVerdict] = {}
    for record in records:
        for verdict in record.verdicts:
            # A larger budget that measured nothing does not hide what a smaller one measured.
            if verdict.value is not None or verdict.name not in chosen:
                chosen[verdict.name] = replace(verdict, budget=record.budget)
    used = [r.budget for r in records if any(v.budget == r.budget for v in chosen.values())]
    return ClaimsRecord(" or ".join(used), tuple(chosen[name] for name in sorted(chosen)))


@dataclass(frozen=True)
class StoredMeasurement:
    """What was measured without training: values by name, one for each seed, width or process.

    `over` is the word for that. `settings` decide what is measured: where they are others today, it
    is measured again.
    """

    name: str
    settings: dict[str, Any]
    over: str
    series: dict[str, list[float]] = field(default_factory=dict)
    machine: str = ""
    date: str = ""


Record = TypeVar("Record")


OUTPUT_REMEDY = "give another place with output_dir=…"  # for what is in the output folder
DOCS_REMEDY = "make it writable, or leave out --docs"
EXPORT_REMEDY = "give another folder with --export"


def write_record(path: Path, record: Any, remedy: str = OUTPUT_REMEDY) -> None:
    """Write a record, which is a dataclass, atomically; `remedy` ends the sentence of the error.

    Raises:
        NormlabError: it cannot be written.
    """
    try:
        write_versioned_json(path, asdict(record), SCHEMA_VERSION)
    except OSError as error:
        raise unwritable_error(path, error, remedy) from error


def read_record(
    path: Path, kind: type[Record], remedy: str = "delete it, and it is made again"
) -> Record:
    """The record that `write_record` wrote; `remedy` ends the sentence of an error.

    Raises:
        FileNotFoundError: there is none.
        NormlabError: it is damaged, or of a newer normlab.
    """
    record: Record = read_versioned_json(
        path, SCHEMA_VERSION, lambda raw: restore_value(kind, raw), remedy
    )
    return record


def unwritable_error(path: Path, error: OSError, remedy: str = OUTPUT_REMEDY) -> NormlabError:
    """The sentence for a path that cannot be written."""
    return NormlabError(f"{path} cannot be written ({error.strerror or error}); {remedy}.")
