"""Run folders and study folders read back: the record and the events of every run.

A run whose `run.json` is gone or damaged is rebuilt from its event files, which carry the record
as it stood at the start. Whatever could not be read is told, never dropped without a word.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from normlab.archive import tags
from normlab.archive.beside import altered
from normlab.archive.events import EVENT_FILES, Events, read_events
from normlab.archive.files import LOCKS_FOLDER, check_links
from normlab.archive.lock import is_held
from normlab.archive.rebuild import NEEDED, contradicted, last_step, rebuilt
from normlab.archive.record import RUN_FILE, SETTLED, BestNumbers, FinalNumbers, RunRecord
from normlab.errors import NormlabError

_A_STUDY = (
    "a study folder is what a sweep writes, outputs/<study>, with one sub-folder for every run"
)


@dataclass
class Run:
    """One run as it lies on disk.

    Attributes:
        whole: whether the curves hold everything that was written of the run so far.
        left_out: a sentence for whatever could not be read.
    """

    folder: Path
    record: RunRecord
    events: Events
    whole: bool = True
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


def is_run(folder: Path) -> bool:
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
    elif known.state in SETTLED and not lost and (changed := contradicted(known, events)):
        left_out.append(
            f"{folder / RUN_FILE} says {', '.join(changed)}, and the event files do not: their "
            f"numbers were taken."
        )
    _tell_a_killed_run(folder, known, events)
    if known.state in SETTLED:  # any other run writes them anew when it goes on
        left_out += filter(None, [altered(folder, known)])
    return Run(folder, known, events, not lost, left_out)


def _tell_a_killed_run(folder: Path, record: RunRecord, events: Events) -> None:
    """A run that says that it is running, and that nobody trains, was killed."""
    locks = folder.parent / LOCKS_FOLDER
    if record.state == "running" and locks.is_dir() and not is_held(folder.parent, record.id):
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
    if is_run(folder):
        return f"{folder} is a single run: {_A_STUDY}; give {folder.resolve().parent} instead."
    studies = [path for path in subfolders if any(map(is_run, path.glob("*")))]
    if studies:
        names = ", ".join(map(str, studies))
        return f"{folder} holds studies, not runs: {_A_STUDY}; give one of {names}."
    return f"{folder} holds no runs: {_A_STUDY}; train some with train.py -m study={folder.name}."
