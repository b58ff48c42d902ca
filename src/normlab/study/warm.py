"""What a process that trains needs, imported once, before the processes are forked from this one.

Imported by the fork server (`normlab.study.engine`), and by whoever trains in its own process. It
must not compute: OpenMP's threads, once started, do not survive a fork.
"""

import gc
import importlib
import importlib.machinery
import sys
import types


def load_lightning() -> None:
    """Import Lightning without torchmetrics, which takes as long as torch itself.

    Lightning asks whether what is logged is one of its metrics, which nothing here ever is; and
    torchmetrics imports scipy, matplotlib and, where they are installed, transformers.
    """
    if "pytorch_lightning" in sys.modules or "torchmetrics" in sys.modules:
        return
    import torch

    stand_in = types.ModuleType("torchmetrics")
    stand_in.__spec__ = importlib.machinery.ModuleSpec("torchmetrics", None)
    stand_in.__version__ = "1.0.0"  # type: ignore[attr-defined]
    for name in ("Metric", "MetricCollection"):
        setattr(stand_in, name, type(name, (torch.nn.Module,), {}))
    sys.modules["torchmetrics"] = stand_in
    try:
        importlib.import_module("pytorch_lightning")
    except (ImportError, AttributeError):
        # Another Lightning, which wants more of it.
        for name in [name for name in sys.modules if name.startswith(("pytorch_l", "lightning_f"))]:
            del sys.modules[name]
    finally:
        del sys.modules["torchmetrics"]


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
