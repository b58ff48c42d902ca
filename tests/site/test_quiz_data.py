"""The quiz of the page is that of quiz.yaml, and a figure that does not exist is named."""

import json
from pathlib import Path

import pytest
import yaml

from normlab.errors import NormlabError
from quiz_data import LEARN, SCRIPT, figure_files, quiz_script

FIXTURE = Path(__file__).with_name("quiz.yaml")


def test_the_committed_script_is_that_of_the_quiz() -> None:
    assert SCRIPT.read_text(encoding="utf-8") == quiz_script(), (
        "run: python scripts/docs/quiz_data.py"
    )


def test_the_script_holds_the_questions_and_cannot_end_its_element() -> None:
    script = quiz_script(FIXTURE)
    assert "</script>" not in script
    questions = json.loads(script.partition("const QUIZ = ")[2].rstrip().removesuffix(";"))
    written = yaml.safe_load(FIXTURE.read_text(encoding="utf-8"))
    # Every question has all keys in the script; those that it leaves out in the file are empty.
    assert [
        {key: question[key] for key in original}
        for question, original in zip(questions, written, strict=True)
    ] == written


def test_the_figures_of_the_questions_exist(tmp_path: Path) -> None:
    figure_files()
    assert figure_files(FIXTURE) == [LEARN / "figures" / "pre.svg"]
    path = tmp_path / "quiz.yaml"
    path.write_text(FIXTURE.read_text(encoding="utf-8").replace("pre.svg", "prae.svg"))
    with pytest.raises(NormlabError, match=r"which-block\) names the figure figures/prae\.svg"):
        figure_files(path)
