"""A mistake in a command's flags is a sentence with the nearest flag, in every command."""

import runpy
import sys
from pathlib import Path

import pytest

from normlab.errors import CommandParser, ConfigError

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ["train", *sorted(f"scripts/{path.stem}" for path in (ROOT / "scripts").glob("*.py"))]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_names_the_nearest_flag(
    script: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words, flag = ["norm=rmsnorm", "--hlep"], "--help"
    if script == "scripts/learn":
        words, flag = ["check", "a.py", "--secnds=1"], "--seconds"
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as left:
        runpy.run_path(f"{script}.py", run_name="__main__")
    assert left.value.code == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert f"did you mean {flag}?" in err


@pytest.mark.parametrize("intermixed", [True, False])
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a", "--widht", "3"], "--widht is not a flag; did you mean --width? --help shows"),
        (["a", "--zzz"], "--zzz is not a flag; --help shows"),
        (["a", "--norm=b"], "--norm is not a flag; a choice is written without dashes, as norm=…"),
        (["a", "--width=1", "--width", "2"], "--width is given twice; give it once."),
        (["a", "--width", "x"], "--width x is not allowed; it must be a whole number."),
        (["a", "--part=jbo"], "--part jbo is not allowed; did you mean job? it must be one of job"),
        ([], "required: words"),
    ],
)
def test_what_is_wrong_with_a_flag(words: list[str], sentence: str, intermixed: bool) -> None:
    parser = CommandParser(keys=["norm"])
    parser.add_argument("words", nargs="+")
    parser.add_argument("--width", type=int)
    parser.add_argument("--part", "-p", choices=("job", "all"))
    with pytest.raises(ConfigError) as refused:
        (parser.parse_intermixed_args if intermixed else parser.parse_args)(words)
    assert sentence in str(refused.value)
