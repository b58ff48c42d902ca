"""A report comes back from its file as it was, or the reason why not is a sentence."""

import dataclasses
import json
from pathlib import Path

import pytest

from normlab.analysis.spread import Spread
from normlab.bench.result import Goal, Report, Settings
from normlab.errors import NormlabError


def test_a_report_comes_back_from_its_file_as_it_was(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "step.json")
    assert Report.read(tmp_path / "step.json") == report


@pytest.mark.parametrize("content", ["", "[]", "{", '{"command": 3}'])
def test_a_damaged_file_is_one_sentence(content: str, tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    path.write_text(content)
    with pytest.raises(NormlabError, match=r"step.json is no result .* measure it again"):
        Report.read(path)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NormlabError, match=r"step.json is no result"):
        Report.read(tmp_path / "step.json")


def test_a_newer_file_is_refused(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    report.write(path)
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "schema_version": 99}))
    with pytest.raises(NormlabError, match="schema version is 99"):
        Report.read(path)


def test_a_value_of_another_type_is_refused(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    report.write(path)
    raw = json.loads(path.read_text())
    raw["result"]["goals"][0]["value"]["median"] = "fast"
    path.write_text(json.dumps(raw))
    with pytest.raises(NormlabError, match=r"goals\[0\].value.median"):
        Report.read(path)


@pytest.mark.parametrize(
    ("bounds", "reached", "said"),
    [
        ({"least": 1.5}, True, "≥ 1.5"),
        ({"least": 2.5}, False, "≥ 2.5"),
        ({"most": 2.0}, True, "≤ 2"),
        ({"most": 1.9}, False, "≤ 1.9"),
        ({}, None, ""),
    ],
)
def test_a_goal_is_reached_by_the_median(
    bounds: dict[str, float], reached: bool | None, said: str
) -> None:
    goal = Goal("speed", Spread(2.0, 0.0, 9.0, 3), **bounds)
    assert (goal.reached, goal.bound) == (reached, said)


def test_rounds_are_the_users_before_the_suites() -> None:
    assert Settings().times(9, 3) == 9
    assert Settings(quick=True).times(9, 3) == 3
    assert dataclasses.replace(Settings(quick=True), rounds=5).times(9, 3) == 5
