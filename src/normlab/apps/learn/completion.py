"""The nine boxes at the end of the path, each ticked by something that was measured.

An explanation in the learner's own words can be stored beside a box; what ticks it is a quiz, an
exercise or a prediction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from normlab.apps.learn.content import Prediction, Question
from normlab.apps.learn.progress import Progress

# Of a lesson's questions, the part that must have been answered correctly.
PASSING_SHARE = 0.8
# Questions of the quiz that a box names.
ANALOGY_QUESTION, MODELS_QUESTION = "analogy", "why-modern-models"
NO_NORM_QUESTION = "no-norm-and-a-small-rate"


@dataclass(frozen=True)
class Box:
    """A box: what the learner can do, and by which measurement it is ticked.

    Attributes:
        requirement: a sentence for the learner.
        is_met: whether the progress meets it, given all questions and predictions.
    """

    number: int
    group: str
    ability: str
    requirement: str
    is_met: Callable[[Progress, Sequence[Question], Sequence[Prediction]], bool]


def quiz_score(
    progress: Progress, questions: Sequence[Question], lesson: int | None = None
) -> tuple[int, int]:
    """How many questions of a lesson, or of all, were answered correctly, and of how many."""
    ids = [question.id for question in questions if lesson in (None, question.lesson)]
    right = sum(progress.questions[id_].right for id_ in ids if id_ in progress.questions)
    return right, len(ids)


def is_measured(progress: Progress, prediction: Prediction) -> bool:
    """Whether the study of a prediction has ended."""
    entry = progress.predictions.get(prediction.id)
    return entry is not None and entry.measured is not None


def _quiz_box(
    number: int,
    group: str,
    ability: str,
    *lessons: int,
    question: str = "",
    question_lesson: int = 0,
) -> Box:
    """A box that quizzes tick, and a question that must be among what was answered correctly."""

    def is_met(progress: Progress, questions: Sequence[Question], _: Sequence[Prediction]) -> bool:
        answered = progress.questions.get(question)
        is_answered = not question or (answered is not None and answered.right)
        scores = [quiz_score(progress, questions, lesson) for lesson in lessons]
        # Where quiz.yaml cannot be used there are no questions: 0 of 0 right passes nothing.
        passed = all(total and right >= PASSING_SHARE * total for right, total in scores)
        return is_answered and passed

    named = ", ".join(map(str, lessons))
    quizzes = (
        f"quizzes of lessons {named}: {PASSING_SHARE:.0%} right in each"
        if len(lessons) > 1
        else f"quiz of lesson {named}: {PASSING_SHARE:.0%} right"
    )
    also = (
        f"the question {question} (normlab-learn quiz {question_lesson}), and " if question else ""
    )
    return Box(
        number,
        group,
        ability,
        f"{also}{quizzes} (normlab-learn quiz {'N' if len(lessons) > 1 else named})",
        is_met,
    )


def _exercise_box(number: int, group: str, ability: str, name: str) -> Box:
    def is_met(progress: Progress, _: Sequence[Question], __: Sequence[Prediction]) -> bool:
        return name in progress.exercises and progress.exercises[name].passed

    return Box(
        number, group, ability, f"exercise {name} passed (normlab-learn start {name})", is_met
    )


def _has_predicted_no_norm(
    progress: Progress, _: Sequence[Question], predictions: Sequence[Prediction]
) -> bool:
    """Whether a prediction about training without a norm was right, or made and then understood.

    Only the last guess before the first result counts, so a wrong one must not close the box for
    ever.
    """
    guesses = [
        progress.predictions[prediction.id]
        for prediction in predictions
        if prediction.id in progress.predictions and trains_without_norm(prediction)
    ]
    answered = progress.questions.get(NO_NORM_QUESTION)
    is_understood = answered is not None and answered.right
    return any(guess.right or (guess.measured is not None and is_understood) for guess in guesses)


def trains_without_norm(prediction: Prediction) -> bool:
    """Whether `norm=none` is among the arms of the study, or it is of an experiment that has it."""
    for override in prediction.command:
        key, _, value = override.partition("=")
        if key == "norm" and "none" in value.split(","):
            return True
    # An arm is written `none · pre` or `norm=none`; as a whole word, for simple_none is a norm.
    return any("none" in arm.replace("=", " ").split() for arm in prediction.arms)


BOXES: tuple[Box, ...] = (
    _quiz_box(1, "Theory", "say in your own words why gradients vanish", 1),
    _exercise_box(2, "Theory", "state the formula of RMSNorm", "formula"),
    _quiz_box(3, "Theory", "say why Pre-LN is used rather than Post-LN", 4),
    _exercise_box(4, "Practice", "write RMSNorm from scratch", "rmsnorm"),
    _exercise_box(5, "Practice", "draw the flow of a Pre-LN block", "preln_block"),
    _exercise_box(
        6,
        "Practice",
        "find and correct a training problem that has to do with norms",
        "nan_at_step_100",
    ),
    _quiz_box(
        7,
        "Intuition",
        "explain normalization by an analogy, and where it breaks",
        *(1, 2, 3),
        question=ANALOGY_QUESTION,
        question_lesson=3,
    ),
    Box(
        8,
        "Intuition",
        "predict what happens without a norm",
        f"a prediction about norm=none (normlab-learn predict); where it was not right, also the "
        f"question {NO_NORM_QUESTION} (normlab-learn quiz 4)",
        _has_predicted_no_norm,
    ),
    _quiz_box(
        9,
        "Intuition",
        "say why the language models of today take Pre-LN with RMSNorm",
        *(4, 5, 6),
        question=MODELS_QUESTION,
        question_lesson=6,
    ),
)


def ticked_boxes(
    progress: Progress, questions: Sequence[Question], predictions: Sequence[Prediction]
) -> list[bool]:
    """For each of the nine boxes, whether it is ticked."""
    return [box.is_met(progress, questions, predictions) for box in BOXES]
