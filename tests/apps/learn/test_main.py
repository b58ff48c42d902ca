"""The command: the path, lessons, starting, hints, boxes; narrow terminals; nonsense."""

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from command_calls import ROOT, Call, read_refusal
from normlab.apps.learn.completion import BOXES, ticked_boxes
from normlab.apps.learn.content import read_predictions, read_questions
from normlab.apps.learn.exercises import EXERCISES
from normlab.apps.learn.main import main
from normlab.apps.learn.path import readable_markdown
from normlab.apps.learn.progress import (
    PredictionProgress,
    Progress,
    QuestionProgress,
    read_progress,
    update_progress,
)

FOLDER = Path("outputs/learn")
PARTS = (
    *("lesson", "predict", "quiz", "start", "check", "hint", "done", "reset"),
    *(f"start {name}" for name in EXERCISES),
)


def answer_all(lessons: tuple[int, ...], progress: Progress) -> None:
    for question in read_questions():
        if question.lesson in lessons:
            progress.questions[question.id] = QuestionProgress(right=True, tries=1)


# --- The path and the lessons -------------------------------------------------------------------


def test_the_path_shows_lessons_minutes_and_what_is_done(learn: Call) -> None:
    code, out, err = learn()
    assert (code, err) == (0, "")
    assert "[ ] Lesson 1: Title 1, about 3 min" in out
    assert "[ ] Lesson 3: Title 3, about 3 min" in out
    assert "    [ ] predict none-against-rmsnorm" in out
    assert "    [ ] quiz 1: 0 of 2 right" in out
    assert all(f"[ ] exercise {name}" in out for name in EXERCISES)
    assert f"There is no {Path.cwd()}/outputs/learn/progress.yaml" in out
    assert "0 of 9 boxes are ticked (normlab-learn done). Next: normlab-learn lesson 1" in out
    assert not Path("outputs").exists()  # looking writes nothing


def test_what_comes_next_follows_what_is_done(learn: Call) -> None:
    steps = []
    for change in (
        lambda p: p.lessons.update({"1": "2026-11-26"}),
        lambda p: p.predictions.update(
            {"none-against-rmsnorm": PredictionProgress(1.0, 1.0, 0.0, 2.0, True)}
        ),
        lambda p: answer_all((1,), p),
        lambda p: setattr(p.exercise("nan_at_step_100"), "passed", True),
    ):
        update_progress(change)
        steps.append(learn()[1].rstrip().splitlines()[-1].partition("Next: ")[2])
    assert steps == [
        "normlab-learn predict none-against-rmsnorm",
        "normlab-learn quiz 1",
        "normlab-learn start nan_at_step_100",
        "normlab-learn lesson 2",
    ]
    learn("start", "rmsnorm")
    update_progress(lambda p: p.lessons.update({"2": "2026-11-26"}))
    update_progress(lambda p: answer_all((2,), p))
    update_progress(
        lambda p: p.predictions.update({"how-many-diverge": PredictionProgress(0, 0, 0, 0, True)})
    )
    assert learn()[1].rstrip().endswith("Next: normlab-learn check outputs/learn/rmsnorm.py")


def test_a_lesson_is_ticked_when_its_predictions_and_quiz_are_done(learn: Call) -> None:
    measured = PredictionProgress(1.0, 1.0, 0.0, 2.0, True)
    shown = []
    for change in (
        lambda p: p.lessons.update({"1": "2026-11-26"}),
        lambda p: p.predictions.update({"none-against-rmsnorm": measured}),
        lambda p: answer_all((1,), p),
    ):
        update_progress(change)
        out = learn()[1]
        assert "There is no" not in out
        shown.append(next(line for line in out.splitlines() if "Lesson 1" in line))
    opened = "[ ] Lesson 1: Title 1, about 3 min, opened"
    assert shown == [opened, opened, "[x] Lesson 1: Title 1, about 3 min"]


def test_links_of_a_lesson_are_paths_from_the_repositorys_top() -> None:
    text = (
        "[a](figures/post.svg), ([models\nof today](models_of_today.md)) [c](../claims.md#x) "
        "[web](https://a.b/c) [here](#top) `norms[0](x)`"
    )
    assert readable_markdown(text) == (
        "[a](docs/learn/figures/post.svg), ([models\nof today](docs/learn/models_of_today.md)) "
        "[c](docs/claims.md#x) [web](https://a.b/c) [here](#top) `norms[0](x)`"
    )


def test_no_cell_of_a_table_is_cut_in_a_narrow_terminal(
    learn: Call, learn_content: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    formula = "feedforward(N(x))"
    (learn_content / "lesson1.md").write_text(
        f"# Lesson 1: T\n\n| placement | formula | used |\n|---|---|---|\n"
        f"| parallel | {formula} | GPT-NeoX; with a final norm, {formula} |\n"
    )
    monkeypatch.setenv("COLUMNS", "40")
    out = learn("lesson", "1")[1]
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= 40


def test_a_lesson_is_shown_and_noted_with_its_day(learn: Call) -> None:
    code, out, _ = learn("lesson", "1")
    assert code == 0
    assert "Lesson 1: Title 1" in out
    assert "Figure: A curve (docs/figures/curve.png)" in out
    assert "![" not in out
    assert read_progress().lessons == {"1": date.today().isoformat()}


def test_the_results_of_a_lesson_are_shown_when_they_are_asked_for(learn: Call) -> None:
    questions = learn("lesson", "1")[1]
    assert questions.endswith("Then: normlab-learn lesson 1 --results\n")
    assert "small print" not in questions
    results = learn("lesson", "1", "--results")[1]
    assert "small print" in results
    assert "<sub>" not in results
    assert "guess" not in results


def test_code_is_not_broken_in_a_narrow_terminal(
    learn: Call, learn_content: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "x = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 20.0])  # one token"
    (learn_content / "lesson1.md").write_text(f"# Lesson 1: T\n\n```python\n{line}\n```\n")
    monkeypatch.setenv("COLUMNS", "40")
    assert line in learn("lesson", "1")[1].splitlines()


def test_a_lesson_that_is_missing_is_a_sentence_and_not_noted(
    learn: Call, learn_content: Path
) -> None:
    (learn_content / "lesson4.md").unlink()
    code, _, err = learn("lesson", "4")
    assert code == 1
    assert "lesson4.md is missing; restore it" in err
    assert read_progress().lessons == {}


# --- Exercises ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXERCISES)
def test_start_copies_the_skeleton_and_never_writes_over_a_file(name: str, learn: Call) -> None:
    exercise = EXERCISES[name]
    path = FOLDER / exercise.file_name
    assert learn("start", name)[0] == 0
    assert path.read_text() == exercise.skeleton.read_text()
    assert f"normlab-learn check outputs/learn/{exercise.file_name}" in path.read_text()
    path.write_text("mine")
    code, _, err = learn("start", name)
    assert code == 2
    assert "is not overwritten" in err
    assert path.read_text() == "mine"


def test_start_does_not_write_through_a_link(learn: Call, tmp_path: Path) -> None:
    FOLDER.mkdir(parents=True)
    target = tmp_path / "elsewhere.py"
    (FOLDER / "rmsnorm.py").symlink_to(target)
    assert learn("start", "rmsnorm")[0] == 2
    assert not target.exists()


def test_each_hint_says_more_until_the_last(learn: Call) -> None:
    hints = EXERCISES["scalenorm"].hints
    for number, hint in enumerate((*hints, hints[-1]), 1):
        out = learn("hint", "scalenorm")[1]
        assert f"Hint {min(number, len(hints))} of {len(hints)}: {hint}" in out
        assert ("That is the last hint" in out) is (number >= len(hints))


def test_every_exercise_has_hints_and_a_solution() -> None:
    for exercise in EXERCISES.values():
        assert len(exercise.hints) >= 3
        assert (ROOT / "docs/learn/solutions" / exercise.file_name).is_file()
    page = (ROOT / "docs/learn/exercises.md").read_text()
    for exercise in EXERCISES.values():
        assert f"| `{exercise.name}` | {exercise.lesson} | " in page


# --- The nine boxes -----------------------------------------------------------------------------


def test_nothing_is_ticked_at_the_start_and_every_box_says_what_ticks_it(learn: Call) -> None:
    code, out, _ = learn("done")
    assert code == 0
    assert "[x]" not in out
    assert out.count("by: ") == len(BOXES) == 9
    for question, number in (("analogy", 3), ("why-modern-models", 6)):
        assert f"the question {question} (normlab-learn quiz {number}), and" in " ".join(
            out.split()
        )
    assert "quiz of lesson 1: 80% right (normlab-learn quiz 1)" in out
    assert "quizzes of lessons 4, 5, 6: 80% right in each (normlab-learn quiz N)" in out
    assert "0 of 9 boxes are ticked." in out


@pytest.mark.parametrize(
    ("name", "box"), [("formula", 2), ("rmsnorm", 4), ("preln_block", 5), ("nan_at_step_100", 6)]
)
def test_an_exercise_that_passed_ticks_its_box_alone(
    name: str, box: int, learn_content: Path
) -> None:
    progress = Progress()
    progress.exercise(name).checks = 3
    ticked = ticked_boxes(progress, read_questions(), read_predictions())
    assert not any(ticked)
    progress.exercise(name).passed = True
    ticked = ticked_boxes(progress, read_questions(), read_predictions())
    assert [number for number, done in enumerate(ticked, 1) if done] == [box]


def test_a_quiz_ticks_its_box_from_80_percent_on(learn_content: Path) -> None:
    progress = Progress()
    answer_all((1,), progress)
    questions = read_questions()
    assert ticked_boxes(progress, questions, [])[0]
    progress.questions["what-vanishes"].right = False
    assert not ticked_boxes(progress, questions, [])[0]
    # A lesson without questions ticks nothing.
    assert not any(ticked_boxes(Progress(), [], []))


def test_a_box_that_names_a_question_needs_it(learn_content: Path) -> None:
    path = learn_content / "quiz.yaml"
    path.write_text(
        path.read_text()
        .replace("id: output-rms\n  lesson: 2", "id: output-rms\n  lesson: 3")
        .replace("what-vanishes", "analogy")
    )
    questions = read_questions()
    progress = Progress()
    answer_all((1, 2, 3), progress)
    assert ticked_boxes(progress, questions, [])[6]
    del progress.questions["analogy"]
    assert not ticked_boxes(progress, questions, [])[6]


def test_a_prediction_about_no_norm_ticks_its_box_when_right_or_understood(
    learn_content: Path,
) -> None:
    predictions = read_predictions()
    for measured, right, understood, ticked in (
        (None, None, True, False),
        (2.0, False, False, False),
        (2.0, False, True, True),
        (2.0, True, False, True),
    ):
        progress = Progress()
        progress.predictions["none-against-rmsnorm"] = PredictionProgress(
            1.0, measured=measured, right=right
        )
        progress.question("no-norm-and-a-small-rate").right = understood
        assert ticked_boxes(progress, [], predictions)[7] is ticked
    progress = Progress()
    progress.predictions["another"] = PredictionProgress(1.0, right=True)
    assert not ticked_boxes(progress, [], predictions)[7]


def test_words_of_the_learners_own_are_stored_and_tick_nothing(learn: Call) -> None:
    code, out, _ = learn("done", "--answer", "7", "Wie ein Druckregler: [b]50 %[/b]")
    assert code == 0
    assert "your words: Wie ein Druckregler: [b]50 %[/b]" in out
    assert "[ ] 7." in out
    for box, text in (("0", "x"), ("10", "x"), ("x", "x"), ("1", " "), ("1", "x" * 2001)):
        assert learn("done", "--answer", box, text)[0] == 2
    assert read_progress().answers == {"7": "Wie ein Druckregler: [b]50 %[/b]"}


# --- Terminals and nonsense ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("quizz",), "did you mean quiz?"),
        (("",), "is not a command"),
        (("start",), "required: name"),
        (("start", "rmsnom"), "did you mean rmsnorm?"),
        (("hint", "layernorms"), "did you mean layernorm?"),
        (("lesson",), "required: number"),
        (("--wrong",), "is not a command"),
        (("done", "--answer", "1"), "expected 2 arguments"),
        (("check", "--excercise", "x"), "did you mean --exercise?"),
        (("quiz", "1", "2"), "unrecognized arguments"),
    ],
)
def test_nonsense_is_answered_with_one_sentence(
    arguments: tuple[str, ...], word: str, learn: Call
) -> None:
    code, out, err = learn(*arguments)
    assert (code, out) == (2, "")
    assert word in err
    assert err.count("\n") == 1


def test_a_refusal_needs_no_torch() -> None:
    assert "did you mean reset?" in read_refusal("scripts/learn.py", "rest", "torch", "hydra")


@pytest.mark.parametrize(
    "arguments",
    [(), ("done",), ("lesson", "1"), ("hint", "rmsnorm"), ("quiz", "1", "--answers", "17,1")],
)
def test_it_can_be_read_at_40_columns_without_colour_in_ascii(
    arguments: tuple[str, ...], learn_content: Path, tmp_path: Path
) -> None:
    code = (
        "from pathlib import Path; from normlab.apps.learn import content, main; "
        "from normlab import output; output.secure_streams(); "
        f"content.content_folder = lambda: Path({str(learn_content)!r}); main.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "40", "PYTHONIOENCODING": "ascii", "TERM": "dumb"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode("ascii").splitlines()
    assert lines
    assert not any("\x1b" in line for line in lines)
    assert max(map(len, lines)) <= 40
    if arguments == ("hint", "rmsnorm"):
        assert "the mean of x^2" in " ".join(lines)
        assert "?" not in "".join(lines)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    for command in ("lesson", "predict", "quiz", "start", "check", "hint", "done", "reset"):
        assert f"    {command}" in out
