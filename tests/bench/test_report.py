"""A report comes back from its file, and the page is written from reports, also older ones."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness import ROOT
from main import SUITES
from normlab.analysis.statistics import Spread
from normlab.errors import NormlabError
from report import add_goal, format_goal, read_report, refresh_page, write_report

PAGE = """\
# Performance
before
<!-- bench step -->
an older result
<!-- end -->
between
<!-- bench norms -->
<!-- end -->
after
"""


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "performance.md").write_text(PAGE)
    return tmp_path / "docs"


def test_a_report_comes_back_from_its_file(report: dict[str, Any], tmp_path: Path) -> None:
    write_report(report, tmp_path / "step.json")
    assert read_report(tmp_path / "step.json") == {**report, "schema_version": 1}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"command": 3}', '{"schema_version": 1}'])
def test_a_damaged_file_is_one_sentence(content: str, tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    path.write_text(content)
    with pytest.raises(NormlabError, match=r"step.json is no result .* measure it again"):
        read_report(path)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NormlabError, match=r"step.json is no result"):
        read_report(tmp_path / "step.json")


def test_a_newer_file_is_refused(report: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    path.write_text(json.dumps({**report, "schema_version": 99}))
    with pytest.raises(NormlabError, match="schema version is 99"):
        read_report(path)


def test_a_value_of_another_type_is_refused(report: dict[str, Any], tmp_path: Path) -> None:
    report["result"]["goals"][0]["value"]["median"] = "fast"
    write_report(report, tmp_path / "step.json")
    with pytest.raises(NormlabError, match="is no result"):
        read_report(tmp_path / "step.json")


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        ({"least": 1.5}, ["≥ 1.5", "yes"]),
        ({"least": 2.5}, ["≥ 2.5", "no"]),
        ({"most": 2.0}, ["≤ 2", "yes"]),
        ({"most": 1.9}, ["≤ 1.9", "no"]),
        ({}, ["", ""]),
    ],
)
def test_a_goal_is_reached_by_the_median(bound: dict[str, float], words: list[str]) -> None:
    result: dict[str, Any] = {"goals": []}
    add_goal(result, "speed", Spread(2.0, 0.0, 9.0, 3), **bound)
    assert format_goal(result["goals"][0])[1:] == words


def test_a_result_replaces_its_part_of_the_page(
    report: dict[str, Any], docs: Path, tmp_path: Path
) -> None:
    path = tmp_path / "out" / "step" / "step.json"
    path.parent.mkdir(parents=True)
    write_report(report, path)
    text = refresh_page(tmp_path / "out", docs).read_text()
    assert "| ours | 2.00 (1.50–2.50) | 5.00 (4.50–7.00) |" in text
    assert "| a \\| b | 5.00 (4.50–7.00) | – |" in text
    assert "| speed | 2.00 (1.50–2.50) | ≥ 2 | yes |" in text
    assert "| cost | 5.00 (4.50–7.00) | ≤ 4.5 | no |" in text
    assert "2-core a processor" in text
    assert "With `--quick`" in text
    assert "an older result" not in text
    assert "Not measured yet." in text
    for word in ("before", "between", "after"):
        assert f"\n{word}\n" in text
    assert (docs / "bench" / "step.png").is_file()
    assert "![A title](bench/step.png)" in text

    # The page is written again from what is stored, and a newer result replaces it.
    assert refresh_page(tmp_path / "nothing", docs).read_text() == text
    write_report({**report, "seconds": 99.0}, path)
    assert "; 99 s." in refresh_page(tmp_path / "out", docs).read_text()


def test_without_a_page_it_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NormlabError, match=r"performance.md cannot be read or written"):
        refresh_page(tmp_path, tmp_path)


def test_the_page_of_the_repository_is_that_of_its_results(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs" / "bench", tmp_path / "bench")
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for suite in SUITES:
        assert f"<!-- bench {suite} -->\n" in text
    (tmp_path / "performance.md").write_text(text, encoding="utf-8")
    assert refresh_page(tmp_path / "nothing", tmp_path).read_text(encoding="utf-8") == text
