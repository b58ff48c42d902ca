"""The commands, and the only module that knows the applications: it hands the study theirs.

While a command is imported, a signal ends it at once: a KeyboardInterrupt in the middle of an
import would be a traceback through other people's files.
"""

import errno
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module

from normlab import output
from normlab.errors import ConfigError, report_user_errors
from normlab.text import excerpt
from normlab.training import stopping

OLDEST, TOO_NEW = (3, 11), (3, 14)  # as pyproject.toml has it; Hydra 1.3 does not start on 3.14
# Options of `train.py` whose answer is a text, and nothing else.
_QUESTIONS = ("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-i", "--info")

_Command = Callable[[], None]


def study() -> None:
    """`train.py` and `normlab`."""

    def import_command() -> _Command:
        if {"-m", "--multirun"} & set(sys.argv):
            from normlab.study import workers

            # It imports torch in another process while this one imports the rest.
            workers.start_fork_server()
        from normlab.apps.experiments import MEASURED_EXPERIMENTS, TRAINED_EXPERIMENTS
        from normlab.study.command import main

        return partial(main, TRAINED_EXPERIMENTS, MEASURED_EXPERIMENTS)

    is_question = any(word.split("=")[0] in _QUESTIONS for word in sys.argv[1:])
    _run_command(import_command, trains=not is_question)


def plot() -> None:
    """`scripts/plot.py` and `normlab-plot`."""

    def import_command() -> _Command:
        from normlab.analysis.plot import main
        from normlab.apps.experiments import TRAINED_EXPERIMENTS
        from normlab.apps.experiments.report import redraw_report

        return partial(main, experiments=TRAINED_EXPERIMENTS, redraw_measurement=redraw_report)

    _run_command(import_command)


def sample() -> None:
    """`scripts/sample.py` and `normlab-sample`."""
    _run_command(lambda: import_module("normlab.apps.sample").main)


def card() -> None:
    """`scripts/card.py` and `normlab-card`."""
    _run_command(lambda: import_module("normlab.apps.card.main").main)


def probe() -> None:
    """`scripts/probe.py` and `normlab-probe`."""
    _run_command(lambda: import_module("normlab.apps.probe.main").main)


def claims() -> None:
    """`scripts/claims.py` and `normlab-claims`."""
    _run_command(lambda: import_module("normlab.apps.claims.main").main)


def learn() -> None:
    """`scripts/learn.py` and `normlab-learn`."""
    _run_command(lambda: import_module("normlab.apps.learn.main").main)


def catalogue() -> None:
    """`scripts/catalogue.py`."""
    _run_command(lambda: import_module("normlab.apps.catalogue").main)


def _run_command(import_command: Callable[[], _Command], trains: bool = False) -> None:
    if not OLDEST <= sys.version_info < TOO_NEW:
        sys.exit(
            f"normlab: Python {sys.version.split()[0]} does not fit; use 3.11, 3.12 or 3.13, for "
            "which `make demo` makes .venv/bin/python."
        )
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    stopping.end_on_signals()
    output.secure_streams()
    _prepare_environment()
    try:
        with report_user_errors():
            _check_encoding()
            command = import_command()
        # From here on, what is half-written is tidied away before the end.
        stopping.raise_on_signals()
        if ignored:  # as a shell's script has it for what it begins in the background
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        command()
    except ModuleNotFoundError as missing:
        sys.exit(
            f"normlab: {missing.name} is not installed for {sys.executable}; run `make demo` once, "
            "then this command with .venv/bin/python in place of python."
        )
    except KeyboardInterrupt as stop:
        _restore_signals()
        sys.stderr.write("stopped\n")
        sys.exit(stopping.exit_code(stop))
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        _restore_signals()
    _report_lost_output(trains)


def _prepare_environment() -> None:
    """Set what libraries read when they are imported; refuse what none of them could work with."""
    # Figures go to files, in our own style: a user's window or notebook has no part in them.
    os.environ.update(MPLBACKEND="agg", MATPLOTLIBRC=os.devnull)
    # A build's clock: numpy and matplotlib read it, and stop where it is no number.
    os.environ.pop("SOURCE_DATE_EPOCH", None)
    # A matplotlibrc in the current folder is read all the same. Its values are not used
    # (analysis/style.py), so complaints about them would only confuse.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    _check_threads()
    try:
        os.getcwd()
    except OSError:
        sys.exit("normlab: the current folder no longer exists; change to one that does.")


def _report_lost_output(trains: bool) -> None:
    """Exit with a sentence where standard output could not be written; `trains`: runs are saved."""
    lost = output.write_failure(sys.stdout)
    if lost is not None and lost.errno != errno.EPIPE:  # EPIPE: `| head` has read enough
        rest = "; all else was done" if trains else ""
        sys.stderr.write(f"normlab: standard output cannot be written ({lost.strerror}){rest}.\n")
        sys.exit(0 if trains else 1)


def _check_encoding() -> None:
    """Refuse an argument with bytes that are no text: neither records nor tables can hold it."""
    for word in sys.argv[1:]:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            given = os.fsencode(word[error.start : error.end])
            raise ConfigError(
                f"{excerpt(word)} has the byte 0x{given[0]:02x}, which is no text in UTF-8; write "
                f"it in UTF-8, and rename a file or folder of such a name."
            ) from error


def _check_threads() -> None:
    """Refuse a number of threads that OpenMP would ignore, with a line of its own."""
    threads = os.environ.get("OMP_NUM_THREADS", "").strip()
    if not threads:
        os.environ.pop("OMP_NUM_THREADS", None)
    elif not re.fullmatch(r"0*[1-9]\d{0,8}(\s*,\s*0*[1-9]\d{0,8})*", threads, re.ASCII):
        sys.exit(
            f"normlab: OMP_NUM_THREADS={excerpt(threads)} in the environment is not a "
            f"valid number of threads; give a whole number from 1, or unset it."
        )


def _restore_signals() -> None:
    """A signal that comes as Python ends would be a traceback; it ends the process instead."""
    for signum in stopping.SIGNALS:
        if callable(signal.getsignal(signum)):
            signal.signal(signum, signal.SIG_DFL)
