"""The commands' doors: each imports its room with Ctrl-C at the system's default, then enters.

A KeyboardInterrupt in the middle of an import would be a traceback through other people's files.
"""

import signal
import sys
from collections.abc import Callable
from importlib import import_module


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


def _begin() -> None:
    if {"-m", "--multirun"} & set(sys.argv):
        from normlab.study import engine

        engine.begin()


def _enter(room: str, first: Callable[[], None] = lambda: None) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    first()
    main = import_module(room).main
    try:
        # Python's own way again: what is half-written is tidied away before the end.
        signal.signal(signal.SIGINT, before)
        main()
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)
