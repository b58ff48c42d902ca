"""The path in the terminal: lessons with their progress, a lesson's Markdown, the nine boxes.

Lines are short and wrapped by rich, so that they can be read at 40 columns; marks are ASCII.
"""

import re
from collections.abc import Sequence
from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Markdown, TableElement
from rich.table import Table
from rich.text import Text

from normlab.apps.learn.completion import BOXES, is_measured, quiz_score, ticked_boxes
from normlab.apps.learn.content import (
    LESSONS,
    Lesson,
    Prediction,
    Question,
    read_lesson,
    repository_path,
)
from normlab.apps.learn.exercises import EXERCISES
from normlab.apps.learn.progress import LEARN_FOLDER, Progress
from normlab.apps.learn.writer import Writer, fit_encoding

_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
# A link to a file, and no call of an element in code, such as norms[0](x).
_LINK = re.compile(r"(?<![\w)\]])\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")
_HTML_TAG = re.compile(r"</?(?:sub|sup|br|details|summary|p|img)\b[^>]*>")


class FoldedTable(TableElement):
    """A table in which a word that is too long for its column goes on in the next line."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, with columns that fold."""
        for part in super().__rich_console__(console, options):
            if isinstance(part, Table):
                for column in part.columns:
                    # rich ends such a word with … by default, and the rest of a formula is lost.
                    column.overflow = "fold"
            yield part


class WholeCode(CodeBlock):
    """A block of code whose lines are not broken, so that it can be copied from the terminal."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The code as it is."""
        yield Text(str(self.text).rstrip(), no_wrap=True, overflow="ignore")


class LessonMarkdown(Markdown):
    """Markdown with such tables and such code."""

    elements: ClassVar = {
        **Markdown.elements,
        "table_open": FoldedTable,
        "fence": WholeCode,
        "code_block": WholeCode,
    }


def print_path(
    writer: Writer,
    progress: Progress,
    questions: Sequence[Question],
    predictions: Sequence[Prediction],
) -> None:
    """Every lesson with its minutes, predictions, quiz and exercises; then the boxes."""
    writer.print_text("Six lessons on normalization. Each: predict, run, see, explain, check.\n")
    for number in LESSONS:
        lesson = read_lesson(number)
        measured = {
            prediction.id: is_measured(progress, prediction)
            for prediction in predictions
            if prediction.lesson == number
        }
        right, total = quiz_score(progress, questions, number)
        is_opened = str(number) in progress.lessons
        is_done = is_opened and right == total and all(measured.values())
        opened = ", opened" if is_opened and not is_done else ""
        writer.print_text(
            f"{format_tick(is_done)} Lesson {number}: {lesson.title}, about {lesson.minutes} min"
            f"{opened}",
            "    ",
        )
        for id_, done in measured.items():
            writer.print_text(f"    {format_tick(done)} predict {id_}", "        ")
        if total:
            writer.print_text(
                f"    {format_tick(right == total)} quiz {number}: {right} of {total} right",
                "        ",
            )
        for exercise in EXERCISES.values():
            if exercise.lesson == number:
                stored = progress.exercises.get(exercise.name)
                done = stored is not None and stored.passed
                writer.print_text(f"    {format_tick(done)} exercise {exercise.name}", "        ")
    ticked = sum(ticked_boxes(progress, questions, predictions))
    writer.print_text(
        f"\n{ticked} of {len(BOXES)} boxes are ticked (normlab-learn done). Next: "
        f"{suggest_next(progress, questions, predictions)}",
    )


def suggest_next(
    progress: Progress, questions: Sequence[Question], predictions: Sequence[Prediction]
) -> str:
    """The command that continues the path."""
    for number in LESSONS:
        if str(number) not in progress.lessons:
            return f"normlab-learn lesson {number}"
        for prediction in predictions:
            if prediction.lesson == number and not is_measured(progress, prediction):
                return f"normlab-learn predict {prediction.id}"
        right, total = quiz_score(progress, questions, number)
        if right < total:
            return f"normlab-learn quiz {number}"
        for exercise in EXERCISES.values():
            stored = progress.exercises.get(exercise.name)
            if exercise.lesson == number and not (stored and stored.passed):
                path = LEARN_FOLDER / exercise.file_name
                command = f"check {path}" if path.exists() else f"start {exercise.name}"
                return f"normlab-learn {command}"
    return "normlab-learn done"


def format_tick(done: bool) -> str:
    """`[x]` or `[ ]`."""
    return "[x]" if done else "[ ]"


def print_lesson(writer: Writer, lesson: Lesson, *, with_results: bool) -> None:
    """The Markdown of a lesson up to its questions, or from there, wrapped at the terminal's width.

    A learner who sees the results beside the questions predicts nothing.
    """
    text = lesson.results if with_results else lesson.questions
    # A terminal that shows links hides their targets, which are files here.
    block = LessonMarkdown(fit_encoding(readable_markdown(text)), hyperlinks=False)
    writer.print_block(block)
    if lesson.results and not with_results:
        writer.print_text(f"\nThen: normlab-learn lesson {lesson.number} --results")


def readable_markdown(text: str) -> str:
    """Markdown for a terminal: figures as text, paths from the repository's top, no HTML tags."""
    # Before links: an image is a link with a mark before it.
    text = _IMAGE.sub(lambda image: f"Figure: {image[1]} ({repository_path(image[2])})", text)
    text = _LINK.sub(lambda link: f"[{link[1]}]({repository_path(link[2])})", text)
    return _HTML_TAG.sub("", text)


def print_boxes(
    writer: Writer,
    progress: Progress,
    questions: Sequence[Question],
    predictions: Sequence[Prediction],
) -> None:
    """The nine boxes, what ticks each, and the learner's own words."""
    ticked = ticked_boxes(progress, questions, predictions)
    group = ""
    for box, done in zip(BOXES, ticked, strict=True):
        if box.group != group:
            group = box.group
            writer.print_text(f"\n{group}")
        writer.print_text(f"{format_tick(done)} {box.number}. {box.ability}", "       ")
        if not done:
            writer.print_text(f"       by: {box.requirement}", "       ")
        answer = progress.answers.get(str(box.number))
        if answer:
            writer.print_text(f"       your words: {answer}", "       ")
    writer.print_text(f"\n{sum(ticked)} of {len(BOXES)} boxes are ticked.")
