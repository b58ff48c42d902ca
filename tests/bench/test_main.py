"""The door: what is asked for is checked before anything is measured, and results are written."""

import importlib
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from normlab.bench import main as door
from normlab.bench.result import Report, Settings

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    def called(*arguments: str) -> tuple[int, str, str]:
        code = 0
        try:
            door.main(arguments)
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        out, err = capfd.readouterr()
        return code, out, err

    return called


@pytest.fixture
def answered(report: Report, monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The suites answer at once, and what they were asked is kept."""
    asked: list[Settings] = []

    def run(settings: Settings) -> object:
        asked.append(settings)
        return report.result

    for suite in door.SUITES:
        if find_spec(f"normlab.bench.{suite}"):
            name = "reading" if suite == "read" else suite
            monkeypatch.setattr(importlib.import_module(f"normlab.bench.{name}"), "run", run)
    return asked


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no suite was given"),
        (["stepp"], "stepp is no suite; choose from step, profile, norms"),
        (["step", "--rounds", "0"], "--rounds 0 is not allowed; it must be from 1 to 1000"),
        (["step", "--threads", "0"], "--threads 0 is not allowed"),
        (["step", "--threads", "100000"], "--threads 100000 is not allowed"),
        (["step", "--shapes", "huge"], "--shapes huge is not known to this suite"),
        (["norms", "--shapes", "nano"], "--shapes nano is not known to this suite"),
        (["scaling", "--shapes", "height"], "--shapes height is not known to this suite"),
        (["start", "--shapes", "nano"], "--shapes means nothing to the suite start"),
        (["scaling", "model.depth=2"], "model.depth=2 is what scaling varies by itself"),
        (["norms", "model.depth=2"], "key=value means nothing to the suite norms"),
        (["step", "model.dept=2"], "model.dept"),
        (["step", "model.depth=two"], "model.depth"),
        (["step", "norm=no_such"], "no_such"),
    ],
)
def test_a_bad_request_is_one_sentence(
    call: Call, arguments: list[str], said: str, tmp_path: Path
) -> None:
    code, out, err = call(*arguments, "--out", str(tmp_path))
    assert code == 2
    assert out == ""
    assert said in err
    assert err.startswith("normlab: ")
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.json"))


def test_a_place_that_cannot_be_written_is_known_before(
    call: Call, answered: list[Settings], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = call("step", "--out", str(tmp_path / "file"))
    assert (code, answered) == (2, [])
    assert "cannot be written; give another place with --out" in err


def test_a_suite_leaves_its_numbers_and_its_figure(
    call: Call, answered: list[Settings], report: Report, tmp_path: Path
) -> None:
    asked = ("step", "--quick", "--rounds", "2")
    code, out, err = call(*asked, "--out", str(tmp_path))
    assert (code, err) == (0, "")
    written = Report.read(tmp_path / "step" / "step.json")
    assert written.result == report.result
    assert written.command == "python scripts/bench.py step --rounds 2 --quick"
    assert {path.suffix for path in (tmp_path / "step").iterdir()} == {".json", ".png", ".svg"}
    assert "contender" in out
    assert "2.00 (1.50–2.50)" in out


def test_ctrl_c_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(settings: Settings) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("normlab.bench.step"), "run", run)
    code, _, err = call("step", "--out", str(tmp_path))
    assert (code, err.count("\n")) == (130, 1)
    assert not list(tmp_path.rglob("*.json"))


def test_the_settings_reach_the_suite(call: Call, answered: list[Settings], tmp_path: Path) -> None:
    call(*("step", "model.depth=3", "--rounds", "7", "--threads", "1"), "--out", str(tmp_path))
    call("scaling", "--quick", "--shapes", "depth,width", "--out", str(tmp_path))
    first, second = answered
    assert (first.rounds, first.threads, first.quick) == (7, 1, False)
    assert first.overrides == ("model.depth=3",)
    assert (second.quick, second.shapes) == (True, ("depth", "width"))


def test_all_measures_every_suite_that_is_there(
    call: Call, answered: list[Settings], tmp_path: Path
) -> None:
    assert call("all", "--out", str(tmp_path))[0] == 0
    there = [suite for suite in door.SUITES if find_spec(f"normlab.bench.{suite}")]
    assert len(answered) == len(there) >= 5


def test_the_numbers_say_where_they_were_measured(
    call: Call, answered: list[Settings], tmp_path: Path
) -> None:
    call("step", "--out", str(tmp_path))
    machine = json.loads((tmp_path / "step" / "step.json").read_text())["machine"]
    assert machine["cores"] >= 1
    assert machine["versions"]["torch"]
    assert len(machine["load"]) == 2
