"""A study trained by an application: `train.py` in a process of its own."""

import signal
import subprocess
import sys
from collections.abc import Sequence

from normlab.training import stopping

# What `train.py` does; there is no such file beside an installed package.
_TRAIN = "import sys; sys.argv[0] = 'train.py'; from normlab.cli import study; study()"
_SECONDS_TO_SAVE = 60


def run_study_command(arguments: Sequence[str]) -> int:
    """Run `train.py` with these arguments and return its exit code.

    Stopped by a signal, it lets the study save what it has first.
    """
    process = subprocess.Popen([sys.executable, "-c", _TRAIN, *arguments])
    try:
        return process.wait()
    except BaseException as stop:
        # Ctrl-C and SIGHUP reach the study by themselves; a second signal would stop it without
        # saving.
        if not isinstance(stop, KeyboardInterrupt) or stopping.signal_of(stop) is signal.SIGTERM:
            process.terminate()
        try:
            process.wait(_SECONDS_TO_SAVE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
