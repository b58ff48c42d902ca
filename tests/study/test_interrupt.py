"""Ctrl-C: the run says that it was stopped, the figures are drawn, the same command goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from normlab.analysis import figures
from normlab.archive.record import RunRecord
from normlab.training import stopping
from tiny_run import TINY, keep_last

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("signum", "send", "code"),
    [
        pytest.param(signal.SIGINT, os.kill, 130, id="SIGINT"),
        # As `timeout` and batch systems send it: to the processes that train and the fork server.
        pytest.param(
            signal.SIGTERM, os.killpg, 143, id="SIGTERM to the group", marks=pytest.mark.slow
        ),
    ],
)
def test_a_signal_stops_in_words_and_draws_what_is_there(
    signum: int, send: Callable[[int, int], None], code: int, tmp_path: Path
) -> None:
    long = keep_last([*TINY, "trainer.max_steps=100000"])
    command = [sys.executable, "train.py", "-m", "seed=0,1", *long]
    command.append("trainer.save_seconds=0.1")
    process = subprocess.Popen(
        [*command, f"output_dir={tmp_path}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    study = tmp_path / "synthetic"
    deadline = time.monotonic() + 60
    # A second state is one after some steps; the first validation already leaves a best one.
    while len(list(study.glob("*/checkpoints/previous.ckpt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    started = psutil.Process(process.pid).children(recursive=True)
    send(process.pid, signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert psutil.wait_procs(started, 5)[1] == []
    assert "its process" not in out  # it ended as it should
    assert err.count("saving, then stopping") == 1
    assert "stopped; the same command goes on where it was" in err
    assert "Traceback" not in err
    records = [RunRecord.read(path.parent) for path in study.glob("*/run.json")]
    assert len(records) == 2
    for record in records:
        assert record.state == "interrupted"
        assert record.reason == f"stopped by {signal.Signals(signum).name} at step {record.step}"
        assert record.step > 0
    assert (study / "figures" / "comparison.png").is_file()


@pytest.fixture
def signals() -> Iterator[None]:
    """A command that was stopped leaves this process deaf."""
    before = {signum: signal.getsignal(signum) for signum in stopping.SIGNALS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.usefixtures("signals")
def test_stopped_with_nothing_but_figures_left_it_says_so(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw_only: Callable
) -> None:
    draw_only("comparison")
    command = ["-m", *TINY, f"output_dir={tmp_path}"]
    # The first has trained its run, the others find it there.
    for signum, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        with monkeypatch.context() as stopped:
            stopped.setattr(figures, "draw_figures", lambda *_, s=signum: os.kill(os.getpid(), s))
            answer = train_py(*command)
        assert (answer.code, answer.err) == (code, "stopped; the same command draws the figures\n")
    assert train_py(*command).code == 0
    assert (tmp_path / "synthetic" / "figures" / "comparison.png").is_file()
