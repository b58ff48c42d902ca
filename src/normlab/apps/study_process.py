"""A study trained by an application: `train.py` in a process of its own."""

import subprocess
import sys
from collections.abc import Sequence

# What `train.py` does; there is no such file beside an installed package.
_TRAIN = "import sys; sys.argv[0] = 'train.py'; from normlab.cli import study; study()"
_SECONDS_TO_SAVE = 60


def run_study_command(arguments: Sequence[str]) -> int:
    """Run `train.py` with these arguments and return its exit code.

    Stopped by a signal, it lets the study save what it has first.
    """
    # In a group of its own: a terminal sends Ctrl-C to every process of its group, and a second
    # signal would stop the study before it has saved.
    process = subprocess.Popen([sys.executable, "-c", _TRAIN, *arguments], process_group=0)
    try:
        return process.wait()
    # Not Exception: a signal raises KeyboardInterrupt here.
    except BaseException:
        process.terminate()
        try:
            process.wait(_SECONDS_TO_SAVE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
