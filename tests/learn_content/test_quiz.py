"""The quiz: well formed, and every answer and number in it computed here."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from learn_content import evidence_models, evidence_norms, evidence_signals, evidence_studies
from learn_content.evidence import EVIDENCE, Evidence
from learn_content.learn_pages import LEARN, NUMBER, read_numbers

QUESTIONS: list[dict[str, Any]] = yaml.safe_load((LEARN / "quiz.yaml").read_text(encoding="utf-8"))
BY_ID = {question["id"]: question for question in QUESTIONS}
KEYS = {
    "choice": {"id", "lesson", "kind", "question", "choices"},
    "figure": {"id", "lesson", "kind", "question", "choices", "figure", "figure_text"},
    "numeric": {"id", "lesson", "kind", "question", "answer", "tolerance", "unit", "explanation"},
}
# Small counts, as in "two per block", need no computation.
SMALL_COUNTS = {"0", "1", "2", "3"}
EVIDENCE_MODULES = (evidence_models, evidence_norms, evidence_signals, evidence_studies)


def test_there_are_enough_questions_and_some_in_each_lesson() -> None:
    assert len(QUESTIONS) == len(BY_ID) >= 34
    lessons = Counter(question["lesson"] for question in QUESTIONS)
    assert set(lessons) == set(range(1, 7))
    assert min(lessons.values()) >= 4


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["id"])
def test_a_question_has_the_keys_of_its_kind(question: dict[str, Any]) -> None:
    assert set(question) == KEYS[question["kind"]]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", question["id"])
    for choice in question.get("choices", []):
        assert set(choice) == {"text", "correct", "explanation"}
        assert isinstance(choice["text"], str)
    if question["kind"] == "numeric":
        assert all(isinstance(question[key], int | float) for key in ("answer", "tolerance"))
    else:
        assert sum(choice["correct"] for choice in question["choices"]) == 1
    if question["kind"] == "figure":
        assert (LEARN / question["figure"]).is_file()


def right_position(question: dict[str, Any]) -> int:
    return next(i for i, choice in enumerate(question["choices"]) if choice["correct"])


def test_the_place_of_a_choice_does_not_say_whether_it_is_right() -> None:
    positions: dict[int, Counter[int]] = {}
    for question in QUESTIONS:
        if "choices" in question:
            count = len(question["choices"])
            positions.setdefault(count, Counter())[right_position(question)] += 1
    for count, counter in positions.items():
        for position in range(count):
            share = counter[position] / counter.total()
            assert 0.15 <= share <= 0.4, (
                f"of {count} choices, {position + 1} is right in {share:.0%}"
            )


def test_the_length_of_a_choice_does_not_say_whether_it_is_right() -> None:
    longest = shortest = total = 0
    for question in QUESTIONS:
        if "choices" in question:
            lengths = [len(choice["text"]) for choice in question["choices"]]
            right = lengths.pop(right_position(question))
            longest += right > max(lengths)
            shortest += right < min(lengths)
            total += 1
    assert longest <= 0.4 * total
    assert shortest <= 0.4 * total


@pytest.mark.parametrize(
    "question", [q for q in QUESTIONS if q["kind"] == "figure"], ids=lambda question: question["id"]
)
def test_a_question_about_a_figure_cannot_be_answered_without_it(question: dict[str, Any]) -> None:
    """Its title, which stands on it, and its text, which the terminal shows, say no answer."""
    texts = [choice["text"] for choice in question["choices"]]
    assert len(texts) >= 4
    asked = " ".join([question["question"], *texts])
    assert "experiment" not in asked
    assert Path(question["figure"]).stem not in asked
    right = set(re.findall(r"[\w.-]+", texts.pop(right_position(question))))
    own = right - set(re.findall(r"[\w.-]+", " ".join(texts)))
    assert not own & set(re.findall(r"[\w.-]+", question["figure_text"]))


def test_every_question_has_evidence_and_none_is_left_over() -> None:
    assert set(EVIDENCE) == set(BY_ID), EVIDENCE_MODULES


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["id"])
def test_the_answer_is_what_is_computed(question: dict[str, Any]) -> None:
    computed = EVIDENCE[question["id"]]()
    if question["kind"] == "numeric":
        assert computed.answer == pytest.approx(question["answer"], abs=question["tolerance"])
    else:
        correct = [choice["correct"] for choice in question["choices"]]
        assert [bool(value) for value in computed.truth] == correct
    check_numbers(question, computed)


def check_numbers(question: dict[str, Any], computed: Evidence) -> None:
    """Every number of an explanation was computed, or stands in the question."""
    for printed, value in computed.numbers.items():
        assert same_as_printed(value, printed), (printed, value)
    choices = question.get("choices", [])
    stated = NUMBER.findall(" ".join([question["question"], *(c["text"] for c in choices)]))
    explained = " ".join([question.get("explanation", ""), *(c["explanation"] for c in choices)])
    explained = re.sub(r"arXiv \d{4}\.\d{5}", "", explained)
    missing = set(NUMBER.findall(explained)) - {*computed.numbers, *stated, *SMALL_COUNTS}
    assert not missing, f"{question['id']}: no evidence for {sorted(missing)}"


def same_as_printed(value: float, printed: str) -> bool:
    """Whether the value is the printed number, give or take one unit of its last digit."""
    (number,) = read_numbers(printed)
    mantissa, _, exponent = printed.replace(",", "").partition("e")
    digits = len(mantissa.partition(".")[2])
    step = 10.0 ** (int(exponent or 0) - digits)
    return abs(value - number) <= step * 1.01


def test_a_wrong_number_is_seen() -> None:
    assert same_as_printed(0.3015, "0.302")
    assert not same_as_printed(0.305, "0.302")
    assert not same_as_printed(0.0302, "0.302")
    question = {**BY_ID["eps-inside"], "explanation": "It is 0.4711."}
    with pytest.raises(AssertionError, match=r"0\.4711"):
        check_numbers(question, Evidence())
