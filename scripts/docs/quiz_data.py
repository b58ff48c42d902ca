"""The quiz of docs/learn/quiz.yaml as a script that the interactive page loads.

    python scripts/docs/quiz_data.py

writes docs/learn/interactive/quiz_data.js. A page that is opened as a file can load a script, and
no YAML or JSON. `make docs` does the same into the site.
"""

import json
from pathlib import Path
from typing import Any

import yaml

LEARN = Path(__file__).resolve().parents[2] / "docs" / "learn"
QUIZ = LEARN / "quiz.yaml"
SCRIPT = LEARN / "interactive" / "quiz_data.js"

# The keys of each kind of question; others are refused, for the page would not show them.
_COMMON = {"id", "lesson", "kind", "question"}
_CHOICE_KEYS = {"text", "correct", "explanation"}
_OPTIONAL = {"explanation"}
_KINDS = {
    "choice": {"choices"},
    "figure": {"choices", "figure", "figure_text"},
    "numeric": {"answer", "tolerance", "unit", "explanation"},
}


class QuizError(ValueError):
    """A question that the page cannot ask: which, why, and what is allowed."""


def read_questions(path: Path = QUIZ) -> list[dict[str, Any]]:
    """The questions of the file, checked.

    Raises:
        QuizError: naming the question and what is wrong with it.
    """
    questions = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(questions, list) or not questions:
        raise QuizError(f"{path.name} has to be a list of questions.")
    for number, question in enumerate(questions, 1):
        _check_question(question, f"question {number} of {path.name}")
    names = [question["id"] for question in questions]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise QuizError(f"{path.name} has the id {repeated[0]} twice; an id names one question.")
    return questions


def _check_question(question: Any, place: str) -> None:
    if not isinstance(question, dict) or question.get("kind") not in _KINDS:
        raise QuizError(f"{place} needs a kind; it is one of {', '.join(_KINDS)}.")
    place = f"{place} ({question.get('id', 'without id')})"
    needed = _COMMON | _KINDS[question["kind"]]
    missing = sorted(needed - set(question) - {"unit"})
    if missing:
        raise QuizError(f"{place} lacks {missing[0]}.")
    unknown = sorted(set(question) - needed - _OPTIONAL)
    if unknown:
        raise QuizError(f"{place} has the unknown key {unknown[0]}; allowed: {sorted(needed)}.")
    if question["kind"] == "numeric":
        for key in ("answer", "tolerance"):
            if not isinstance(question[key], int | float):
                raise QuizError(f"{place}: {key} is {question[key]!r}; it has to be a number.")
        return
    choices = question["choices"]
    for choice in choices:
        if set(choice) != _CHOICE_KEYS or not isinstance(choice["correct"], bool):
            raise QuizError(f"{place}: a choice has exactly {sorted(_CHOICE_KEYS)}.")
    if sum(choice["correct"] for choice in choices) != 1 or len(choices) < 2:
        raise QuizError(f"{place} needs two choices or more, and exactly one that is correct.")


def figure_files(path: Path = QUIZ) -> list[Path]:
    """The files of the figures that questions show.

    Raises:
        QuizError: a question names a figure that does not exist.
    """
    files = []
    for question in read_questions(path) if path.is_file() else []:
        if question["kind"] == "figure":
            file = (LEARN / question["figure"]).resolve()
            if not file.is_file():
                raise QuizError(
                    f"{path.name} ({question['id']}) names the figure {question['figure']}, which "
                    "does not exist; paths start in docs/learn."
                )
            files.append(file)
    return files


def quiz_script(path: Path = QUIZ) -> str:
    """The script: one constant with all questions, none where there is no file."""
    questions = read_questions(path) if path.is_file() else []
    # `</` would end the element if the script were ever put into a page.
    text = json.dumps(questions, ensure_ascii=False, indent=1).replace("</", "<\\/")
    return f"// Written by scripts/docs/quiz_data.py from quiz.yaml.\nconst QUIZ = {text};\n"


if __name__ == "__main__":
    SCRIPT.write_text(quiz_script(), encoding="utf-8")
    print(f"wrote {SCRIPT}")
