"""Lessons, quiz and predictions as files: read, checked, and missed with a sentence."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from normlab.apps.learn import content
from normlab.apps.learn.completion import (
    ANALOGY_QUESTION,
    MODELS_QUESTION,
    NO_NORM_QUESTION,
    ticked_boxes,
)
from normlab.apps.learn.content import (
    LESSONS,
    Prediction,
    Question,
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


def test_questions_are_those_of_the_lesson(learn_content: Path) -> None:
    assert [question.id for question in read_questions(2)] == ["which-figure", "output-rms"]
    assert len(read_questions()) == 4
    assert read_questions(5) == []


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ("kind: numeric", "kind: number", "kind"),
        ("answer: 17\n", "answer: many\n", "not a number"),
        ("text: The biases.", "label: The biases.", "text is missing"),
        ("- id: norms-in", "- ident: norms-in", "id is missing"),
        ("kind: numeric", "kind: [", "malformed"),
    ],
)
def test_a_damaged_file_is_a_sentence(
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


@pytest.mark.parametrize(
    ("name", "kind"), [("quiz.yaml", Question), ("predictions.yaml", Prediction)]
)
def test_every_entry_has_its_own_id_a_lesson_and_no_unknown_key(name: str, kind: type) -> None:
    entries = yaml.safe_load((DOCS / name).read_text())
    assert len({entry["id"] for entry in entries}) == len(entries)
    for entry in entries:
        assert entry["lesson"] in LESSONS, entry["id"]
        assert set(entry) <= {field.name for field in fields(kind)}, entry["id"]
        for choice in entry.get("choices", []):
            assert set(choice) == {"text", "correct", "explanation"}, entry["id"]


@pytest.mark.parametrize("question", read_questions(), ids=lambda question: question.id)
def test_every_question_can_be_answered(question: Question) -> None:
    if question.kind == "numeric":
        assert None not in (question.answer, question.tolerance)
        assert question.explanation
    else:
        assert len(question.choices) >= 2
        assert sum(choice.correct for choice in question.choices) == 1
    if question.kind == "figure":
        assert question.figure
        assert question.figure_text


@pytest.mark.parametrize("prediction", read_predictions(), ids=lambda prediction: prediction.id)
def test_every_prediction_can_be_measured(prediction: Prediction) -> None:
    assert prediction.measure != "final_loss_difference" or len(prediction.arms) == 2
    assert len(prediction.range) in (0, 2)


def test_every_lesson_begins_with_its_number_and_title() -> None:
    for number in LESSONS:
        assert read_lesson(number).text.startswith(f"# Lesson {number}: ")


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
