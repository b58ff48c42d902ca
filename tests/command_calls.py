"""A command called in this process, in an empty folder; or in one of its own."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

Call = Callable[..., tuple[int, str, str]]


def make_command_caller(
    main: Callable[[Sequence[str]], None],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Call:
    """Calls `main` with arguments: exit code, what it prints, what it complains of."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments: str) -> tuple[int, str, str]:
        code = 0
        try:
            main(arguments)
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        return (code, *capfd.readouterr())

    return run


def read_refusal(script: str, word: str, *heavy: str) -> str:
    """What a script of the repository says to a word that it refuses.

    None of the `heavy` modules may have been imported for that.
    """
    code = (
        f"import runpy, sys; sys.argv = [{script!r}, {word!r}]; sys.path.insert(0, 'scripts')\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: pass\n"
        f"print({set(heavy)!r} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
    return done.stderr
