"""What is shown of runs side by side: plain lines without a terminal, one display with one."""

import io
import re
from itertools import pairwise

import pytest
from rich.cells import cell_len
from rich.console import Console

from normlab.archive.record import BestNumbers, FinalNumbers, RunRecord, State
from normlab.study import progress
from normlab.study.progress import Countdown, StudyProgress, format_outcome
from normlab.terminal import open_terminal
from normlab.training.recorder import LONGEST_SILENCE_SECONDS

NAMES = ["rmsnorm-pre-lr2e-3-s0-aaaaaaaa", "layernorm-pre-lr2e-3-s0-bbbbbbbb"]


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line)


def test_without_a_terminal_a_run_says_a_line_now_and_then(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with StudyProgress(NAMES, [100, 100]) as shown:
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
        assert line == f"run 2/2 {NAMES[1]}  step 30/100  loss 1.800  ~12,000 tok/s  2m 30s left"
        shown.say(0, "killed [red]not markup[/]")
        assert f"run 1/2 {NAMES[0]}  killed [red]not markup[/]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("speeds", "words"),
    [
        ([18_500.0, 18_081.0, 18_300.0, 18_200.0], "18,012 tokens/s"),
        ([33_849.0, 13_249.0, 18_300.0, 18_200.0], "~18,000 tokens/s"),
        ([18_081.0], "~18,000 tokens/s"),  # too few to tell
    ],
)
def test_a_speed_that_is_not_steady_is_said_to_be_about(
    speeds: list[float], words: str, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    record = RunRecord("id", NAMES[0], "rmsnorm", "pre", "synthetic", 0, {}, {}, state="finished")
    record.final, record.best = FinalNumbers(1.5), BestNumbers(1.5, 100)
    record.tokens_per_second = 18_012.0
    with StudyProgress(NAMES, [100] * 2) as shown, StudyProgress(NAMES[:1], [100]) as line:
        for step, speed in enumerate(speeds):
            shown.update(0, step, 2.0, speed)
            line.update(0, step, 2.0, speed)
        shown.finish(0, record)
        line.finish(0, record)
    said = capsys.readouterr().out
    assert said.count(f"  {words}  ") == 2


def test_no_time_is_estimated_before_a_step_is_timed(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.now = 100.0
    for names in (NAMES[:1], NAMES):
        with StudyProgress(names, [100] * len(names)) as shown:
            shown.start(0)
            clock.now += 40.0
            shown.update(0, 10, 2.0, 5000.0)
            assert "left" not in capsys.readouterr().out
            clock.now += 40.0
            shown.update(0, 20, 2.0, 5000.0)
            assert " left" in capsys.readouterr().out


def test_a_log_is_never_long_silent_and_never_full(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    spoken = []
    with StudyProgress(NAMES[:1], [7200]) as line:
        line.start(0)
        for step in range(7200):
            clock.now += 1.0
            if step % LONGEST_SILENCE_SECONDS == 0:  # as slow steps are shown
                line.update(0, step, 2.0, 5000.0)
            if capsys.readouterr().out:
                spoken.append(clock.now)
    gaps = [b - a for a, b in pairwise([0.0, *spoken])]
    assert spoken[0] <= 16
    assert max(gaps) <= 60
    assert gaps[-1] > 2 * gaps[0]
    assert len(spoken) < 200


def test_a_log_of_measurements_is_never_long_silent(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Countdown(open_terminal(), "measure it", 94) as countdown:
        for number in range(94):
            countdown.begin(f"round {number}")
            clock.now += 8.0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "measure it  3/94  round 2  12m 16s left"
    assert 20 < len(lines) < 60


def test_a_name_is_whole_in_every_window(clock: Clock) -> None:
    long = "gemma_rmsnorm-hybridnorm-model.depth=12-lr2e-3-s0-cccccccc"
    for width in (40, 50, 60, 80, 95, 120):
        screen = Console(file=io.StringIO(), force_terminal=True, width=width, height=40)
        with StudyProgress([*NAMES, long], [100_000] * 3, console=screen) as shown:
            for run in range(3):
                shown.start(run)
                shown.update(run, 10_000, 1.5, 123_456.0)
            with screen.capture() as capture:
                screen.print(shown.lines.get_renderable())
        lines = capture.get().splitlines()
        assert max(map(cell_len, map(plain, lines))) <= width
        seen = "".join(plain(line).strip() for line in lines).replace(" ", "")
        for name in (*NAMES, long):
            assert name.rpartition("-")[0] in seen, width
        assert "…" not in seen


def test_a_run_that_goes_on_has_steps_that_took_no_time(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with StudyProgress(NAMES, [100, 100]) as shown:
        shown.start(0)
        shown.update(0, 90, 2.0, 5000.0)
        clock.now = 25.0
        shown.update(0, 95, 2.0, 5000.0)
        assert "8m 45s left" in capsys.readouterr().out  # 5 s a step, 105 to come


def test_what_takes_its_time_before_the_first_step_is_not_its_speed(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with StudyProgress(NAMES[:1], [100]) as shown:
        shown.start(0)
        shown.update(0, 0, 2.0, 5000.0)
        clock.now = 40.0
        shown.say(0, "compiled in 40 s")
        shown.update(0, 0, 2.0, 5000.0)
        clock.now = 80.0
        shown.update(0, 50, 2.0, 5000.0)
        assert "40s left" in capsys.readouterr().out


def test_in_a_terminal_all_runs_share_one_display(clock: Clock) -> None:
    file = io.StringIO()
    screen = Console(file=file, force_terminal=True, width=150)
    with StudyProgress(NAMES, [100, 100], console=screen) as shown:
        shown.start(0)
        shown.start(1)
        shown.update(0, 50, 1.5, 1000.0)
        shown.lines.refresh()
        seen = file.getvalue()
        for words in ("run 1/2 rmsnorm-pre-lr2e-3-s0", "run 2/2 layernorm-pre", "0/2 runs"):
            assert words in seen
        shown.end(0)
        file.truncate(0)
        shown.update(1, 10, 1.5, 1000.0)
        shown.lines.refresh()
        assert "run 1/2" not in file.getvalue()
        assert "1/2 runs" in file.getvalue()


def test_the_time_left_is_that_of_all_runs_of_the_study(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with StudyProgress(NAMES[:1], [100], first=2, total=4) as shown:
        shown.start(0)
        shown.update(0, 0, 2.0, 5000.0)
        clock.now = 50.0
        shown.update(0, 50, 2.0, 5000.0)
        # A step a second: 50 steps of this run, and two more runs.
        line = capsys.readouterr().out
        assert line.startswith(f"run 2/4 {NAMES[0]}  step 50/100")
        assert "4m 10s left" in line


@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_a_run_without_a_result_is_called_by_its_state(state: State) -> None:
    record = RunRecord("id", NAMES[0], "rmsnorm", "pre", "synthetic", 0, {}, {}, state=state)
    record.reason = "stopped by Ctrl-C"
    assert format_outcome(record) == f"[red]{state}[/]: stopped by Ctrl-C"
    record.reason = None
    assert format_outcome(record) == f"[red]{state}[/]"


def test_a_recorded_run_has_no_speed_for_it_may_have_been_unsteady() -> None:
    record = RunRecord("id", NAMES[0], "rmsnorm", "pre", "synthetic", 0, {}, {}, state="finished")
    record.tokens_per_second = 18_012.0
    record.train_seconds = 65.0
    assert "tokens/s" not in format_outcome(record)
    assert format_outcome(record).endswith("  1m 05s")
