"""The quiz of the page is that of quiz.yaml, and a question that cannot be asked is named."""

import json
from pathlib import Path

import pytest
import yaml

from quiz_data import LEARN, SCRIPT, QuizError, figure_files, quiz_script, read_questions

FIXTURE = Path(__file__).with_name("quiz.yaml")


def test_the_committed_script_is_that_of_the_quiz() -> None:
    assert SCRIPT.read_text(encoding="utf-8") == quiz_script(), (
        "run: python scripts/docs/quiz_data.py"
    )


def test_the_script_holds_the_questions_and_cannot_end_its_element() -> None:
    script = quiz_script(FIXTURE)
    assert "</script>" not in script
    questions = json.loads(script.partition("const QUIZ = ")[2].rstrip().removesuffix(";"))
    assert questions == yaml.safe_load(FIXTURE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: numeric", "kind: essay", "question 1 of quiz.yaml needs a kind; it is one of"),
        ("answer: 17", "answer: many", "answer is 'many'; it has to be a number"),
        ("  tolerance: 0\n", "", "lacks tolerance"),
        ("figure: figures", "picture: figures", "lacks figure"),
        ("correct: true", "correct: false", "exactly one that is correct"),
        ("id: which-block", "id: what-rmsnorm-leaves-out", "the id what-rmsnorm-leaves-out twice"),
        ("lesson: 2", "lesson: 2\n  hint: none", "the unknown key hint"),
        ("text: Pre-LN", "label: Pre-LN", "a choice has exactly"),
    ],
)
def test_a_question_that_cannot_be_asked_is_named(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    text = FIXTURE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "quiz.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(QuizError, match=message):
        read_questions(path)


def test_the_figures_of_the_questions_exist(tmp_path: Path) -> None:
    figure_files()
    assert figure_files(FIXTURE) == [LEARN / "figures" / "pre.svg"]
    path = tmp_path / "quiz.yaml"
    path.write_text(FIXTURE.read_text(encoding="utf-8").replace("pre.svg", "prae.svg"))
    with pytest.raises(QuizError, match=r"which-block\) names the figure figures/prae\.svg"):
        figure_files(path)
