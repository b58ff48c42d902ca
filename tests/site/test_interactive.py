"""The interactive page in a browser: keys, presets, quiz, widths, and no complaint."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import quiz_data
from browser import BROWSER, browse, run_script

pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium on the path")

LEARN = Path(__file__).resolve().parents[2] / "docs" / "learn"
QUIZ = Path(__file__).with_name("quiz.yaml")

READ_PAGE = """
const byId = (name) => document.getElementById(name);
const move = (name, value) => {
  byId(name).value = value;
  byId(name).dispatchEvent(new Event("input", { bubbles: true }));
};
const press = (selector) => document.querySelector(selector).click();
const cells = () => [...document.querySelectorAll("#norm-cards article:nth-child(2) tbody tr")]
  .map((row) => [...row.cells].slice(1).map((cell) => cell.textContent));
const answer = {};
answer.names = [...document.querySelectorAll("#norm-cards h3")].map((head) => head.textContent);
answer.ordinary = cells();
press('[data-preset="overflow"]');
answer.overflow = cells();
move("arithmetic", "wide");
answer.rescued = cells();
answer.unlabelled = [...document.querySelectorAll("input, select")]
  .filter((field) => field.labels.length === 0).length;
answer.pictures = [...document.querySelectorAll("svg")]
  .filter((picture) => !picture.getAttribute("aria-label")).length;
move("depth", 0);
press('input[value="post"]');
answer.facts = byId("stack-facts").textContent;
answer.dots = document.querySelectorAll("#stream-chart circle").length;
answer.model = findModel("post", 2, 0.08);
answer.nothing_missing = byId("stack-missing").textContent;
move("depth", 3);
answer.missing = byId("stack-missing").textContent;
answer.alone = document.querySelectorAll("#gradient-chart .alone").length;
answer.leaders = document.querySelectorAll("#gradient-chart .leader").length;
const quiz = [];
const give = (value) => {
  const field = byId("quiz-form").elements.answer;
  field.value = value;
  byId("quiz-form").requestSubmit();
  quiz.push(byId("quiz-answer").textContent);
};
byId("quiz-reset").click();
give("seventeen");
give("1,000");
give("16");
give("17");
byId("quiz-next").click();
byId("quiz-form").requestSubmit();
quiz.push(byId("quiz-answer").textContent);
give("1");
give("0");
answer.quiz = quiz;
answer.with_tolerance = describeNumber({ answer: 0.408, tolerance: 0.02, unit: "" });
const position = () => document.querySelector("#quiz-form legend").textContent.slice(0, 6);
const chooseLesson = (lesson) => {
  byId("quiz-lesson").value = lesson;
  byId("quiz-lesson").dispatchEvent(new Event("change"));
};
chooseLesson("4");
answer.positions = [position()];
chooseLesson("2");
answer.positions.push(position());
chooseLesson("all");
answer.positions.push(position());
answer.score = byId("quiz-score").textContent;
answer.figure = document.querySelector("#quiz-form img").getAttribute("src");
document.querySelectorAll("details").forEach((item) => { item.open = true; });
answer.widths = [document.documentElement.scrollWidth, window.innerWidth];
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the page with the quiz of these tests."""
    folder = tmp_path_factory.mktemp("interactive") / "learn"
    shutil.copytree(LEARN, folder)
    (folder / "interactive" / "quiz_data.js").write_text(quiz_data.quiz_script(QUIZ))
    return folder / "interactive.html"


@pytest.fixture(scope="module")
def phone(page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script above finds on a screen of 390 pixels."""
    return dict(run_script(page, READ_PAGE, 390, tmp_path_factory.mktemp("phone")))


def test_the_committed_page_loads_and_nothing_complains(tmp_path: Path) -> None:
    shown, complaints = browse(LEARN / "interactive.html", tmp_path / "browser")
    assert complaints == ""
    assert shown.count('class="card"') == 4


def test_presets_and_controls_change_the_numbers(phone: dict[str, Any]) -> None:
    assert phone["names"] == ["LayerNorm", "RMSNorm", "DyT", "L∞"]
    output, gradient = phone["ordinary"]
    assert output[:2] == ["0.6202", "−1.320"]  # 0.62 / 0.99966, the pattern's RMS
    assert gradient[0] == "0.9522"
    assert set(phone["overflow"][0]) <= {"0.000", "−0.000"}
    assert [abs(float(number.replace("−", "-"))) > 0.1 for number in phone["rescued"][0]] == [
        True
    ] * 8


def test_the_page_says_which_numbers_are_not_finite(phone: dict[str, Any]) -> None:
    assert phone["nothing_missing"] == ""
    assert phone["missing"] == (
        "Not finite in fp32 (infinite or NaN), and so not drawn: the gradient of No norm at "
        "blocks 1 to 15."
    )
    assert phone["alone"] == 1  # block 16 of the same line
    assert phone["leaders"] == 6


def test_every_control_has_a_label_and_every_chart_a_text(phone: dict[str, Any]) -> None:
    assert phone["unlabelled"] == 0
    assert phone["pictures"] == 0


def test_the_stack_shows_the_model_that_is_chosen(phone: dict[str, Any]) -> None:
    assert phone["dots"] == 2
    assert phone["facts"].startswith("Post-LN, 2 blocks, standard deviation 0.08: stream 1")
    assert phone["model"]["depth"] == 2


def test_the_quiz_judges_explains_and_counts(page: Path, phone: dict[str, Any]) -> None:
    no_number, thousands, wrong, right, no_choice, second_wrong, second_right = phone["quiz"]
    assert no_number == "Please type a number, for example 0.5."
    assert thousands == "Please write thousands without a comma, for example 1000."
    solution = (
        "The answer is exactly 17 (unit: norms). Two in each block, and final before the head."
    )
    assert wrong == f"Not right. {solution}"
    assert right == f"Right. {solution}"
    assert phone["with_tolerance"] == "The answer is 0.408 ± 0.02."
    assert no_choice == "Please choose an answer first."
    assert second_wrong == 'Not right. Both have a gain; a "</script>" in an answer must stay text.'
    assert second_right.startswith("Right.")
    assert phone["score"] == "2 right of 2 answered, 3 in all"
    assert (page.parent / phone["figure"]).is_file()


def test_the_quiz_goes_on_at_the_first_question_that_is_not_answered_right(
    page: Path, phone: dict[str, Any], tmp_path: Path
) -> None:
    assert phone["positions"] == ["2 of 2", "1 of 1", "3 of 3"]
    stored = '{"norms-in-eight-blocks":"17","what-rmsnorm-leaves-out":1}'
    script = (
        f"localStorage.setItem('normlab-quiz', '{stored}'); quizState.answers = loadAnswers();"
        "moveToOpenQuestion(); const answer = quizState.position"
    )
    assert run_script(page, script, 500, tmp_path) == 1


def test_it_fits_a_phone_and_a_desk(page: Path, phone: dict[str, Any], tmp_path: Path) -> None:
    answers = [(phone, 390)]
    answers += [(run_script(page, READ_PAGE, width, tmp_path), width) for width in (320, 1280)]
    for answer, width in answers:
        scroll, window = answer["widths"]
        assert window == width
        assert scroll <= window


def test_a_damaged_store_of_answers_starts_the_quiz_anew(page: Path, tmp_path: Path) -> None:
    damage = json.dumps('{"norms-in-eight-blocks": {"x": 1}, "which-block": 7')
    script = (
        f"localStorage.setItem('normlab-quiz', {damage});"
        "const answer = Object.keys(loadAnswers());"
        "localStorage.setItem('normlab-quiz', 'null');"
        "answer.push(Object.keys(loadAnswers()).length)"
    )
    assert run_script(page, script, 500, tmp_path) == [0]
