"""Run folders and study folders read back: the record and the events of every run.

A run whose `run.json` is gone or damaged is rebuilt from its event files, which carry the record
as it stood at the start. Whatever could not be read is told, never dropped without a word.
"""

import math
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from normlab.archive import tags
from normlab.archive.events import EVENT_FILES, Events, Series, read_events
from normlab.archive.files import LARGEST_TEXT, LOCKS_FOLDER, check_links
from normlab.archive.lock import is_run_locked
from normlab.archive.record import (
    RUN_FILE,
    SETTLED_STATES,
    BestNumbers,
    FinalNumbers,
    RunRecord,
    describe_file_changes,
)
from normlab.archive.versioned_json import parse_json
from normlab.errors import NormlabError

_A_STUDY = (
    "a study folder is what a sweep writes, outputs/<study>, with one sub-folder for every run"
)


@dataclass
class Run:
    """One run as it lies on disk.

    Attributes:
        complete: whether the curves hold everything that was written of the run so far.
        left_out: a sentence for whatever could not be read.
    """

    folder: Path
    record: RunRecord
    events: Events
    complete: bool = True
    left_out: list[str] = field(default_factory=list)


@dataclass
class Study:
    """The readable runs of one sweep, by name; `left_out` tells what is missing, over all runs."""

    folder: Path
    runs: list[Run]
    left_out: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The study's name: that of its folder."""
        return self.folder.resolve().name


def is_run_folder(folder: Path) -> bool:
    """Whether the folder holds a run: `run.json` or an event file."""
    try:
        return _holds_run(folder)
    except OSError:
        return False


def read_run(folder: Path, curves: Collection[str] | None = None) -> Run:
    """Read one run's folder; of its scalars, those that `curves` names and what a record needs.

    Raises:
        NormlabError: neither `run.json` nor the event files tell what the run was, or the folder is
            or holds a link.
        OSError: the folder cannot be listed.
    """
    check_links(folder)
    # The record first: a run that goes on meanwhile is then further in its events, not behind.
    record, problem = _record(folder)
    wanted = None if curves is None else {*curves, *NEEDED}
    events = read_events(folder, wanted)
    lost = list(events.left_out)
    known = record or rebuilt(folder, events)
    if known.state != "running":
        lost += [events.unfinished] if events.unfinished else []
        lost += _missing(folder, known, events)
    left_out = list(lost)
    if record is None:
        numbers = ""
        if lost:  # what is lost may have been the last or the lowest loss
            known.final, known.best = FinalNumbers(), BestNumbers()
            numbers = ", without its final and best losses"
        left_out.append(
            f"{folder / RUN_FILE} is {problem}: the run was rebuilt from its event files as "
            f"{known.state} at step {known.step}{numbers}."
        )
    elif known.state in SETTLED_STATES and not lost and (changed := contradicted(known, events)):
        left_out.append(
            f"{folder / RUN_FILE} says {', '.join(changed)}, and the event files do not: their "
            f"numbers were taken."
        )
    _tell_a_killed_run(folder, known, events)
    if known.state in SETTLED_STATES:  # any other run writes them anew when it goes on
        left_out += filter(None, [describe_file_changes(folder, known)])
    return Run(folder, known, events, not lost, left_out)


def _tell_a_killed_run(folder: Path, record: RunRecord, events: Events) -> None:
    """A run that says that it is running, and that nobody trains, was killed."""
    locks = folder.parent / LOCKS_FOLDER
    if record.state == "running" and locks.is_dir() and not is_run_locked(folder.parent, record.id):
        record.state, record.step = "interrupted", last_step(events)
        record.reason = f"killed at about step {record.step}"


def _record(folder: Path) -> tuple[RunRecord | None, str]:
    """The record, or why there is none."""
    try:
        return RunRecord.read(folder), ""
    except FileNotFoundError:
        return None, "missing"
    except OSError as error:
        return None, f"unreadable ({error.strerror})"
    except NormlabError as error:
        return None, f"unreadable ({error.__cause__})"


def _missing(folder: Path, record: RunRecord, events: Events) -> list[str]:
    """What the curves of a run with this record must hold, and do not.

    Every step has its training loss, and a finished run validates at its last step.
    """
    steps = record.step if record.diverged_step is None else record.diverged_step
    if steps > 0 and not events.last_steps:
        # Nothing bears out what the record says of them.
        record.final, record.best, record.tokens_per_second = FinalNumbers(), BestNumbers(), None
        return [
            f"{folder} has no readable scalars: it is in the table, but has no curves, and no "
            f"losses that they bear out."
        ]
    train, validation = map(events.scalars.get, (tags.TRAIN_LOSS, tags.VALIDATION_LOSS))
    found = int(np.count_nonzero(train.steps < steps)) if train else 0
    unvalidated = record.state == "finished" and (
        validation is None or validation.steps[-1] < record.step
    )
    if found >= steps and not unvalidated:
        return []
    return [
        f"{folder}: the run is at step {record.step}, but its event files hold {found} of {steps} "
        f"training losses{', not the last validation loss,' if unvalidated else ''} and end at "
        f"step {last_step(events)}: its curves are marked as incomplete."
    ]


def read_study(folder: Path, curves: Collection[str] | None = None) -> Study:
    """Read all runs of a study; of their scalars, those that `curves` names, or all.

    Raises:
        NormlabError: the folder is missing, is no folder, or holds no readable run.
    """
    subfolders = _subfolders(folder)
    runs, left_out = [], []
    for candidate in subfolders:
        try:
            if _holds_run(candidate):
                runs.append(read_run(candidate, curves))
        except NormlabError as error:
            left_out.append(str(error))
        except OSError as error:
            left_out.append(f"{candidate} was left out: it cannot be read ({error.strerror}).")
    if not runs and left_out:
        raise NormlabError(f"No run in {folder} can be read. {' '.join(left_out)}")
    if not runs:
        raise NormlabError(_no_runs(folder, subfolders))
    runs.sort(key=lambda run: run.record.name)
    return Study(folder, runs, [line for run in runs for line in run.left_out] + left_out)


def _holds_run(folder: Path) -> bool:
    """Raises OSError."""
    return any(name == RUN_FILE or fnmatch(name, EVENT_FILES) for name in os.listdir(folder))


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except FileNotFoundError:
        raise NormlabError(
            f"There is no folder {folder}: {_A_STUDY}; look in {folder.parent} for its name."
        ) from None
    except NotADirectoryError:
        raise NormlabError(
            f"{folder} is a file: {_A_STUDY}; give the folder instead of a file in it."
        ) from None
    except OSError as error:
        raise NormlabError(f"{folder} cannot be read ({error.strerror}).") from error


def _no_runs(folder: Path, subfolders: list[Path]) -> str:
    if is_run_folder(folder):
        return f"{folder} is a single run: {_A_STUDY}; give {folder.resolve().parent} instead."
    studies = [path for path in subfolders if any(map(is_run_folder, path.glob("*")))]
    if studies:
        names = ", ".join(map(str, studies))
        return f"{folder} holds studies, not runs: {_A_STUDY}; give one of {names}."
    return f"{folder} holds no runs: {_A_STUDY}; train some with train.py -m study={folder.name}."


# The curves that tell how a run went.
NEEDED = (
    tags.TRAIN_LOSS,
    tags.VALIDATION_LOSS,
    tags.TOKENS_PER_SECOND,
    tags.FINAL_VALIDATION_LOSS,
)


def rebuilt(folder: Path, events: Events) -> RunRecord:
    """The record of the run in `folder`, as far as its events tell.

    Raises:
        NormlabError: they do not tell what the run was.
    """
    record = _record_at_start(folder, events)
    scalars = events.scalars
    validation, train = scalars.get(tags.VALIDATION_LOSS), scalars.get(tags.TRAIN_LOSS)
    speed = scalars.get(tags.TOKENS_PER_SECOND)
    record.step = last_step(events)
    record.best = _best(validation)
    record.tokens_per_second = float(np.mean(speed.values)) if speed else None
    _infer_state(record, events)
    final = None if record.state == "diverged" else _last_finite(validation)
    record.final = FinalNumbers(final, _last_finite(train and train.until_divergence()))
    return record


def contradicted(record: RunRecord, events: Events) -> list[str]:
    """Put the numbers of whole curves in place of those of the record that are others.

    Returns what the record said, as `final.val_loss=0.1`; what it does not know is left so.
    """
    scalars = events.scalars
    validation, train = scalars.get(tags.VALIDATION_LOSS), scalars.get(tags.TRAIN_LOSS)
    best = _best(validation)
    pairs: list[tuple[Any, str, str, float | None]] = [
        (record.best, "best", "val_loss", best.val_loss),
        (record.best, "best", "step", best.step),
    ]
    if record.state == "finished":
        pairs.append((record.final, "final", "val_loss", _last_finite(validation)))
        pairs.append((record.final, "final", "train_loss", _last_finite(train)))
    elif record.final.val_loss is not None:
        pairs.append((record.final, "final", "val_loss", None))
    changed = []
    for part, name, key, value in pairs:
        written = getattr(part, key)
        # Curves are kept in single precision.
        if written is not None and (
            value is None or not math.isclose(written, value, rel_tol=1e-6)
        ):
            setattr(part, key, value)
            changed.append(f"{name}.{key}={written:g}")
    speed, written = scalars.get(tags.TOKENS_PER_SECOND), record.tokens_per_second
    # A mean over the run, of stretches whose speeds the curve holds.
    if written is not None and speed:
        low, high = float(speed.values.min()), float(speed.values.max())
        if not 0.999 * low <= written <= 1.001 * high:
            record.tokens_per_second = float(np.mean(speed.values))
            changed.append(f"tokens_per_second={written:g}")
    return changed


def _record_at_start(folder: Path, events: Events) -> RunRecord:
    text = events.texts.get(tags.RECORD, "")
    try:
        if len(text) > LARGEST_TEXT:
            raise ValueError("it is too large")
        # The record's own parser, so that both sources obey one schema.
        fenced = text.partition("```json")[2].rpartition("```")[0]
        record = RunRecord.parse(parse_json(fenced))
    except ValueError:
        raise NormlabError(
            f"{folder} was left out: its {RUN_FILE} is missing or damaged, and its event files "
            f"do not tell what the run was; train it again."
        ) from None
    record.state = "running"
    return record


def _infer_state(record: RunRecord, events: Events) -> None:
    """How the run ended, as far as the events tell; it stays `running` where they do not."""
    losses = [events.scalars.get(tag) for tag in (tags.TRAIN_LOSS, tags.VALIDATION_LOSS)]
    broken = [_first_broken(series) for series in losses if series]
    steps = [step for step in broken if step is not None]
    closing = events.scalars.get(tags.FINAL_VALIDATION_LOSS)
    closed = closing is not None and closing.steps[-1] > 0  # at step 0 it holds a place for HParams
    last = record.last_step
    if steps:
        record.state, record.diverged_step = "diverged", min(steps)
        record.reason = f"loss not finite at step {min(steps)}"
    elif closed and _last_finite(closing) is None:
        record.state, record.diverged_step = "diverged", record.step
        record.reason = "it ended without a final loss"
    elif closed if last is None else record.step >= last:
        record.state = "finished"


def _first_broken(series: Series) -> int | None:
    sound = len(series.until_divergence())
    return int(series.steps[sound]) if sound < len(series) else None


def last_step(events: Events) -> int:
    """The last step that any curve reaches."""
    return max(events.last_steps.values(), default=0)


def _last_finite(series: Series | None) -> float | None:
    if not series or not math.isfinite(series.values[-1]):
        return None
    return float(series.values[-1])


def _best(validation: Series | None) -> BestNumbers:
    finite = validation and validation.until_divergence()
    if not finite:
        return BestNumbers()
    at = int(finite.values.argmin())
    return BestNumbers(float(finite.values[at]), int(finite.steps[at]))
