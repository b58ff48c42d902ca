"""A study whose names hold control characters or markup: in no result do they do so."""

import csv
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from normlab.analysis.plot import print_report, write_study_report
from normlab.analysis.runs_csv import write_runs_csv
from normlab.archive.study import read_study

ACTING = "\x1b[31m\x07\x9b\r\u202e\u2066\u200b\ufffe"
SIGNS = set(ACTING) - set("[31m")


@pytest.fixture
def hostile(maker: Any) -> Any:
    for seed, norm in enumerate((f"[/red]{ACTING}", "=1+1\nmore$\\frac{$")):
        maker.run(
            norm, f"pre{ACTING}", 0, name=f"run{seed}", steps=60, reason=f"@SUM({ACTING}\n",
            config={f"=key{ACTING}": "x", "data": {"path": f"{seed}{ACTING}\n"}},
        )  # fmt: skip
    return maker


def test_signs_that_act_leave_in_no_result(hostile: Any, capsys: Any) -> None:
    done = write_study_report(hostile.folder)
    print_report(done)
    texts = [path.read_text(encoding="utf-8") for path in done.figures if path.suffix == ".svg"]
    assert len(texts) >= 4
    for text in texts:
        ET.fromstring(text)  # well-formed
    captured = capsys.readouterr()
    assert "[/red]" in captured.out
    results = [*texts, captured.out, captured.err, done.page.read_text(), done.csv.read_text()]
    for text in results:
        assert not SIGNS & set(text)


def test_no_cell_of_the_table_is_a_formula(hostile: Any) -> None:
    path = write_runs_csv(read_study(hostile.folder))
    with path.open(newline="") as lines:
        table = list(csv.reader(lines))
    texts = [cell for row in table for cell in row]
    assert any("@SUM" in cell for cell in texts)
    assert any("=1+1" in cell for cell in texts)
    for cell in texts:
        assert not cell.startswith(("=", "+", "@", "\t", "\r"))
        assert not cell.startswith("-") or float(cell) < 0
        assert "\n" not in cell
