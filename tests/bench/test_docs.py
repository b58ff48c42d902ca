"""The page of results is written from the results: refreshing it is one command."""

from dataclasses import replace
from pathlib import Path

import pytest

from normlab import config
from normlab.bench.docs import refresh
from normlab.bench.main import SUITES
from normlab.bench.result import Report
from normlab.errors import NormlabError

PAGE = """\
# Performance
before
<!-- bench step -->
what was there
<!-- end -->
between
<!-- bench norms -->
<!-- end -->
after
"""


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "performance.md").write_text(PAGE)
    return tmp_path


def test_a_result_takes_its_place_and_the_rest_stays(
    report: Report, top: Path, tmp_path: Path
) -> None:
    report.write(tmp_path / "out" / "step" / "step.json")
    text = refresh(tmp_path / "out", top).read_text()
    assert "| ours | 2.00 (1.50–2.50) | 5.00 (4.50–7.00) |" in text
    assert "| a \\| b | 5.00 (4.50–7.00) | – |" in text
    assert "| speed | 2.00 (1.50–2.50) | ≥ 2 | yes |" in text
    assert "| cost | 5.00 (4.50–7.00) | ≤ 4.5 | no |" in text
    assert "2-core a processor" in text
    assert "With `--quick`" in text
    assert "what was there" not in text
    assert "Not measured yet." in text
    for word in ("before", "between", "after"):
        assert f"\n{word}\n" in text
    assert (top / "docs" / "bench" / "step.png").is_file()
    assert "![A title](bench/step.png)" in text


def test_the_page_is_written_again_from_what_is_kept(
    report: Report, top: Path, tmp_path: Path
) -> None:
    report.write(tmp_path / "out" / "step" / "step.json")
    first = refresh(tmp_path / "out", top).read_text()
    assert refresh(tmp_path / "nothing", top).read_text() == first


def test_a_newer_result_replaces_the_older(report: Report, top: Path, tmp_path: Path) -> None:
    path = tmp_path / "out" / "step" / "step.json"
    report.write(path)
    refresh(tmp_path / "out", top)
    replace(report, seconds=99.0).write(path)
    assert "; 99 s." in refresh(tmp_path / "out", top).read_text()


def test_without_a_page_it_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NormlabError, match=r"performance.md cannot be read or written"):
        refresh(tmp_path, tmp_path)


def test_our_page_has_a_place_for_every_suite() -> None:
    text = (config.conf_folder().parent / "docs" / "performance.md").read_text(encoding="utf-8")
    for suite in SUITES:
        assert f"<!-- bench {suite} -->\n" in text
