"""The learner's progress: a YAML file that the learner owns, changed atomically and never guessed.

A damaged file stops the command with a sentence; it is never replaced silently. Two terminals may
work at once: each change is read, made and written under a lock.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import yaml
from filelock import FileLock

from normlab.archive.files import read_text, write_text
from normlab.archive.versioned_json import restore_value
from normlab.errors import NormlabError
from normlab.text import one_line

LEARN_FOLDER = Path("outputs") / "learn"
PROGRESS_FILE = "progress.yaml"
SCHEMA_VERSION = 1
_LARGEST_FILE = 2**20
_COMMENT = (
    "# Your progress on normlab's teaching path. It is yours: you may read and change it.\n"
    "# `normlab-learn reset` renames it and starts over.\n"
)


@dataclass
class ExerciseProgress:
    """Checks of one exercise, whether one has passed, and how many hints were shown."""

    passed: bool = False
    checks: int = 0
    hints: int = 0


@dataclass
class QuestionProgress:
    """Answers to one question of the quiz, and whether any was right."""

    right: bool = False
    tries: int = 0
    first_right: bool = False


@dataclass
class PredictionProgress:
    """A guess, made before the run, and what was measured afterwards.

    Attributes:
        guess: the learner's number.
        measured: the number that the study gave; None before the run has ended.
        low, high: its 95 % interval, where there is one.
        right: whether the guess holds; None before the run has ended.
    """

    guess: float
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    right: bool | None = None


@dataclass
class Progress:
    """All that a learner has done; `answers` are words of the learner's own, by box."""

    lessons: dict[str, str] = field(default_factory=dict)  # by number, the day it was opened
    predictions: dict[str, PredictionProgress] = field(default_factory=dict)
    questions: dict[str, QuestionProgress] = field(default_factory=dict)
    exercises: dict[str, ExerciseProgress] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)

    def exercise(self, name: str) -> ExerciseProgress:
        """Of this exercise; a new one where nothing was done yet."""
        return self.exercises.setdefault(name, ExerciseProgress())

    def question(self, id_: str) -> QuestionProgress:
        """Of this question; a new one where it was not answered yet."""
        return self.questions.setdefault(id_, QuestionProgress())


def progress_path() -> Path:
    """Where the file is: below the current folder, as everything that normlab writes."""
    return LEARN_FOLDER / PROGRESS_FILE


def read_progress() -> Progress:
    """What the file says, or nothing done where there is no file.

    Raises:
        NormlabError: it is damaged, or was written by a newer normlab; it is left as it is.
    """
    path = progress_path()
    try:
        raw = yaml.safe_load(read_text(path, _LARGEST_FILE))
        if not isinstance(raw, dict):
            raise ValueError("it holds no keys")
        version = raw.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise ValueError(f"its schema_version is {version}, this reads {SCHEMA_VERSION}")
        progress = restore_value(Progress, {str(key): value for key, value in raw.items()})
    except FileNotFoundError:
        return Progress()
    except OSError as error:
        raise NormlabError(
            f"{path} cannot be read ({error.strerror or error}); make it readable, or start over "
            f"with `normlab-learn reset`."
        ) from error
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        reason = one_line(error, 200) or "it is nested too deeply"
        raise NormlabError(
            f"{path} is damaged ({reason}); fix it in an editor, or start over with "
            f"`normlab-learn reset`, which keeps the file under another name."
        ) from error
    assert isinstance(progress, Progress)
    return progress


def update_progress(change: Callable[[Progress], None]) -> Progress:
    """Apply a change to the file's content and write it; return what it holds then.

    Raises:
        NormlabError: it is damaged, or cannot be written.
    """
    path = progress_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / f".{PROGRESS_FILE}.lock"):
            progress = read_progress()
            change(progress)
            plain = {"schema_version": SCHEMA_VERSION, **asdict(progress)}
            # The learner reads this file, so letters beyond ASCII are not escaped.
            text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
            write_text(path, _COMMENT + text)
    except OSError as error:
        raise NormlabError(
            f"{path} cannot be written ({error.strerror or error}); free space, or work in a "
            f"folder that can be written."
        ) from error
    return progress


def reset_progress() -> Path | None:
    """Rename the file to one with the time in its name, and return it; None where there is none.

    Raises:
        NormlabError: it cannot be renamed.
    """
    path = progress_path()
    # On POSIX rename replaces a file of that name without a word: so microseconds.
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    backup = path.with_name(f"{path.stem}-{stamp}{path.suffix}")
    try:
        path.rename(backup)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NormlabError(
            f"{path} cannot be renamed ({error.strerror or error}); rename or remove it yourself."
        ) from error
    return backup
