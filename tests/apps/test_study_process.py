"""What a study in a process of its own is sent when the command that waits for it is stopped."""

import signal
import subprocess

import pytest

from normlab.apps.study_process import run_study_command
from normlab.training.stopping import interruption_for


@pytest.mark.parametrize(
    ("stop", "signals"),
    [
        # A terminal sends these to the study as well.
        (interruption_for(signal.SIGINT), []),
        (interruption_for(signal.SIGHUP), []),
        (interruption_for(signal.SIGTERM), ["terminate"]),
        (SystemExit(1), ["terminate"]),
    ],
)
def test_a_study_gets_one_signal_and_time_to_save(
    stop: BaseException, signals: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    limits: list[float | None] = []

    class StubProcess:
        def __init__(self, command: list[str]) -> None:
            assert command[-1] == "norm=rmsnorm"

        def wait(self, timeout: float | None = None) -> int:
            limits.append(timeout)
            if timeout is None:
                raise stop
            return 130

        def terminate(self) -> None:
            sent.append("terminate")

    monkeypatch.setattr(subprocess, "Popen", StubProcess)
    with pytest.raises(type(stop)):
        run_study_command(["norm=rmsnorm"])
    assert sent == signals
    assert limits == [None, 60]
