"""What a process that trains needs, imported once, before the processes are forked from this one.

Imported by the fork server (`normlab.study.engine`), and by whoever trains in its own process. It
must not compute: OpenMP's threads, once started, do not survive a fork.
"""

import gc
import importlib
import sys

from normlab.study.light import load_lightning


def load() -> None:
    """Import what training needs.

    Nothing that is imported is ever garbage: looking for some in between is a fifth of the time,
    and looking through all of it again, later, would slow every process that is forked from here.
    """
    if "normlab.training.run" in sys.modules:
        return
    gc.disable()
    try:
        load_lightning()
        importlib.import_module("normlab.training.run")
        gc.freeze()
    finally:
        gc.enable()
