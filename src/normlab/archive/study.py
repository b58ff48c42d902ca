"""Run folders and study folders read back: the record and the events of every run.

A run whose `run.json` is gone or damaged is rebuilt from its event files, which carry the record
as it stood at the start. Whatever could not be read becomes a sentence, never silence.
"""

import math
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from normlab.archive import tags
from normlab.archive.events import Events, Series, read_events
from normlab.archive.files import LARGEST_TEXT, LOCKS_FOLDER, check_links, suggest_closest_path
from normlab.archive.lock import is_run_locked
from normlab.archive.record import (
    EVENT_FILES,
    RUN_FILE,
    SETTLED_STATES,
    BestNumbers,
    FinalNumbers,
    RunRecord,
    describe_file_changes,
    list_file_changes,
)
from normlab.archive.versioned_json import parse_json
from normlab.errors import NormlabError

_A_STUDY = (
    "a study folder is what a sweep writes, outputs/<study>, with one sub-folder for every run"
)

# The curves from which a record can be rebuilt.
_RECORD_CURVES = (
    tags.TRAIN_LOSS,
    tags.VALIDATION_LOSS,
    tags.TOKENS_PER_SECOND,
    tags.FINAL_VALIDATION_LOSS,
    tags.FINAL_SELECTION_LOSS,
    tags.FINAL_TEST_LOSS,
)

# The halves of the final validation loss, and where the events have them.
_HALVES = {"selection_loss": tags.FINAL_SELECTION_LOSS, "test_loss": tags.FINAL_TEST_LOSS}


@dataclass
class Run:
    """One run as it lies on disk.

    Attributes:
        complete: whether the curves hold everything that was written of the run so far.
        left_out: a sentence for whatever could not be read.
        changed_files: what is wrong with its other files, where it has ended.
    """

    folder: Path
    record: RunRecord
    events: Events
    complete: bool = True
    left_out: list[str] = field(default_factory=list)
    changed_files: list[str] = field(default_factory=list)


@dataclass
class Study:
    """The readable runs of one sweep, by name; `left_out` says what is missing, over all runs."""

    folder: Path
    runs: list[Run]
    left_out: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The study's name: that of its folder."""
        return self.folder.resolve().name  # of `.` the plain name is empty


# --- Studies ------------------------------------------------------------------------------------


def read_study(folder: Path, curves: Collection[str] | None = None) -> Study:
    """Read all runs of a study; of their scalars, those that `curves` names, or all.

    Raises:
        NormlabError: the folder is missing, is no folder, or holds no readable run.
    """
    subfolders = _list_subfolders(folder)
    runs, left_out = [], []
    for subfolder in subfolders:
        try:
            if _has_run_files(subfolder):
                runs.append(read_run(subfolder, curves))
        except NormlabError as error:
            left_out.append(str(error))
        except OSError as error:
            left_out.append(f"{subfolder} was left out: it cannot be read ({error.strerror}).")
    if not runs and left_out:
        raise NormlabError(f"No run in {folder} can be read. {' '.join(left_out)}")
    if not runs:
        raise NormlabError(_describe_missing_runs(folder, subfolders))
    runs, copies = _separate_copies(runs)
    told = [line for run in runs for line in run.left_out]
    return Study(folder, runs, told + _describe_changed_files(runs) + copies + left_out)


def _separate_copies(found: list[Run]) -> tuple[list[Run], list[str]]:
    """Every run once, by name, and a sentence for each folder that is a copy of another.

    Two rows of `runs.csv` would otherwise be two seeds for whoever averages them.
    """
    # Of copies the whole one, then that in the folder in which it was trained.
    ranked = sorted(
        found,
        key=lambda run: (
            run.record.state not in SETTLED_STATES,
            not run.complete,
            run.folder.name != run.record.name,
        ),
    )
    runs: dict[tuple[str, str], Run] = {}
    sentences = []
    for run in ranked:
        kept = runs.setdefault((run.record.id, run.record.name), run)
        if kept is not run:
            sentences.append(f"{run.folder} was left out: it is a copy of the run {kept.folder}.")
    return sorted(runs.values(), key=lambda run: run.record.name), sorted(sentences)


def _describe_changed_files(runs: list[Run]) -> list[str]:
    """A sentence for each thing that is wrong with files, however many runs it concerns."""
    by_change: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        by_change.setdefault(tuple(run.changed_files), []).append(run)
    return [
        describe_file_changes(changed[0].folder, problems, len(changed) - 1)
        for problems, changed in by_change.items()
        if problems
    ]


def is_run_folder(folder: Path) -> bool:
    """Whether the folder holds a run: `run.json` or an event file."""
    try:
        return _has_run_files(folder)
    except OSError:
        return False


def _has_run_files(folder: Path) -> bool:
    # Not Path.glob: in a folder that may not be listed it finds nothing, and does not say why.
    return any(name == RUN_FILE or fnmatch(name, EVENT_FILES) for name in os.listdir(folder))


def _list_subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except FileNotFoundError:
        raise NormlabError(
            f"There is no folder {folder}; {suggest_closest_path(folder)}{_A_STUDY}; look in "
            f"{folder.parent} for its name."
        ) from None
    except NotADirectoryError:
        raise NormlabError(
            f"{folder} is a file: {_A_STUDY}; give the folder instead of a file in it."
        ) from None
    except OSError as error:
        raise NormlabError(f"{folder} cannot be read ({error.strerror}).") from error


def _describe_missing_runs(folder: Path, subfolders: list[Path]) -> str:
    if is_run_folder(folder):
        return f"{folder} is a single run: {_A_STUDY}; give {folder.resolve().parent} instead."
    studies = [path for path in subfolders if any(map(is_run_folder, path.glob("*")))]
    if studies:
        names = ", ".join(map(str, studies))
        return f"{folder} holds studies, not runs: {_A_STUDY}; give one of {names}."
    return f"{folder} holds no runs: {_A_STUDY}; train some with train.py -m study={folder.name}."


# --- Runs ---------------------------------------------------------------------------------------


def read_run(folder: Path, curves: Collection[str] | None = None) -> Run:
    """Read one run's folder; of its scalars, those that `curves` names and what a record needs.

    Raises:
        NormlabError: neither `run.json` nor the event files tell what the run was, or the folder is
            or holds a link.
        OSError: the folder cannot be listed.
    """
    check_links(folder)
    # The record first: a run that goes on meanwhile is then further in its events, not behind.
    stored, problem = _read_record(folder)
    events = read_events(folder, None if curves is None else {*curves, *_RECORD_CURVES})
    record = stored or _rebuild_record(folder, events)
    gaps = list(events.left_out)
    # A run that is being written may lack its last steps, and end in half a record.
    if record.state != "running":
        gaps += [events.unfinished] if events.unfinished else []
        gaps += _find_gaps(folder, record, events)
    left_out = list(gaps)
    if stored is None:
        without = ""
        if gaps:  # what is lost may have been the last or the lowest loss
            record.final, record.best = FinalNumbers(), BestNumbers()
            without = ", without its final and best losses"
        left_out.append(
            f"{folder / RUN_FILE} is {problem}: the run was rebuilt from its event files as "
            f"{record.state} at step {record.step}{without}."
        )
    elif record.state in SETTLED_STATES and not gaps:
        corrected = _correct_numbers(record, events)
        if corrected:
            left_out.append(
                f"{folder / RUN_FILE} says {', '.join(corrected)}, and the event files do not: "
                f"their numbers were taken."
            )
    # A run that says that it is running, and that no process trains, was killed.
    study, locks = folder.parent, folder.parent / LOCKS_FOLDER
    if record.state == "running" and locks.is_dir() and not is_run_locked(study, record.id):
        later, _ = _read_record(folder)
        if later and later.state != "running":  # it ended while its events were read
            return read_run(folder, curves)
        record.state, record.step = "interrupted", _last_step(events)
        record.reason = f"killed at about step {record.step}"
    # A run in any other state writes its files anew when it goes on.
    changed = list_file_changes(folder, record) if record.state in SETTLED_STATES else []
    return Run(folder, record, events, not gaps, left_out, changed)


def _read_record(folder: Path) -> tuple[RunRecord | None, str]:
    """The record, or why it cannot be read."""
    try:
        return RunRecord.read(folder), ""
    except FileNotFoundError:
        return None, "missing"
    except OSError as error:
        return None, f"unreadable ({error.strerror})"
    except NormlabError as error:
        return None, f"unreadable ({error.__cause__})"


def _find_gaps(folder: Path, record: RunRecord, events: Events) -> list[str]:
    """Sentences about what the curves of a run with this record must hold, and do not.

    Every step has its training loss, and a finished run validates at its last step.
    """
    steps = record.end_step
    if steps > 0 and not events.last_steps:
        # Nothing confirms what the record says of them.
        record.final, record.best, record.tokens_per_second = FinalNumbers(), BestNumbers(), None
        return [
            f"{folder} has no readable scalars: it is in the table, but has no curves, and no "
            f"losses that they bear out."
        ]
    # The training loss at step s is that before the next update: `steps` updates have 0 to steps−1.
    train, validation = map(events.scalars.get, (tags.TRAIN_LOSS, tags.VALIDATION_LOSS))
    count = int(np.count_nonzero(train.steps < steps)) if train else 0
    unvalidated = record.state == "finished" and (
        validation is None or validation.steps[-1] < record.step
    )
    if count >= steps and not unvalidated:
        return []
    return [
        f"{folder}: the run is at step {record.step}, but its event files hold {count} of {steps} "
        f"training losses{', not the last validation loss,' if unvalidated else ''} and end at "
        f"step {_last_step(events)}: its curves are marked as incomplete."
    ]


def _correct_numbers(record: RunRecord, events: Events) -> list[str]:
    """Put the numbers of complete curves in place of those of the record that differ.

    Returns what the record said, as `final.val_loss=0.1`; where it says nothing, so it stays.
    """
    scalars = events.scalars
    corrected = []
    closing = scalars.get(tags.FINAL_VALIDATION_LOSS)
    # What a run that diverged writes there at its end is no number.
    if record.state == "diverged" and closing and closing.steps[-1] > 0 and _last_loss(closing):
        record.state, record.diverged_step, record.reason = "finished", None, None
        record.final = _read_final_losses(record, events)
        corrected.append("state=diverged")
    best = _lowest_loss(scalars.get(tags.VALIDATION_LOSS))
    numbers: list[tuple[Any, str, str, float | None]] = [
        (record.best, "best", "val_loss", best.val_loss),
        (record.best, "best", "step", best.step),
    ]
    for key, loss in asdict(_read_final_losses(record, events)).items():
        # Of a run that diverged, the curve goes on behind the step of the record's loss.
        if record.state == "finished" or key != "train_loss":
            numbers.append((record.final, "final", key, loss))
    for part, name, key, value in numbers:
        written = getattr(part, key)
        # Curves are stored in single precision.
        if written is not None and (
            value is None or not math.isclose(written, value, rel_tol=1e-6)
        ):
            setattr(part, key, value)
            corrected.append(f"{name}.{key}={written:g}")
    speed, written = scalars.get(tags.TOKENS_PER_SECOND), record.tokens_per_second
    # A mean over the run, of stretches whose speeds the curve holds.
    if written is not None and speed:
        low, high = float(speed.values.min()), float(speed.values.max())
        if not 0.999 * low <= written <= 1.001 * high:
            record.tokens_per_second = _mean_speed(speed)
            corrected.append(f"tokens_per_second={written:g}")
    return corrected


# --- Rebuilding ---------------------------------------------------------------------------------


def _rebuild_record(folder: Path, events: Events) -> RunRecord:
    """The record of a run whose `run.json` is lost, as far as its events tell.

    They carry the record as it stood at the start; how the run went is read off its curves.

    Raises:
        NormlabError: they do not tell what the run was.
    """
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
    scalars = events.scalars
    speed = scalars.get(tags.TOKENS_PER_SECOND)
    record.step = _last_step(events)
    record.best = _lowest_loss(scalars.get(tags.VALIDATION_LOSS))
    record.tokens_per_second = _mean_speed(speed) if speed else None
    _infer_state(record, events)
    record.final = _read_final_losses(record, events)
    return record


def _read_final_losses(record: RunRecord, events: Events) -> FinalNumbers:
    """The final losses that the curves of a run in the record's state tell."""
    scalars = events.scalars
    train = scalars.get(tags.TRAIN_LOSS)
    if record.state == "diverged":
        return FinalNumbers(train_loss=_last_loss(train and train.until_divergence()))
    if record.state != "finished":
        return FinalNumbers()
    halves = {key: _last_loss(scalars.get(tag)) for key, tag in _HALVES.items()}
    return FinalNumbers(_last_loss(scalars.get(tags.VALIDATION_LOSS)), _last_loss(train), **halves)


def _infer_state(record: RunRecord, events: Events) -> None:
    """Set how the run ended, as far as the events tell: `running` where they do not."""
    record.state = "running"
    nonfinite_steps = []
    for tag in (tags.TRAIN_LOSS, tags.VALIDATION_LOSS):
        series = events.scalars.get(tag)
        if series and len(finite := series.until_divergence()) < len(series):
            nonfinite_steps.append(int(series.steps[len(finite)]))
    closing = events.scalars.get(tags.FINAL_VALIDATION_LOSS)
    # At step 0 it only declares the metric to the HParams page.
    closed = closing is not None and closing.steps[-1] > 0
    last = record.last_step
    if nonfinite_steps:
        record.state, record.diverged_step = "diverged", min(nonfinite_steps)
        record.reason = f"loss not finite at step {record.diverged_step}"
    elif closed and _last_loss(closing) is None:
        record.state, record.diverged_step = "diverged", record.step
        record.reason = "it ended without a final loss"
    elif closed and (last is None or record.step >= last):
        record.state = "finished"


def _last_step(events: Events) -> int:
    """The last step that any curve reaches."""
    return max(events.last_steps.values(), default=0)


def _mean_speed(speed: Series) -> float:
    """The mean over the steps of a run, each point standing for the steps since the one before."""
    # The first point stands for the steps from 0 on. Tokens are added up, and so is time: a plain
    # mean of speeds would give too much weight to the fast stretches.
    steps = np.diff(speed.steps, prepend=-1)
    with np.errstate(all="ignore"):  # of a file from elsewhere a speed may be 0 or no number
        return float(steps.sum() / (steps / speed.values).sum())


def _last_loss(series: Series | None) -> float | None:
    """The last loss of a curve; None where it is not finite or there is no curve."""
    if not series or not math.isfinite(series.values[-1]):
        return None
    return float(series.values[-1])


def _lowest_loss(validation: Series | None) -> BestNumbers:
    finite = validation and validation.until_divergence()
    if not finite:
        return BestNumbers()
    at = int(finite.values.argmin())
    return BestNumbers(float(finite.values[at]), int(finite.steps[at]))
