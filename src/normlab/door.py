"""The commands' doors: each imports its room with Ctrl-C at the system's default, then enters.

A KeyboardInterrupt in the middle of an import would be a traceback through other people's files.
"""

import signal
import sys
from collections.abc import Callable
from importlib import import_module

OLDEST, TOO_NEW = (3, 11), (3, 14)  # as pyproject.toml has it; Hydra 1.3 does not start on 3.14


def study() -> None:
    """`train.py` and `normlab`; a study's torch is imported beside this process, from the start."""
    _enter("normlab.study.main", _begin)


def plot() -> None:
    """`scripts/plot.py` and `normlab-plot`."""
    _enter("normlab.analysis.plot")


def sample() -> None:
    """`scripts/sample.py` and `normlab-sample`."""
    _enter("normlab.training.sample")


def card() -> None:
    """`scripts/card.py` and `normlab-card`."""
    _enter("normlab.study.card")


def probe() -> None:
    """`scripts/probe.py` and `normlab-probe`."""
    _enter("normlab.study.probe")


def claims() -> None:
    """`scripts/claims.py` and `normlab-claims`."""
    _enter("normlab.study.claims.main")


def _begin() -> None:
    if {"-m", "--multirun"} & set(sys.argv):
        from normlab.study import engine

        engine.begin()


def _enter(room: str, first: Callable[[], None] = lambda: None) -> None:
    if not OLDEST <= sys.version_info < TOO_NEW:
        sys.exit(
            f"normlab: Python {sys.version.split()[0]} does not fit; use 3.11, 3.12 or 3.13, for "
            "which `make demo` makes .venv/bin/python."
        )
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
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
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)
