"""Text that leaves the program: terminal, figures, report, table, log, TensorBoard."""

import io
import logging
from pathlib import Path

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table

from normlab.errors import NormlabError, report_user_errors
from normlab.terminal import Terminal, has_fixed_width, open_terminal
from normlab.text import count_noun, printable, printable_line
from normlab.training.run import log, log_to

ACTING = "\x1b[31m\x1b]0;title\x07\x9b2J\r\x08\x00\x7f\u202e\u2066\u200b\u2028\ufeff\ufffe\ud800"
SIGNS = set(ACTING) - set("[31m]0;title2J")


def test_what_acts_is_replaced_and_what_shows_stays() -> None:
    plain = "rmsnorm · pre ± ≥ 3e-3 é 漢 😀 $x$ \\n\tb\nc"
    assert printable(plain) == plain
    assert not SIGNS & set(printable(ACTING))
    assert len(printable(ACTING)) == len(ACTING)
    assert printable_line("a\nb\tc") == "a\ufffdb\ufffdc"


@pytest.mark.parametrize("watched", [True, False])
def test_the_terminal_gets_no_sign_that_acts(watched: bool) -> None:
    file = io.StringIO()
    terminal = Terminal(file=file, force_terminal=watched, width=200, emoji=False)
    terminal.print(f"note: {ACTING}", markup=False)
    table = Table(ACTING)
    table.add_row(ACTING)
    terminal.print(table)
    with Progress(TextColumn("{task.description}"), console=terminal, transient=True) as lines:
        lines.add_task(f"run {ACTING}", total=1)
    shown = file.getvalue()
    assert "note: " in shown
    for sign in SIGNS - {"\x1b", "\r"}:
        assert sign not in shown
    assert "\x1b[31m" not in shown
    assert "\x1b]0;" not in shown
    assert watched or "\x1b" not in shown


def test_an_error_gets_no_sign_that_acts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), report_user_errors():
        raise NormlabError(f"HTTP Error 500: {ACTING}")
    assert not SIGNS & set(capsys.readouterr().err)


def test_a_log_gets_no_sign_that_acts(tmp_path: Path) -> None:
    with log_to(tmp_path / "train.log"):
        # pytest keeps what is logged, and cannot send a lone surrogate from a worker.
        log.log(logging.INFO, "%s", ACTING.replace("\ud800", ""))
    text = (tmp_path / "train.log").read_bytes().decode()
    assert "[31m" in text
    assert not SIGNS & set(text)


@pytest.mark.parametrize(("columns", "width"), [("40", 40), ("", 140), ("0", 140), ("x", 140)])
def test_columns_sets_the_width_where_nobody_watches(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    terminal = open_terminal()
    assert terminal.width == width
    assert has_fixed_width(terminal) == (width == 40)
    table = Table("a column", "another")
    table.add_row("word " * 12, "word " * 12)
    terminal.print(table)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= width


def test_counts_have_the_plural_of_their_noun() -> None:
    counted = [count_noun(1, "process"), count_noun(2, "process"), count_noun(1000, "run")]
    assert counted == ["1 process", "2 processes", "1,000 runs"]
