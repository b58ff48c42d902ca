"""The commands, and the only place that knows the applications.

Each command imports what it needs with Ctrl-C at the system's default: a KeyboardInterrupt in the
middle of an import would be a traceback through other people's files. So the imports are in the
functions.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module

from normlab import output
from normlab.training import stopping

OLDEST_PYTHON, FIRST_UNSUPPORTED = (3, 11), (3, 14)  # as in pyproject.toml; Hydra 1.3 needs < 3.14
# Options of `train.py` whose answer is a text, and nothing else.
_QUESTIONS = ("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-i", "--info")


def study() -> None:
    """`train.py` and `normlab`; a study's torch is imported in the fork server, from the start."""
    only_prints = any(word.split("=")[0] in _QUESTIONS for word in sys.argv[1:])
    run_command(load_study, trains=not only_prints)


def load_study() -> Callable[[], None]:
    """The main function of `train.py`, which knows the experiments that measure."""
    if {"-m", "--multirun"} & set(sys.argv):
        from normlab.study import workers

        workers.start_fork_server()
    from normlab.apps.experiments import MEASURED_EXPERIMENTS
    from normlab.study.command import main
    from normlab.study.sweep import register_measured_experiments

    register_measured_experiments(MEASURED_EXPERIMENTS)
    return main


def plot() -> None:
    """`scripts/plot.py` and `normlab-plot`."""
    run_command(lambda: import_module("normlab.analysis.plot").main)


def sample() -> None:
    """`scripts/sample.py` and `normlab-sample`."""
    run_command(lambda: import_module("normlab.apps.sample").main)


def card() -> None:
    """`scripts/card.py` and `normlab-card`."""
    run_command(lambda: import_module("normlab.apps.card.main").main)


def probe() -> None:
    """`scripts/probe.py` and `normlab-probe`."""
    run_command(lambda: import_module("normlab.apps.probe.main").main)


def claims() -> None:
    """`scripts/claims.py` and `normlab-claims`."""
    run_command(lambda: import_module("normlab.apps.claims.main").main)


def catalogue() -> None:
    """`scripts/catalogue.py`."""
    run_command(lambda: import_module("normlab.apps.catalogue").main)


def run_command(load: Callable[[], Callable[[], None]], trains: bool = False) -> None:
    """Run the main function that `load` imports; every way it may end is an exit code."""
    if not OLDEST_PYTHON <= sys.version_info < FIRST_UNSUPPORTED:
        sys.exit(
            f"normlab: Python {sys.version.split()[0]} does not fit; use 3.11, 3.12 or 3.13, for "
            "which `make demo` makes .venv/bin/python."
        )
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    output.secure_streams()
    # Figures go to files, in our own style: a user's window or notebook has no part in them.
    os.environ.update(MPLBACKEND="agg", MATPLOTLIBRC=os.devnull)
    try:
        main = load()
        # Python's own way again: what is half-written is tidied away before the end.
        signal.signal(signal.SIGINT, before)
        main()
    except ModuleNotFoundError as missing:
        sys.exit(
            f"normlab: {missing.name} is not installed for {sys.executable}; run `make demo` once, "
            "then this command with .venv/bin/python in place of python."
        )
    except KeyboardInterrupt as interruption:
        _reset_signals()
        sys.stderr.write("stopped\n")
        sys.exit(stopping.exit_code(interruption))
    except SystemExit as leaving:
        if leaving.code:
            raise
    finally:
        _reset_signals()
    failure = output.write_failure(sys.stdout)
    if failure is not None and failure.errno != errno.EPIPE:  # as `| head` has read its lines
        rest = "; all else was done" if trains else ""
        sys.stderr.write(
            f"normlab: standard output cannot be written ({failure.strerror}){rest}.\n"
        )
        sys.exit(0 if trains else 1)


def _reset_signals() -> None:
    """Let a signal that comes as Python ends end the process, where it would be a traceback."""
    for signum in stopping.SIGNALS:
        if callable(signal.getsignal(signum)):
            signal.signal(signum, signal.SIG_DFL)
