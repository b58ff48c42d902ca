"""What is shown of runs side by side: plain lines without a terminal, one display with one."""

import io

import pytest
from rich.console import Console

from normlab.study import board
from normlab.study.board import Board

NAMES = ["rmsnorm-pre-lr2e-3-s0-aaaaaaaa", "layernorm-pre-lr2e-3-s0-bbbbbbbb"]


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(board, "time", clock)
    return clock


def test_without_a_terminal_a_run_says_a_line_now_and_then(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Board(NAMES, [100, 100]) as shown:
        shown.start(0)
        shown.start(1)
        shown.update(0, 10, 2.0, 5000.0)
        shown.update(1, 10, 2.5, 5000.0)
        clock.now = 9.0
        shown.update(0, 20, 1.9, 5000.0)
        assert capsys.readouterr().out == ""
        clock.now = 30.0
        shown.update(1, 30, 1.8, 12345.0)
        # Thirty steps of both in thirty seconds, and 150 of 200 still to come.
        (line,) = capsys.readouterr().out.splitlines()
        assert line == f"run 2/2 {NAMES[1]}  step 30/100  loss 1.800  12,345 tok/s  2m 30s left"
        shown.say(0, "killed [red]not markup[/]")
        assert f"run 1/2 {NAMES[0]}  killed [red]not markup[/]" in capsys.readouterr().out


def test_a_run_that_goes_on_has_steps_that_took_no_time(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Board(NAMES, [100, 100]) as shown:
        shown.start(0)
        shown.update(0, 90, 2.0, 5000.0)
        clock.now = 25.0
        shown.update(0, 95, 2.0, 5000.0)
        assert "8m 45s left" in capsys.readouterr().out  # 5 s a step, 105 to come


def test_what_takes_its_time_before_the_first_step_is_not_its_speed(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Board(NAMES[:1], [100]) as shown:
        shown.start(0)
        shown.update(0, 0, 2.0, 5000.0)
        clock.now = 40.0
        shown.say(0, "compiled in 40 s")
        shown.update(0, 0, 2.0, 5000.0)
        clock.now = 80.0
        shown.update(0, 50, 2.0, 5000.0)
        assert "40s left" in capsys.readouterr().out


def test_in_a_terminal_all_runs_share_one_display(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.StringIO()
    screen = Console(file=file, force_terminal=True, width=150)
    monkeypatch.setattr(board, "console", lambda: screen)
    with Board(NAMES, [100, 100]) as shown:
        shown.start(0)
        shown.start(1)
        shown.update(0, 50, 1.5, 1000.0)
        shown.progress.refresh()
        seen = file.getvalue()
        for words in ("run 1/2 rmsnorm-pre-lr2e-3-s0", "run 2/2 layernorm-pre", "0/2 runs"):
            assert words in seen
        shown.end(0)
        file.truncate(0)
        shown.update(1, 10, 1.5, 1000.0)
        shown.progress.refresh()
        assert "run 1/2" not in file.getvalue()
        assert "1/2 runs" in file.getvalue()
