"""The lessons, the quiz and the predictions: files of docs/learn, read and checked.

In a checkout they are in docs/learn, in an installed package in learn_content. Lessons are
Markdown; the quiz and the predictions are YAML, whose types are checked here. That every question
can be answered is a test of the repository.
"""

import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import yaml

from normlab.archive.files import read_text
from normlab.archive.versioned_json import restore_value
from normlab.errors import ConfigError, NormlabError
from normlab.text import excerpt, one_line, suggest_closest

LESSONS = range(1, 7)
QUIZ_FILE, PREDICTIONS_FILE = "quiz.yaml", "predictions.yaml"
_PACKAGE = Path(__file__).resolve().parents[2]
_LARGEST_FILE = 2**22
_WORDS_A_MINUTE = 150  # of a text with numbers and code, in a language that is not one's own
_RESULTS = "\n## Run\n"  # the heading that ends what a learner predicts

_T = TypeVar("_T")


@dataclass(frozen=True)
class Choice:
    """A possible answer, and why it is right or wrong."""

    text: str
    correct: bool
    explanation: str


@dataclass(frozen=True)
class Question:
    """A question of the quiz: a choice, a number, or a choice about a figure.

    Attributes:
        figure: path relative to docs/learn; `figure_text` says what it shows.
        answer: of a numeric question, right within ± `tolerance`, in `unit`.
    """

    id: str
    lesson: int
    kind: Literal["choice", "numeric", "figure"]
    question: str
    choices: tuple[Choice, ...] = ()
    answer: float | None = None
    tolerance: float | None = None
    unit: str = ""
    explanation: str = ""
    figure: str = ""
    figure_text: str = ""

    @property
    def correct_choice(self) -> int:
        """The number of the right choice, from 1."""
        return next(index for index, choice in enumerate(self.choices, 1) if choice.correct)


@dataclass(frozen=True)
class Prediction:
    """A study whose result is guessed before it is run.

    Attributes:
        command: the overrides of `train.py -m`.
        measure: the number that is guessed; see `prediction.measure_study`.
        arms: whose number it is; of a difference, the first minus the second.
        range: the least and the greatest guess that is allowed; empty where every number is.
        seconds: how long the study takes on two cores.
        explanation: what is said afterwards.
    """

    id: str
    lesson: int
    question: str
    command: tuple[str, ...]
    measure: Literal["final_loss_difference", "best_rate", "diverged_count"]
    explanation: str
    arms: tuple[str, ...] = ()
    range: tuple[float, ...] = ()
    seconds: float = 60.0


@dataclass(frozen=True)
class Lesson:
    """A lesson: its number, title and Markdown."""

    number: int
    title: str
    text: str

    @property
    def minutes(self) -> int:
        """How long it takes to read."""
        return max(1, round(len(self.text.split()) / _WORDS_A_MINUTE))

    @property
    def questions(self) -> str:
        """Its Markdown up to what the learner predicts, without any result."""
        return self.text.partition(_RESULTS)[0]

    @property
    def results(self) -> str:
        """The rest: what is run, seen and explained; empty where there is none."""
        _, heading, rest = self.text.partition(_RESULTS)
        return heading + rest


def content_folder() -> Path:
    """Where the lessons are: inside an installed package, or docs/learn of a checkout."""
    installed = _PACKAGE / "learn_content"
    # The wheel carries docs/learn under this name; see pyproject.toml.
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "docs" / "learn"


def repository_path(path: str) -> str:
    """A path that a lesson or question names, relative to docs/learn, from the repository's top."""
    # Not os.path: a link in Markdown has slashes on every system.
    return posixpath.normpath(f"docs/learn/{path}")


def read_lesson(number: int) -> Lesson:
    """A lesson by its number.

    Raises:
        NormlabError: its file is missing.
    """
    text = _read_content(content_folder() / f"lesson{number}.md")
    # It begins `# Lesson N: title`.
    return Lesson(number, text.partition("\n")[0].partition(": ")[2], text)


def read_questions(lesson: int | None = None, path: Path | None = None) -> list[Question]:
    """The questions of a lesson, or of all; `path` is another file than that of the lessons.

    Raises:
        NormlabError: the file is missing or malformed.
    """
    questions = _read_items(path or content_folder() / QUIZ_FILE, Question)
    return [question for question in questions if lesson in (None, question.lesson)]


def read_predictions() -> list[Prediction]:
    """The predictions of all lessons. Raises as `read_questions`."""
    return _read_items(content_folder() / PREDICTIONS_FILE, Prediction)


def find_prediction(id_: str) -> Prediction:
    """The prediction of this id.

    Raises:
        ConfigError: there is none.
        NormlabError: the file is missing or malformed.
    """
    predictions = {prediction.id: prediction for prediction in read_predictions()}
    if id_ not in predictions:
        raise ConfigError(
            f"{excerpt(id_)} is not a prediction; {suggest_closest(id_, predictions)}there are "
            f"{', '.join(predictions) or 'none'}."
        )
    return predictions[id_]


def _read_items(path: Path, kind: type[_T]) -> list[_T]:
    """The list of a YAML file, each of its items as a `kind`."""
    text = _read_content(path)
    try:
        items: list[_T] = restore_value(list[kind], yaml.safe_load(text))  # type: ignore[valid-type]
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        # A YAML error has several lines, and a message is one.
        reason = one_line(error, 200)
        raise NormlabError(f"{path} is malformed ({reason}); restore the file.") from error
    return items


def _read_content(path: Path) -> str:
    try:
        return read_text(path, _LARGEST_FILE)
    except FileNotFoundError:
        raise NormlabError(f"{path} is missing; restore it, or install normlab again.") from None
    except (OSError, ValueError) as error:
        raise NormlabError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); restore it."
        ) from error
