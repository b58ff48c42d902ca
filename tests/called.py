"""A command called in this process, in an empty folder."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]


def called(
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
