"""The pages of docs/learn print what they say, their commands exist, and no link leads nowhere."""

import re
import sys
from pathlib import Path

import pytest

from learn_content.learn_pages import (
    LEARN,
    ROOT,
    CodeBlock,
    compose_command,
    list_commands,
    list_pages,
    list_python_blocks,
    run_python,
    same_output,
)
from normlab.apps.learn.content import read_lesson

LESSONS = [LEARN / f"lesson{number}.md" for number in range(1, 7)]
NUMBER_WORDS = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve"),
]
SECTIONS = ["Predict", "Run", "See", "Explain", "Check"]
LEARN_COMMANDS = ("lesson", "predict", "quiz", "start", "check", "hint", "done")
EXERCISES = (
    *("rmsnorm", "layernorm", "layernorm_backward", "scalenorm", "fold_gain", "preln_block"),
    *("postln_block", "qk_norm", "deepnorm_init", "find_the_leak", "formula", "beat_rmsnorm"),
    "nan_at_step_100",
)
# Pages that other parts of the project make.
ELSEWHERE = ("code.md", "interactive.html", "figures")


@pytest.mark.parametrize("block", list_python_blocks(), ids=lambda block: block.name)
def test_every_snippet_prints_what_the_page_says(block: CodeBlock) -> None:
    printed = run_python(block.code)
    assert block.output is not None or not printed, printed
    assert block.output is None or same_output(printed, block.output), printed


def test_a_wrong_number_or_word_in_a_page_is_seen() -> None:
    assert same_output("std 0.3021", "std  0.302")
    assert not same_output("std 0.302", "std 0.990")
    assert not same_output("std 0.302", "RMS 0.302")
    assert not same_output("0 of 3", "3 of 3")


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.name)
def test_every_lesson_has_the_five_sections_in_order(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.match(rf"# Lesson {page.stem[-1]}: \w", text)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.name)
def test_a_lesson_is_read_in_ten_minutes(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert 400 <= len(prose.split()) <= 1500  # at 150 words a minute, for a second language


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.name)
def test_a_lesson_states_the_minutes_that_the_path_prints(page: Path) -> None:
    lesson = read_lesson(int(page.stem[-1]))
    (stated,) = re.findall(r"^Time: about (\w+) minutes to read", lesson.text, re.MULTILINE)
    path = (LEARN / "README.md").read_text(encoding="utf-8")
    assert NUMBER_WORDS.index(stated) == lesson.minutes
    assert f"]({page.name}) | {lesson.minutes} |" in path


@pytest.mark.parametrize(("page", "command"), list_commands())
def test_every_command_can_be_run(page: str, command: str) -> None:
    words = command.split()
    if words[0] == "normlab-learn":
        assert not words[1:] or words[1] in LEARN_COMMANDS, command
        assert words[1:2] not in (["start"], ["hint"]) or words[2] in EXERCISES, command
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), command
        composes = words[1] in ("train.py", "scripts/card.py", "scripts/probe.py")
        assert not composes or compose_command(command)
    else:
        assert words[0] in ("make", "tensorboard", ".", "source"), command


@pytest.mark.parametrize("page", list_pages(), ids=lambda page: page.name)
def test_every_link_leads_to_a_file_or_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://") or target.startswith(ELSEWHERE):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in heading_anchors(file), target


def heading_anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


def test_the_pages_do_not_leave_modules_behind() -> None:
    """Snippets run in the tests' own process: they need nothing but torch and normlab."""
    imports = {
        line.split()[1].partition(".")[0]
        for block in list_python_blocks()
        for line in block.code.splitlines()
        if line.startswith(("import ", "from "))
    }
    assert imports - set(sys.stdlib_module_names) <= {"torch", "normlab"}


def test_every_page_is_reached_from_the_path() -> None:
    path = (LEARN / "README.md").read_text(encoding="utf-8")
    for page in list_pages():
        assert page.name == "README.md" or f"]({page.name})" in path, page.name
