"""The commands' doors: each imports its room with Ctrl-C at the system's default, then enters.

A KeyboardInterrupt in the middle of an import would be a traceback through other people's files.
"""

import errno
import logging
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module

from normlab import output
from normlab.training import stopping

OLDEST, TOO_NEW = (3, 11), (3, 14)  # as pyproject.toml has it; Hydra 1.3 does not start on 3.14
# Options of `train.py` whose answer is a text, and nothing else.
_QUESTIONS = ("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-i", "--info")


def study() -> None:
    """`train.py` and `normlab`; a study's torch is imported beside this process, from the start."""
    asks = any(word.split("=")[0] in _QUESTIONS for word in sys.argv[1:])
    _enter("normlab.study.command", _begin, trains=not asks)


def plot() -> None:
    """`scripts/plot.py` and `normlab-plot`."""
    _enter("normlab.analysis.plot")


def sample() -> None:
    """`scripts/sample.py` and `normlab-sample`."""
    _enter("normlab.apps.sample")


def card() -> None:
    """`scripts/card.py` and `normlab-card`."""
    _enter("normlab.apps.card.main")


def probe() -> None:
    """`scripts/probe.py` and `normlab-probe`."""
    _enter("normlab.apps.probe.main")


def claims() -> None:
    """`scripts/claims.py` and `normlab-claims`."""
    _enter("normlab.apps.claims.main")


def catalogue() -> None:
    """`scripts/catalogue.py`."""
    _enter("normlab.apps.catalogue")


def _begin() -> None:
    if {"-m", "--multirun"} & set(sys.argv):
        from normlab.study import workers

        workers.start_fork_server()


def _leave_signals() -> None:
    """A signal that comes as Python ends would be a traceback; it ends the process instead."""
    for signum in stopping.SIGNALS:
        if callable(signal.getsignal(signum)):
            signal.signal(signum, signal.SIG_DFL)


def _enter(room: str, first: Callable[[], None] = lambda: None, trains: bool = False) -> None:
    if not OLDEST <= sys.version_info < TOO_NEW:
        sys.exit(
            f"normlab: Python {sys.version.split()[0]} does not fit; use 3.11, 3.12 or 3.13, for "
            "which `make demo` makes .venv/bin/python."
        )
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    output.secure_streams()
    # Figures go to files, in our own style: a user's window or notebook has no part in them.
    os.environ.update(MPLBACKEND="agg", MATPLOTLIBRC=os.devnull)
    # A matplotlibrc in the current folder is read all the same. Its values are not used
    # (analysis/style.py), so complaints about them would only confuse.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        first()
        main = import_module(room).main
        # Python's own way again: what is half-written is tidied away before the end.
        signal.signal(signal.SIGINT, before)
        main()
    except ModuleNotFoundError as missing:
        sys.exit(
            f"normlab: {missing.name} is not installed for {sys.executable}; run `make demo` once, "
            "then this command with .venv/bin/python in place of python."
        )
    except KeyboardInterrupt as stop:
        _leave_signals()
        sys.stderr.write("stopped\n")
        sys.exit(stopping.exit_code(stop))
    except SystemExit as left:
        if left.code:
            raise
    finally:
        _leave_signals()
    lost = output.write_failure(sys.stdout)
    if lost is not None and lost.errno != errno.EPIPE:  # as `| head` has read what it wanted
        rest = "; all else was done" if trains else ""
        sys.stderr.write(f"normlab: standard output cannot be written ({lost.strerror}){rest}.\n")
        sys.exit(0 if trains else 1)
