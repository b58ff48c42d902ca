"""What the command line asks is checked before anything is measured, and results are written."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import main as command_line
from harness import Settings
from report import read_report

RunMain = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_main(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> RunMain:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = 0
        try:
            command_line.main([*arguments, "--out", str(tmp_path)])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def settings_of_suites(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The suites answer at once; what they were called with."""
    calls: list[Settings] = []

    def measure(settings: Settings) -> object:
        calls.append(settings)
        return report["result"]

    for name in command_line.SUITES.values():
        module, _, function = name.partition(":")
        monkeypatch.setattr(importlib.import_module(module), function, measure)
    return calls


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "no suite was given"),
        (["stepp"], "stepp is not a suite; choose from step, profile, norms"),
        (["step", "--rounds", "0"], "argument --rounds: 0 is not a whole number from 1"),
        (["step", "--threads", "two"], "argument --threads: two is not a whole number from 1"),
        (["step", "--shapes", "huge"], "--shapes huge does not exist in this suite"),
        (["norms", "--shapes", "nano"], "--shapes nano does not exist in this suite"),
        (["scaling", "--shapes", "height"], "--shapes height does not exist in this suite"),
        (["start", "--shapes", "nano"], "--shapes means nothing to the suite start"),
        (["scaling", "model.depth=2"], "model.depth=2 is what scaling varies by itself"),
        (["norms", "model.depth=2"], "key=value means nothing to the suite norms"),
        (["step", "model.dept=2"], "model.dept"),
        (["step", "model.depth=two"], "model.depth"),
        (["step", "norm=no_such"], "no_such"),
    ],
)
def test_a_bad_request_is_one_sentence(
    run_main: RunMain, arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    code, out, err = run_main(*arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.json"))


def test_a_folder_that_cannot_be_written_is_noticed_before(
    run_main: RunMain, settings_of_suites: list[Settings], tmp_path: Path
) -> None:
    (tmp_path / "step").write_text("")
    code, _, err = run_main("step")
    assert (code, settings_of_suites) == (2, [])
    assert "cannot be written (File exists); give another place with --out" in err


def test_a_suite_leaves_its_numbers_and_its_figure(
    run_main: RunMain, settings_of_suites: list[Settings], report: dict[str, Any], tmp_path: Path
) -> None:
    code, out, err = run_main("step", "--quick", "--rounds", "2")
    assert (code, err) == (0, "")
    written = read_report(tmp_path / "step" / "step.json")
    assert written["result"] == report["result"]
    assert written["command"] == "python scripts/bench/main.py step --rounds 2 --quick"
    assert {path.suffix for path in (tmp_path / "step").iterdir()} == {".json", ".png", ".svg"}
    assert "2.00 (1.50–2.50)" in out
    machine = json.loads((tmp_path / "step" / "step.json").read_text())["machine"]
    assert machine["cores"] >= 1
    assert machine["versions"]["torch"]
    assert len(machine["load"]) == 2


def test_ctrl_c_is_one_line(
    run_main: RunMain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measure(settings: Settings) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("training_suites"), "measure_step", measure)
    code, _, err = run_main("step")
    assert (code, err.count("\n")) == (130, 1)
    assert not list(tmp_path.rglob("*.json"))


def test_the_settings_reach_the_suite(
    run_main: RunMain, settings_of_suites: list[Settings]
) -> None:
    run_main("step", "model.depth=3", "--rounds", "7", "--threads", "1")
    run_main("scaling", "--quick", "--shapes", "depth,width")
    first, second = settings_of_suites
    assert (first.rounds, first.threads, first.quick) == (7, 1, False)
    assert first.overrides == ("model.depth=3",)
    assert (second.quick, second.shapes) == (True, ("depth", "width"))


def test_all_measures_each_suite(run_main: RunMain, settings_of_suites: list[Settings]) -> None:
    assert run_main("all")[0] == 0
    assert len(settings_of_suites) == len(command_line.SUITES)
