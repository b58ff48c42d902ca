"""A study in a process of its own is sent one signal when the command that waits is stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from normlab.apps.study_process import run_study_command

STUDY = """
import signal, sys, time
from pathlib import Path
received = []
signal.signal(signal.SIGINT, lambda *_: received.append("SIGINT"))
signal.signal(signal.SIGTERM, lambda *_: received.append("SIGTERM"))
Path("began").touch()
deadline = time.monotonic() + 60
while not received and time.monotonic() < deadline:
    time.sleep(0.01)
time.sleep(0.5)  # a second signal would come now
Path("received").write_text(" ".join(received))
"""
COMMAND = """
from normlab.apps import study_process
from normlab.training import stopping
study_process._TRAIN = {study!r}
stopping.raise_on_signals()
study_process.run_study_command([])
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_a_study_gets_one_signal_and_time_to_save(send, signum: int, tmp_path: Path) -> None:
    # A terminal sends its signals to the whole group, `kill` to the command alone.
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(study=STUDY)],
        cwd=tmp_path,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "began").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    send(command.pid, signum)
    assert command.wait(60) != 0
    assert (tmp_path / "received").read_text() == "SIGTERM"


def test_the_exit_code_is_that_of_train_py(capfd: pytest.CaptureFixture) -> None:
    assert run_study_command(["norm=rmsnrom"]) == 2
    assert "did you mean norm=rmsnorm?" in capfd.readouterr().err
