"""Questions graded and asked again, scores stored at once, nonsense answered with a sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest

from command_calls import Call
from normlab.apps.learn.content import read_questions
from normlab.apps.learn.progress import read_progress
from normlab.apps.learn.quiz import grade_answer, parse_number
from normlab.errors import ConfigError

Type = Callable[[str], None]


@pytest.mark.parametrize(
    ("id_", "answer", "right"),
    [
        ("norms-in-eight-blocks", "17", True),
        ("norms-in-eight-blocks", "16", False),
        ("norms-in-eight-blocks", "1.7e1", True),
        ("output-rms", "0.307", True),
        ("output-rms", "0,302", True),
        ("output-rms", "0,3020", True),
        ("output-rms", "0.31", False),
        ("what-vanishes", "2", True),
        ("what-vanishes", "1", False),
    ],
)
def test_an_answer_is_right_within_its_tolerance(
    id_: str, answer: str, right: bool, learn_content: Path
) -> None:
    (question,) = [question for question in read_questions() if question.id == id_]
    assert grade_answer(question, answer).right is right


@pytest.mark.parametrize("answer", ["", "0", "3", "-1", "two", "1.0", "9" * 5000])
def test_nonsense_is_no_answer(answer: str, learn_content: Path) -> None:
    choice = next(question for question in read_questions() if question.id == "what-vanishes")
    with pytest.raises(ConfigError, match="type a number from 1 to 2") as raised:
        grade_answer(choice, answer)
    assert len(str(raised.value)) < 300


def test_an_empty_line_is_named_as_such(learn_content: Path) -> None:
    for question in read_questions(1):
        with pytest.raises(ConfigError, match=r"^an empty line is not an? "):
            grade_answer(question, "")


@pytest.mark.parametrize("text", ["1,000", " -1,234 ", "−12,345,678", "999,000.5"])
def test_a_comma_that_may_separate_thousands_is_not_read(text: str, learn_content: Path) -> None:
    question = next(question for question in read_questions() if question.id == "output-rms")
    plain = text.strip().replace(",", "")
    with pytest.raises(ConfigError, match=f"separate thousands; write {plain} without a comma"):
        grade_answer(question, text)


@pytest.mark.parametrize(
    ("text", "value"), [("1,5", 1.5), ("0,302", 0.302), ("1000,25", 1000.25), ("12,34", 12.34)]
)
def test_a_comma_is_read_as_a_point_where_it_cannot_separate_thousands(
    text: str, value: float
) -> None:
    assert parse_number(text, "") == value


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "-inf", "1e999", "1 2"])
def test_what_is_no_finite_number_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a number; type one"):
        parse_number(text, "type one")


def test_the_explanation_is_that_of_the_choice_that_was_made(learn_content: Path) -> None:
    choice = next(question for question in read_questions() if question.id == "what-vanishes")
    assert grade_answer(choice, "1").explanation == "They keep the signal up."
    assert grade_answer(choice, "2").explanation == "It shrinks by a factor each layer."


def test_a_wrong_choice_is_asked_again_and_the_score_is_stored(
    learn: Call, type_lines: Type
) -> None:
    type_lines("lots\n17\n1\n2\n")
    code, out, _ = learn("quiz", "1")
    assert code == 0
    assert "lots is not a number" in out
    assert "Right. Two a block" in out
    assert "No. They keep the signal up.\nTry again, or type - to see the answer." in out
    assert "1 of 2 right at the first try" in out
    assert "2 of 2 answered correctly so far; all are answered right" in out
    stored = read_progress().questions
    assert (stored["what-vanishes"].tries, stored["what-vanishes"].right) == (2, True)
    assert not stored["what-vanishes"].first_right
    assert stored["norms-in-eight-blocks"].first_right


def test_a_wrong_number_is_answered_with_the_right_one_and_comes_again(
    learn: Call, type_lines: Type
) -> None:
    type_lines("1\n0.5\n")
    out = learn("quiz", "2")[1]
    assert "No. The answer is 0.302 ± 0.005. With ε inside the root.\n" in out
    assert "Try again" not in out
    assert "Look at the figure docs/learn/figures/depth.svg\nIt shows: Two curves" in out
    assert "1 of 2 answered correctly so far; `normlab-learn quiz 2` goes on at question 2" in out
    type_lines("0.3\n")
    assert "[2 of 2] The RMS of the output?" in learn("quiz", "2")[1]
    type_lines("16\n-\n")
    out = learn("quiz", "1")[1]
    assert "No. The answer is exactly 17 (unit: norms). Two a block, and the final one.\n" in out


def test_a_question_can_be_left_out_and_then_shows_its_answer(
    learn: Call, type_lines: Type
) -> None:
    type_lines("-\n1\n-\n")
    code, out, _ = learn("quiz", "1")
    assert code == 0
    assert "The answer is exactly 17 (unit: norms). Two a block" in out
    assert "The answer is 2. The gradient.\nIt shrinks by a factor each layer." in out
    assert "norms-in-eight-blocks" not in read_progress().questions
    assert not read_progress().questions["what-vanishes"].right


def test_the_quiz_goes_on_at_the_first_question_not_answered_right_or_starts_over(
    learn: Call, type_lines: Type
) -> None:
    type_lines("17\n-\n1\n")
    learn("quiz")
    type_lines("2\n")
    out = learn("quiz")[1]
    assert out.startswith(
        "2 of 4 questions are answered right and are not asked again; "
        "`normlab-learn quiz --restart` asks all.\n\n[2 of 4] What vanishes"
    )
    assert "Which curve" not in out
    assert "[4 of 4] The RMS of the output?" in out
    type_lines("")
    out = learn("quiz", "1")[1]
    assert "[" not in out
    assert "all are answered right, and `normlab-learn quiz 1 --restart` asks them again." in out
    type_lines("17\n")
    out = learn("quiz", "1", "--restart")[1]
    assert out.startswith("\n[1 of 2] How many norms")
    assert read_progress().questions["norms-in-eight-blocks"].tries == 2
    code, _, err = learn("quiz", "1", "--restart", "--answers", "17,2")
    assert (code, err.count("\n")) == (2, 1)
    assert "--restart" in err


def test_the_end_of_the_input_ends_the_quiz_and_keeps_what_was_answered(
    learn: Call, type_lines: Type
) -> None:
    type_lines("17\n")
    code, out, _ = learn("quiz", "1")
    assert code == 0
    assert "what you have answered is stored" in out
    assert read_progress().questions["norms-in-eight-blocks"].right


def test_ctrl_c_says_that_nothing_is_lost_and_what_comes_next(
    learn: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting:
        lines = iter(["17\n"])

        def readline(self) -> str:
            for line in self.lines:
                return line
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Interrupting())
    code, out, err = learn("quiz", "1")
    assert (code, err) == (130, "")
    assert out.endswith(
        "answer: \nStopped, and nothing is lost: your answers are stored; `normlab-learn quiz 1` "
        "goes on at question 2, the first that you have not answered right, and "
        "`normlab-learn quiz 1 --restart` starts again at question 1.\n"
    )
    assert read_progress().questions["norms-in-eight-blocks"].right


def test_answers_of_a_script_are_graded_in_their_order(learn: Call) -> None:
    code, out, _ = learn("quiz", "2", "--answers", "2,0.30")
    assert code == 0
    assert "wrong  which-figure: That is Pre-LN." in out
    assert "1 of 2 right." in out
    assert learn("quiz", "--answers", "17,2,1,-")[1].count("right  ") == 3


@pytest.mark.parametrize(
    ("answers", "word"),
    [
        ("17", "1 answers for 2 questions"),
        ("17,2,3", "3 answers for 2 questions"),
        ("17,9", "question 2 (what-vanishes): 9 is not an answer here"),
        ("many,1", "question 1 (norms-in-eight-blocks): many is not a number"),
        ("", "1 answers for 2 questions"),
    ],
)
def test_answers_that_cannot_be_graded_store_nothing(answers: str, word: str, learn: Call) -> None:
    code, _, err = learn("quiz", "1", "--answers", answers)
    assert code == 2
    assert word in err
    assert read_progress().questions == {}


@pytest.mark.parametrize("lesson", ["0", "7", "one", "1.5", ""])
def test_a_lesson_that_is_none_is_refused(lesson: str, learn: Call) -> None:
    for command in ("quiz", "lesson"):
        code, _, err = learn(command, lesson)
        assert code == 2
        assert "give a number from 1 to 6" in err


def test_a_lesson_without_questions_is_a_sentence(learn: Call) -> None:
    code, _, err = learn("quiz", "5")
    assert (code, err) == (
        1,
        "normlab: lesson 5 has no questions; take another lesson's quiz.\n",
    )
