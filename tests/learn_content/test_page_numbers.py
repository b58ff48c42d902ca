"""Every decimal number in the prose of docs/learn is printed by a snippet, computed or recorded."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from scipy import stats

from learn_content.learn_pages import LEARN, NUMBER, ROOT, list_pages, list_python_blocks
from learn_content.test_quiz import same_as_printed
from normlab.apps.experiments.signal_theory import expected_signal, rms_floor

# A number as commands and code write it, also inside a word: lr=1.6e-2.
SETTING = r"\d+(?:\.\d+)?(?:e-?\d+)?"
RECORDED_PAGES = ("experiments.md", "claims.md", "checks.md", "statistics.md", "reading_results.md")
RECORDED = yaml.safe_load((Path(__file__).parent / "recorded.yaml").read_text(encoding="utf-8"))
# The losses of lesson 5's table, as recorded there.
PRE, POST = (2.0021, 1.9678, 1.9846, 2.0337), (2.0593, 2.0213, 1.9691, 2.0794)

# Numbers that prose states and no snippet prints.
COMPUTED: dict[str, Callable[[], float]] = {
    "22.6": lambda: math.sqrt(512),
    "3.4e38": lambda: torch.finfo(torch.float32).max,
    "1.2e-38": lambda: torch.finfo(torch.float32).tiny,
    "1.2e-7": lambda: torch.finfo(torch.float32).eps,
    "7.8e-3": lambda: torch.finfo(torch.bfloat16).eps,
    "0.0078": lambda: torch.finfo(torch.bfloat16).eps,
    "9.8e-4": lambda: torch.finfo(torch.float16).eps,
    "6.1e-5": lambda: torch.finfo(torch.float16).tiny,
    "65,504": lambda: torch.finfo(torch.float16).max,
    "90,000": lambda: 300.0**2,
    "0.0198": lambda: rms_floor(512),
    "0.016": lambda: expected_signal(24, 1 / 3, 1 / (3 * 512))[-1].std,
    "0.408": lambda: math.sqrt(1 / 6),
    "0.34": lambda: expected_signal(1, 1 / 3, 1 / (3 * 512))[-1].std,
    "0.0032": lambda: math.sqrt(1e-5),
    "2.079": lambda: math.log(8),
    "6.908": lambda: math.log(1000),
    "68.13": lambda: 1 + 67.13,
    "2.48": lambda: float(stats.t.ppf(0.975, 2)) / math.sqrt(3),
    "0.0535": lambda: POST[1] - PRE[1],
    "0.0155": lambda: PRE[2] - POST[2],
    "0.0659": lambda: max(PRE) - min(PRE),
    "0.1103": lambda: max(POST) - min(POST),
    "0.935": lambda: math.sqrt(7 / 8),
    "1,024": lambda: 2.0 * 512,
    "0.0001": lambda: 1e-4,
    "0.0185": lambda: 2.0778 - POST[0],
    "1.11": lambda: 351 * math.sqrt(1e-5),
    "0.11": lambda: 351 * math.sqrt(1e-5) - 1,
}
# Published numbers and versions, with the source in the sentence where they stand.
QUOTED = {
    *("6.9", "6.946", "6.913", "6.590", "6.574", "3.5", "2.8", "2.7", "1.04", "0.85", "0.62"),
    *("0.38", "0.21", "3.5566", "1.5625e-7", "0.8", "0.002", "2.13.0", "5.24.0", "1,000", "2.4"),
    *("1e-12", "1e-6", "0.01", "0.02", "5.24"),
}


def prose_of(page: Path) -> str:
    """The page without code, captions, addresses and arXiv ids."""
    text = page.read_text(encoding="utf-8")
    for pattern in (r"```.*?```", r"<sub>.*?</sub>", r"\$\$.*?\$\$", r"\]\([^)]*\)"):
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    text = re.sub(r"`[^`\n]*`|\$[^$\n]*\$", " ", text)
    return re.sub(r"(arXiv )?\b\d{4}\.\d{5}\b", " ", text)


def is_stated(number: str) -> bool:
    """Whether it is a measurement: with a decimal point, an exponent or thousands."""
    return bool(re.search(r"[.e,]", number)) and number not in QUOTED


def sourced_numbers() -> set[str]:
    """What snippets print, studies recorded and tests compute, and what code and commands set."""
    sourced = set(COMPUTED) | {number for record in RECORDED for number in record["numbers"]}
    for block in list_python_blocks():
        sourced |= set(NUMBER.findall(block.output or ""))
    for page in RECORDED_PAGES:
        sourced |= set(NUMBER.findall((ROOT / "docs" / page).read_text(encoding="utf-8")))
    for page in list_pages():
        text = page.read_text(encoding="utf-8")
        for code in re.findall(r"```(?:bash|python).*?```|`[^`\n]*`", text, flags=re.DOTALL):
            sourced |= set(re.findall(SETTING, code))
    settings = (LEARN / "predictions.yaml").read_text(encoding="utf-8")
    for line in re.findall(r"^    - .*$", settings, re.MULTILINE):
        sourced |= set(re.findall(SETTING, line))
    return {number.lstrip("-−") for number in sourced}


@pytest.mark.parametrize("page", list_pages(), ids=lambda page: page.name)
def test_every_stated_number_has_a_source(page: Path) -> None:
    stated = {number.lstrip("-−") for number in NUMBER.findall(prose_of(page))}
    missing = {number for number in stated if is_stated(number)} - sourced_numbers()
    assert not missing, sorted(missing)


@pytest.mark.parametrize("number", COMPUTED)
def test_a_computed_number_is_what_the_pages_say(number: str) -> None:
    assert same_as_printed(COMPUTED[number](), number)


def test_the_predictions_state_what_was_recorded() -> None:
    recorded = {number for record in RECORDED for number in record["numbers"]} | set(COMPUTED)
    predictions = yaml.safe_load((LEARN / "predictions.yaml").read_text(encoding="utf-8"))
    for prediction in predictions:
        settings = " ".join([prediction["question"], *prediction["command"]])
        stated = {number.lstrip("-") for number in NUMBER.findall(prediction["explanation"])}
        chosen = set(re.findall(SETTING, settings))
        missing = {n for n in stated if is_stated(n)} - recorded - chosen
        assert not missing, (prediction["id"], missing)
