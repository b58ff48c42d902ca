"""The command normlab-learn: the path, lessons, predictions, quiz, exercises, boxes.

Torch is imported by the checker's own process and by studies alone.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

from normlab.apps.learn.completion import BOXES, is_measured
from normlab.apps.learn.content import (
    LESSONS,
    Prediction,
    Question,
    find_prediction,
    read_lesson,
    read_predictions,
    read_questions,
)
from normlab.apps.learn.exercises import (
    Exercise,
    exercise_of_file,
    find_exercise,
)
from normlab.apps.learn.progress import (
    LEARN_FOLDER,
    Progress,
    progress_path,
    read_progress,
    reset_progress,
    update_progress,
)
from normlab.apps.learn.writer import Writer
from normlab.errors import CommandParser, ConfigError, NormlabError, report_user_errors
from normlab.text import excerpt, suggest_closest
from normlab.training import stopping

_LONGEST_ANSWER = 2_000  # characters of a learner's own words
_DESCRIPTION = "Learn what normalization does: predict, run, see, explain, check."


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of `scripts/learn.py` and `normlab-learn`."""
    with report_user_errors():
        arguments = list(sys.argv[1:] if argv is None else argv)
        _check_command(arguments)
        options = _build_parser().parse_args(arguments)
        run_command = _COMMANDS.get(options.command, _show_path)
        run_command(Writer(), options)


def _check_command(arguments: Sequence[str]) -> None:
    """Refuse a first word that is not a command, with the nearest."""
    if not arguments:
        return
    first = arguments[0]
    if first not in (*_COMMANDS, "-h", "--help"):
        raise ConfigError(
            f"{excerpt(first)} is not a command of normlab-learn; "
            f"{suggest_closest(first, _COMMANDS)}there are {', '.join(_COMMANDS)}."
        )


def _build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="normlab-learn",
        description=_DESCRIPTION,
        epilog="Without a command it shows the path and what you have done of it. Your progress is "
        f"in {progress_path()}.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=CommandParser)

    def add_command(name: str, help_: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help_, description=help_)

    lesson = add_command("lesson", "show a lesson, 1 to 6: first its questions")
    lesson.add_argument("number", help="1 to 6")
    lesson.add_argument("--results", action="store_true", help="show what follows the questions")
    predict = add_command("predict", "guess a result, run the study, see how good the guess is")
    predict.add_argument("id", nargs="?", help="default: the next one that you have not done")
    predict.add_argument("--guess", metavar="X", help="your number; default: it is asked for")
    quiz = add_command("quiz", "answer the questions of a lesson, or of all")
    quiz.add_argument("lesson", nargs="?", help="1 to 6; default: all")
    mode = quiz.add_mutually_exclusive_group()
    mode.add_argument(
        "--answers", metavar="A,B,…", help="an answer a question, - to leave one out; for scripts"
    )
    mode.add_argument(
        "--restart",
        action="store_true",
        help="begin at question 1; default: ask those that you have not answered right",
    )
    start = add_command("start", "copy the skeleton of an exercise to outputs/learn")
    start.add_argument("name", help="of the exercise")
    check = add_command("check", "measure your solution of an exercise")
    check.add_argument("file", type=Path, help="outputs/learn/NAME.py")
    check.add_argument("--exercise", metavar="NAME", help="default: the name of the file")
    check.add_argument("--seconds", type=float, help="time limit; default: that of the exercise")
    hint = add_command("hint", "show a further hint for an exercise")
    hint.add_argument("name", help="of the exercise")
    done = add_command("done", "show the nine boxes, each ticked by something that was measured")
    done.add_argument("--answer", nargs=2, metavar=("BOX", "TEXT"), help="store your own words")
    add_command("reset", "rename your progress and start over; your files stay")
    return parser


def _show_path(writer: Writer, options: argparse.Namespace) -> None:
    from normlab.apps.learn.path import print_path

    _note_missing_progress(writer)
    progress = read_progress()
    print_path(writer, progress, read_questions(), read_predictions())


def _note_missing_progress(writer: Writer) -> None:
    """Say where progress was looked for: in another folder there is none."""
    if not progress_path().exists():
        writer.print_text(
            f"There is no {progress_path().absolute()}: nothing is done yet in this folder. "
            f"Progress is stored in the folder where normlab-learn is started."
        )


def _show_lesson(writer: Writer, options: argparse.Namespace) -> None:
    from normlab.apps.learn.path import print_lesson

    lesson = read_lesson(_parse_lesson(options.number))
    print_lesson(writer, lesson, with_results=options.results)
    day = date.today().isoformat()

    def change(progress: Progress) -> None:
        # The day of the first time stays.
        progress.lessons.setdefault(str(lesson.number), day)

    update_progress(change)


def _parse_lesson(text: str) -> int:
    if text not in map(str, LESSONS):
        raise ConfigError(
            f"{excerpt(text)} is not a lesson; give a number from {LESSONS[0]} to {LESSONS[-1]}."
        )
    return int(text)


def _make_prediction(writer: Writer, options: argparse.Namespace) -> None:
    prediction = find_prediction(options.id) if options.id else _next_prediction()
    try:
        _guess_and_measure(writer, prediction, options.guess)
    except KeyboardInterrupt as stop:
        entry = read_progress().predictions.get(prediction.id)
        stored = "no guess is stored yet"
        if entry is not None:
            stored = f"your guess, {entry.guess:g}, is stored"
        writer.print_text(
            f"\nStopped, and nothing is lost: {stored}; `normlab-learn predict {prediction.id}` "
            f"asks for a guess and runs the rest of the study."
        )
        sys.exit(stopping.exit_code(stop))


def _guess_and_measure(writer: Writer, prediction: Prediction, text: str | None) -> None:
    """Ask for the guess, unless `text` is one; store it, run the study, and print the score."""
    from normlab.apps.learn.prediction import (
        run_prediction,
        store_guess,
        store_measurement,
        study_arguments,
    )

    writer.print_text(f"{prediction.id}\n{prediction.question}")
    guess = _read_guess(writer, prediction, text)
    if store_guess(prediction, guess):
        note = (
            f"Your guess, {guess:g}, is stored. Now the study runs, about "
            f"{prediction.seconds:.0f} s on two cores:"
        )
    else:
        note = (
            "You have seen this result before: your guess from then counts, and the new one is not "
            "stored. Runs that have ended are not trained again:"
        )
    command = " ".join(["python train.py", *study_arguments(prediction)])
    writer.print_text(f"\n{note}\n{command}\n")
    measurement = run_prediction(prediction)
    entry = store_measurement(prediction, measurement, guess)
    writer.print_text(f"\nmeasured  {measurement.sentence}")
    score = measurement.score_guess(entry.guess)
    verdict = f"{'right' if score.right else 'not right'}: {score.reason}"
    writer.print_text(f"guess     {entry.guess:g} is {verdict}")
    writer.print_text(f"\n{prediction.explanation}")


def _next_prediction() -> Prediction:
    """The first prediction that has no result, or the first of all."""
    predictions = read_predictions()
    if not predictions:
        raise NormlabError("there are no predictions; restore docs/learn/predictions.yaml.")
    progress = read_progress()
    open_ = (item for item in predictions if not is_measured(progress, item))
    return next(open_, predictions[0])


def _read_guess(writer: Writer, prediction: Prediction, text: str | None) -> float:
    """The guess of the command line, or the one that is typed."""
    from normlab.apps.learn.prediction import parse_guess
    from normlab.apps.learn.quiz import read_line

    if text is not None:
        return parse_guess(prediction, text)
    while True:
        line = read_line("your guess: ")
        if line is None:
            raise ConfigError("there is no guess; type a number, or give it with --guess X.")
        try:
            return parse_guess(prediction, line)
        except ConfigError as error:
            writer.print_text(str(error))


def _take_quiz(writer: Writer, options: argparse.Namespace) -> None:
    from normlab.apps.learn.completion import quiz_score
    from normlab.apps.learn.quiz import describe_next, grade_answers

    lesson = None if options.lesson is None else _parse_lesson(options.lesson)
    questions = read_questions(lesson)
    if not questions:
        raise NormlabError(f"lesson {lesson} has no questions; take another lesson's quiz.")
    command = "normlab-learn quiz" + (f" {lesson}" if lesson else "")
    if options.answers is not None:
        right, count = grade_answers(writer, questions, options.answers)
        writer.print_text(f"\n{right} of {count} right.")
    else:
        _ask_open_questions(writer, questions, command, options.restart)
    progress = read_progress()
    total_right, total = quiz_score(progress, questions)
    writer.print_text(
        f"Stored: {total_right} of {total} answered correctly so far; "
        f"{describe_next(questions, progress, command)}."
    )


def _ask_open_questions(
    writer: Writer, questions: Sequence[Question], command: str, restart: bool
) -> None:
    """Ask what was not answered right yet, or everything where the quiz is started over."""
    from normlab.apps.learn.quiz import ask_questions, describe_next, right_ids

    # A damaged file is reported before anything is answered.
    done = set() if restart else right_ids(read_progress()) & {item.id for item in questions}
    if len(done) == len(questions):
        return
    if done:
        writer.print_text(
            f"{len(done)} of {len(questions)} questions are answered right and are not asked "
            f"again; `{command} --restart` asks all."
        )
    try:
        right, count = ask_questions(writer, questions, done)
    except KeyboardInterrupt as stop:
        writer.print_text(
            f"\nStopped, and nothing is lost: your answers are stored; "
            f"{describe_next(questions, read_progress(), command)}."
        )
        sys.exit(stopping.exit_code(stop))
    writer.print_text(f"\n{right} of {count} right at the first try.")


def _start_exercise(writer: Writer, options: argparse.Namespace) -> None:
    exercise = find_exercise(options.name)
    path = LEARN_FOLDER / exercise.file_name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = exercise.skeleton.read_text(encoding="utf-8")
        # x: a file of the learner's is never overwritten, not even by a second call at once.
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(
            f"{path} exists, and is not overwritten; edit it, or rename it to begin again."
        ) from None
    except OSError as error:
        raise NormlabError(
            f"{path} cannot be written ({error.strerror or error}); work in a folder that can be "
            f"written."
        ) from error
    writer.print_text(f"wrote {path}: {exercise.title}")
    writer.print_text(f"Edit it, then: normlab-learn check {path}")


def _check_solution(writer: Writer, options: argparse.Namespace) -> None:
    from normlab.apps.learn.checker import check_file, refuse_other_file

    exercise, path = _find_solution(options)
    if options.seconds is not None and not 0 < options.seconds < float("inf"):
        raise ConfigError(
            f"--seconds {options.seconds} is not allowed; it must be more than 0, and finite."
        )
    refuse_other_file(path, exercise)
    read_progress()  # a damaged file is reported before the check takes its time
    limit = exercise.seconds if options.seconds is None else options.seconds
    writer.print_text(f"measuring {path}, for at most {limit:g} s")
    # Into a pipe too, the line comes before the check, which may take minutes.
    sys.stdout.flush()
    verdict = check_file(path, exercise, limit)

    def change(progress: Progress) -> None:
        entry = progress.exercise(exercise.name)
        entry.checks += 1
        # A solution that is changed afterwards takes nothing away.
        entry.passed = entry.passed or verdict.passed

    update_progress(change)
    if verdict.printed.strip():
        writer.print_text(f"Your file printed:\n{verdict.printed.rstrip()}\n")
    if verdict.passed:
        writer.print_text(f"{exercise.name}: right. Done: {exercise.title}.")
        return
    writer.print_text(f"{exercise.name}: not right yet: {verdict.sentence}")
    writer.print_text(f"normlab-learn hint {exercise.name} shows a hint.")
    sys.exit(1)


def _find_solution(options: argparse.Namespace) -> tuple[Exercise, Path]:
    """The exercise and the file; `check rmsnorm` means the learner's file of that exercise."""
    if options.exercise is not None:
        return find_exercise(options.exercise), options.file
    if options.file.exists() or options.file.suffix:
        return exercise_of_file(options.file), options.file
    exercise = find_exercise(str(options.file))
    return exercise, LEARN_FOLDER / exercise.file_name


def _show_hint(writer: Writer, options: argparse.Namespace) -> None:
    exercise = find_exercise(options.name)
    count = len(exercise.hints)

    def change(progress: Progress) -> None:
        entry = progress.exercise(exercise.name)
        entry.hints = min(entry.hints + 1, count)

    shown = update_progress(change).exercise(exercise.name).hints
    writer.print_text(f"Hint {shown} of {count}: {exercise.hints[shown - 1]}")
    if shown == count:
        writer.print_text("That is the last hint. docs/learn/solutions/ has a solution.")


def _show_boxes(writer: Writer, options: argparse.Namespace) -> None:
    from normlab.apps.learn.path import print_boxes

    if options.answer is not None:
        _store_answer(*options.answer)
    _note_missing_progress(writer)
    progress = read_progress()
    print_boxes(writer, progress, read_questions(), read_predictions())


def _store_answer(box: str, text: str) -> None:
    numbers = [str(item.number) for item in BOXES]
    if box not in numbers:
        raise ConfigError(
            f"{excerpt(box)} is not a box; give a number from {numbers[0]} to {numbers[-1]}."
        )
    if not text.strip() or len(text) > _LONGEST_ANSWER:
        raise ConfigError(
            f"the text of box {box} has {len(text.strip())} characters; write 1 to "
            f"{_LONGEST_ANSWER}."
        )

    def change(progress: Progress) -> None:
        progress.answers[box] = text.strip()

    update_progress(change)


def _reset_progress(writer: Writer, options: argparse.Namespace) -> None:
    backup = reset_progress()
    if backup is None:
        writer.print_text(f"There is no {progress_path()}: nothing has been done yet.")
    else:
        writer.print_text(
            f"Your progress is now {backup}, and the path starts over. Files of exercises stay.",
        )


_COMMANDS: dict[str, Callable[[Writer, argparse.Namespace], None]] = {
    "lesson": _show_lesson,
    "predict": _make_prediction,
    "quiz": _take_quiz,
    "start": _start_exercise,
    "check": _check_solution,
    "hint": _show_hint,
    "done": _show_boxes,
    "reset": _reset_progress,
}
