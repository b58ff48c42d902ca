"""Lessons, quiz and predictions as files: read, checked, and missed with a sentence."""

from pathlib import Path

import pytest

from normlab.apps.learn import content
from normlab.apps.learn.completion import (
    ANALOGY_QUESTION,
    MODELS_QUESTION,
    NO_NORM_QUESTION,
    ticked_boxes,
)
from normlab.apps.learn.content import (
    LESSONS,
    read_lesson,
    read_predictions,
    read_questions,
)
from normlab.apps.learn.exercises import EXERCISES
from normlab.apps.learn.progress import PredictionProgress, Progress, QuestionProgress
from normlab.errors import NormlabError

DOCS = Path(__file__).resolve().parents[3] / "docs" / "learn"


def test_a_checkout_reads_the_lessons_of_its_docs() -> None:
    assert content.content_folder() == DOCS


def test_a_figure_is_named_from_the_top_of_the_repository() -> None:
    assert content.repository_path("../figures/claims.png") == "docs/figures/claims.png"
    assert content.repository_path("figures/pre.svg") == "docs/learn/figures/pre.svg"


def test_a_lesson_has_its_title_and_minutes(learn_content: Path) -> None:
    lesson = read_lesson(1)
    assert (lesson.title, lesson.minutes) == ("Title 1", 3)


@pytest.mark.parametrize("text", ["", "Lesson 1", "# Lesson 2: Another\n"])
def test_a_lesson_with_another_heading_is_refused(text: str, learn_content: Path) -> None:
    (learn_content / "lesson1.md").write_text(text)
    with pytest.raises(NormlabError, match="does not begin with `# Lesson 1: title`"):
        read_lesson(1)


def test_questions_are_those_of_the_lesson(learn_content: Path) -> None:
    assert [question.id for question in read_questions(2)] == ["which-figure", "output-rms"]
    assert len(read_questions()) == 4
    assert read_questions(5) == []


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ("kind: numeric", "kind: number", "kind"),
        ("  answer: 17\n", "", "has no answer"),
        ("  tolerance: 0\n", "", "is numeric and has no tolerance"),
        ("  explanation: Two a block, and the final one.\n", "", "has no explanation"),
        ("answer: 17\n", "answer: many\n", "not a number"),
        ("correct: true", "correct: false", "exactly one"),
        ("id: what-vanishes", "id: output-rms", "occurs twice"),
        ("lesson: 1", "lesson: 7", "not of 1 to 6"),
        ("figure: figures/depth.svg", "figure: ''", "names none"),
        ("figure: figures/depth.svg", "picture: figures/depth.svg", "the key picture is unknown"),
        ("  figure_text: Two curves over depth.\n", "", "has no figure_text"),
        ("lesson: 2", "lesson: 2\n  hint: none", "the key hint is unknown"),
        ("text: The biases.", "label: The biases.", "text is missing"),
        ("{text: The biases.", "{hint: none, text: The biases.", "the key hint is unknown"),
        ("- id: norms-in", "- ident: norms-in", "id is missing"),
        ("kind: numeric", "kind: [", "malformed"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(
    before: str, after: str, word: str, learn_content: Path
) -> None:
    path = learn_content / "quiz.yaml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(NormlabError) as raised:
        read_questions()
    assert word in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_prediction_of_a_difference_names_two_arms(learn_content: Path) -> None:
    path = learn_content / "predictions.yaml"
    path.write_text(path.read_text().replace("[none, rmsnorm · pre]", "[none]"))
    with pytest.raises(NormlabError, match="must name two arms"):
        read_predictions()


def test_a_measure_that_does_not_exist_is_refused(learn_content: Path) -> None:
    path = learn_content / "predictions.yaml"
    path.write_text(path.read_text().replace("diverged_count", "norm_output"))
    with pytest.raises(NormlabError, match="norm_output"):
        read_predictions()


def test_a_file_that_is_missing_is_a_sentence(learn_content: Path) -> None:
    for path in learn_content.iterdir():
        path.unlink()
    for read in (lambda: read_lesson(1), read_questions, read_predictions):
        with pytest.raises(NormlabError, match="is missing; restore it"):
            read()


# --- The files of this repository ---------------------------------------------------------------


@pytest.mark.skipif(not (DOCS / "quiz.yaml").exists(), reason="the lessons are not here yet")
def test_the_lessons_of_the_repository_can_be_read_and_every_box_can_be_ticked() -> None:
    assert all(read_lesson(number).title for number in LESSONS)
    questions = read_questions()
    assert {question.lesson for question in questions} == set(LESSONS)
    assert read_predictions()
    ids = {question.id for question in questions}
    assert {ANALOGY_QUESTION, MODELS_QUESTION, NO_NORM_QUESTION} <= ids
    progress = Progress()
    for question in questions:
        progress.questions[question.id] = QuestionProgress(right=True, tries=1)
    for prediction in read_predictions():
        progress.predictions[prediction.id] = PredictionProgress(1.0, measured=2.0, right=False)
    for name in EXERCISES:
        progress.exercise(name).passed = True
    assert all(ticked_boxes(progress, questions, read_predictions()))
