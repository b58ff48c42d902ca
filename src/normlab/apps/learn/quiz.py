"""The quiz in the terminal: asked until the answer is right, or answered by a script."""

import math
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from normlab.apps.learn.content import Question, repository_path
from normlab.apps.learn.progress import Progress, update_progress
from normlab.apps.learn.writer import Writer
from normlab.errors import ConfigError
from normlab.text import excerpt

SKIP = "-"  # leaves a question out
# 1,000 but not 0,302: after a 0 the comma can only be a decimal comma.
_THOUSANDS = re.compile(r"[-−]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?")


@dataclass(frozen=True)
class Grade:
    """Whether an answer is right, and the explanation that belongs to it."""

    right: bool
    explanation: str


def grade_answer(question: Question, answer: str) -> Grade:
    """Compare an answer, a choice's number or a number, with the question's.

    Raises:
        ConfigError: it is neither.
    """
    text = answer.strip()
    if question.kind == "numeric":
        return _grade_number(question, text)
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= len(question.choices):
        raise ConfigError(
            f"{excerpt(text) or 'an empty line'} is not an answer here; type a number from 1 to "
            f"{len(question.choices)}, or {SKIP} to leave the question out."
        )
    choice = question.choices[number - 1]
    return Grade(choice.correct, choice.explanation)


def _grade_number(question: Question, text: str) -> Grade:
    value = parse_number(
        text, f"type one such as 0.3 or 1e-3, or {SKIP} to leave the question out."
    )
    assert question.answer is not None, "a test of the quiz checks it"
    assert question.tolerance is not None, "a test of the quiz checks it"
    # A tolerance of 0 still forgives the last digit of a decimal number, and the limit itself is
    # within: 0.4 − 0.3 is above 0.1 in binary.
    right = math.isclose(
        value, question.answer, rel_tol=1e-9, abs_tol=question.tolerance * (1 + 1e-9)
    )
    return Grade(right, question.explanation if right else describe_answer(question))


def parse_number(text: str, advice: str) -> float:
    """A finite number as people write it; a comma for the point is read too.

    Raises:
        ConfigError: it is not a number, and what to do is the `advice`; or it is like 1,000, whose
            comma may separate thousands.
    """
    text = text.strip()
    if _THOUSANDS.fullmatch(text):
        raise ConfigError(
            f"{excerpt(text)} has a comma that may separate thousands; write "
            f"{excerpt(text.replace(',', ''))} without a comma."
        )
    try:
        value = float(text.replace(",", ".").replace("−", "-"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{excerpt(text) or 'an empty line'} is not a number; {advice}")
    return value


def describe_answer(question: Question) -> str:
    """The right answer, a number with its tolerance, and why it is right."""
    if question.kind == "numeric":
        number = f"{question.answer:g} ± {question.tolerance:g}"
        if not question.tolerance:
            number = f"exactly {question.answer:g}"
        unit = f" (unit: {question.unit})" if question.unit else ""
        return f"The answer is {number}{unit}. {question.explanation}"
    choice = question.choices[question.correct_choice - 1]
    return f"The answer is {question.correct_choice}. {choice.text}\n{choice.explanation}"


def store_grade(question: Question, right: bool) -> None:
    """Add an answer to the progress file."""

    def change(progress: Progress) -> None:
        entry = progress.question(question.id)
        entry.tries += 1
        entry.first_right = right if entry.tries == 1 else entry.first_right
        entry.right = right or entry.right

    update_progress(change)


def grade_answers(writer: Writer, questions: Sequence[Question], answers: str) -> tuple[int, int]:
    """Grade `1,3,0.302`, an answer a question in their order; print each with its explanation.

    Returns how many are right, and how many were answered. Nothing is stored unless all answers
    can be graded.

    Raises:
        ConfigError: there are not as many answers as questions, or one is not an answer.
    """
    words = [word.strip() for word in answers.split(",")]
    if len(words) != len(questions):
        raise ConfigError(
            f"--answers has {len(words)} answers for {len(questions)} questions; give one for "
            f"each, in their order, and {SKIP} for those to leave out."
        )
    grades: list[tuple[Question, Grade]] = []
    for number, (question, word) in enumerate(zip(questions, words, strict=True), 1):
        if word == SKIP:
            continue
        try:
            grades.append((question, grade_answer(question, word)))
        except ConfigError as error:
            raise ConfigError(f"--answers, question {number} ({question.id}): {error}") from error
    # Only now: one answer that cannot be graded leaves nothing stored.
    for question, grade in grades:
        store_grade(question, grade.right)
        writer.print_text(
            f"{'right' if grade.right else 'wrong'}  {question.id}: {grade.explanation}",
        )
    return sum(grade.right for _, grade in grades), len(grades)


def ask_questions(
    writer: Writer, questions: Sequence[Question], done: Collection[str] = ()
) -> tuple[int, int]:
    """Ask each question but those of the ids in `done`; store every answer at once.

    A choice is asked until it is right or left out. A wrong number is answered with the right one.
    Returns how many were answered correctly at the first try, and how many were answered. The end
    of the input ends the quiz.
    """
    right = answered = 0
    for number, question in enumerate(questions, 1):
        if question.id in done:
            continue
        print_question(writer, question, f"{number} of {len(questions)}")
        tries = 0
        answered += 1
        while True:
            answer = read_line("answer: ")
            if answer is None:
                writer.print_text("\nThe quiz ends here; what you have answered is stored.")
                return right, answered - (tries == 0)
            if answer.strip() == SKIP:
                # Left out without a try, it was not answered.
                answered -= tries == 0
                writer.print_text(describe_answer(question))
                break
            try:
                grade = grade_answer(question, answer)
            except ConfigError as error:
                writer.print_text(str(error))
                continue
            tries += 1
            store_grade(question, grade.right)
            writer.print_text(f"{'Right' if grade.right else 'No'}. {grade.explanation}")
            right += grade.right and tries == 1
            # Behind a wrong number stands the right one: there is nothing left to try.
            if grade.right or question.kind == "numeric":
                break
            writer.print_text(f"Try again, or type {SKIP} to see the answer.")
    return right, answered


def describe_next(questions: Sequence[Question], progress: Progress, command: str) -> str:
    """What the command does when it is given again, and how the quiz is started over."""
    done = right_ids(progress)
    for number, question in enumerate(questions, 1):
        if question.id not in done:
            return (
                f"`{command}` goes on at question {number}, the first that you have not answered "
                f"right, and `{command} --restart` starts again at question 1"
            )
    return f"all are answered right, and `{command} --restart` asks them again"


def right_ids(progress: Progress) -> set[str]:
    """The questions that were answered right, now or before."""
    return {id_ for id_, entry in progress.questions.items() if entry.right}


def print_question(writer: Writer, question: Question, position: str) -> None:
    """The question with its choices, or its unit."""
    writer.print_text(f"\n[{position}] {question.question}")
    if question.figure:
        writer.print_text(f"Look at the figure {repository_path(question.figure)}")
        if question.figure_text:
            writer.print_text(f"It shows: {question.figure_text}")
    for number, choice in enumerate(question.choices, 1):
        writer.print_text(f"  {number}. {choice.text}", "     ")
    if question.kind == "numeric":
        writer.print_text(f"  (a number{f'; unit: {question.unit}' if question.unit else ''})")


def read_line(prompt: str) -> str | None:
    """A line from standard input; None at its end."""
    sys.stdout.write(prompt)
    sys.stdout.flush()
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None
