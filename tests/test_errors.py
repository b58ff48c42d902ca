"""A mistake in a command's flags is a sentence with the nearest flag, in every command."""

import importlib
import runpy
import sys
from pathlib import Path

import pytest

from normlab.errors import CommandParser, ConfigError, report_user_errors

ROOT = Path(__file__).resolve().parents[1]
FILES = {f"scripts/{path.stem}" for path in (ROOT / "scripts").glob("*.py")}
SCRIPTS = ["train", *sorted(FILES - {"scripts/run_command"})]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_names_the_nearest_flag(
    script: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words, flag = ["norm=rmsnorm", "--hlep"], "--help"
    if script == "scripts/learn":
        words, flag = ["check", "a.py", "--secnds=1"], "--seconds"
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend("scripts")  # where `python scripts/card.py` looks first
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


def test_a_shared_library_that_is_missing_names_the_package_that_loads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ctypes raises OSError while torch is imported and a library of CUDA is not there."""
    package = tmp_path / "loads_a_library"
    package.mkdir()
    (package / "__init__.py").write_text("import ctypes\nctypes.CDLL('libnormlab-test.so.1')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as left, report_user_errors():
        importlib.import_module("loads_a_library")
    assert left.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith("normlab: loads_a_library cannot be imported (OSError: libnormlab-test")
    assert err.count("\n") == 1


def test_another_oserror_keeps_its_traceback() -> None:
    with pytest.raises(FileNotFoundError), report_user_errors():
        Path("no such file").read_text()
