"""Run folders and study folders read back: the record and the events of every run.

A run whose `run.json` is gone or damaged is rebuilt from its event files, which carry the record
as it stood at the start. Whatever could not be read is told, never dropped without a word.
"""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from normlab.archive import tags
from normlab.archive.events import EVENT_FILES, Events, Series, read_events
from normlab.archive.record import RUN_FILE, BestNumbers, FinalNumbers, RunRecord
from normlab.errors import NormlabError

_A_STUDY = (
    "a study folder is what a sweep writes, outputs/<study>, with one sub-folder for every run"
)


@dataclass
class Run:
    """One run as it lies on disk; `left_out` holds a sentence for whatever could not be read."""

    folder: Path
    record: RunRecord
    events: Events
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
    return (folder / RUN_FILE).is_file() or any(folder.glob(EVENT_FILES))


def read_run(folder: Path) -> Run:
    """Read one run's folder.

    Raises:
        NormlabError: neither `run.json` nor the event files tell what the run was.
    """
    events = read_events(folder)
    left_out = list(events.left_out)
    try:
        record = RunRecord.read(folder)
    except (OSError, NormlabError) as error:
        record = _rebuilt(folder, events)
        missing = isinstance(error, FileNotFoundError)
        left_out.append(
            f"{folder / RUN_FILE} is {'missing' if missing else 'unreadable'}: the run was rebuilt "
            f"from its event files as {record.state} at step {record.step}."
        )
    left_out += _events_behind(folder, record, events)
    return Run(folder, record, events, left_out)


def read_study(folder: Path) -> Study:
    """Read all runs of a study.

    Raises:
        NormlabError: the folder is missing, is no folder, or holds no readable run.
    """
    subfolders = _subfolders(folder)
    runs, left_out = [], []
    for candidate in filter(is_run, subfolders):
        try:
            runs.append(read_run(candidate))
        except NormlabError as error:
            left_out.append(str(error))
    if not runs and left_out:
        raise NormlabError(f"No run in {folder} can be read. {' '.join(left_out)}")
    if not runs:
        raise NormlabError(_no_runs(folder, subfolders))
    runs.sort(key=lambda run: run.record.name)
    return Study(folder, runs, [line for run in runs for line in run.left_out] + left_out)


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


def _rebuilt(folder: Path, events: Events) -> RunRecord:
    record = _record_at_start(folder, events)
    scalars = events.scalars
    validation, train = scalars.get(tags.VALIDATION_LOSS), scalars.get(tags.TRAIN_LOSS)
    speed = scalars.get(tags.TOKENS_PER_SECOND)
    record.step = _last_step(events)
    record.best = _best(validation)
    record.tokens_per_second = float(np.mean(speed.values)) if speed else None
    _infer_state(record, events)
    final = None if record.state == "diverged" else _last_finite(validation)
    record.final = FinalNumbers(final, _last_finite(train and train.until_divergence()))
    return record


def _record_at_start(folder: Path, events: Events) -> RunRecord:
    fence = re.search(r"```json\s*\n(.*)```", events.texts.get(tags.RECORD, ""), re.DOTALL)
    try:
        # The record's own parser, so that both sources obey one schema.
        return RunRecord.parse(json.loads(fence[1] if fence else ""))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise NormlabError(
            f"{folder} was left out: its {RUN_FILE} is missing or damaged, and its event files "
            f"do not tell what the run was; train it again."
        ) from None


def _infer_state(record: RunRecord, events: Events) -> None:
    """How the run ended, as far as the events tell; it stays `running` where they do not."""
    losses = [events.scalars.get(tag) for tag in (tags.TRAIN_LOSS, tags.VALIDATION_LOSS)]
    broken = [_first_broken(series) for series in losses if series]
    steps = [step for step in broken if step is not None]
    closing = events.scalars.get(tags.FINAL_VALIDATION_LOSS)
    closed = closing is not None and closing.steps[-1] > 0  # at step 0 it holds a place for HParams
    target = record.config.get("trainer", {}).get("max_steps", math.inf)
    if steps:
        record.state, record.diverged_step = "diverged", min(steps)
        record.reason = f"loss not finite at step {min(steps)}"
    elif closed and _last_finite(closing) is None:
        record.state, record.diverged_step = "diverged", record.step
        record.reason = "it ended without a final loss"
    elif closed or record.step >= target:
        record.state = "finished"


def _first_broken(series: Series) -> int | None:
    sound = len(series.until_divergence())
    return int(series.steps[sound]) if sound < len(series) else None


def _last_step(events: Events) -> int:
    return max((int(series.steps[-1]) for series in events.scalars.values()), default=0)


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


def _events_behind(folder: Path, record: RunRecord, events: Events) -> list[str]:
    """A finished run validates at its last step, so its events must reach that step."""
    if record.state != "finished":
        return []
    if not events.scalars:
        return [f"{folder} has no readable scalars: it is in the table, but has no curves."]
    last = _last_step(events)
    if last >= record.step:
        return []
    return [
        f"{folder}: {RUN_FILE} says step {record.step}, but the event files end at step {last}."
    ]
