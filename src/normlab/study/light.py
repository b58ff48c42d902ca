"""Lightning without what it imports for others: torchmetrics, and torch's compiler.

Each takes as long as torch itself. Lightning asks whether what is logged is a metric of
torchmetrics, and whether a module was compiled as a whole; neither ever is here.
"""

import importlib
import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any


def load_lightning() -> None:
    """Import Lightning, if it is not there; another one, which wants more of them, with them."""
    if "pytorch_lightning" in sys.modules:
        return
    metrics = {"__version__": "1.0.0", "Metric": _nothing(), "MetricCollection": _nothing()}
    compiler = {"OptimizedModule": _nothing(), "disable": _undisabled}
    with ExitStack() as stack:
        stack.enter_context(_instead("torchmetrics", metrics))
        stack.enter_context(_instead("torch._dynamo", compiler))
        try:
            importlib.import_module("normlab.training.lightning")
        except (ImportError, AttributeError):
            for name in [one for one in sys.modules if one.startswith(("pytorch_l", "lightning_"))]:
                del sys.modules[name]


@contextmanager
def _instead(name: str, holds: dict[str, Any]) -> Iterator[None]:
    """A module of this name that holds so much and no more, unless the real one is there."""
    if name in sys.modules:
        yield
        return
    stand_in = types.ModuleType(name)
    stand_in.__spec__ = importlib.machinery.ModuleSpec(name, None)
    stand_in.__dict__.update(holds)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]
        parent, _, own = name.rpartition(".")
        if parent:
            with suppress(AttributeError):
                delattr(sys.modules[parent], own)


def _nothing() -> type:
    """A class that nothing is of."""
    import torch

    return type("Nothing", (torch.nn.Module,), {})


def _undisabled(function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
    """`torch.compiler.disable` of a method of Lightning's, none of which is compiled here."""
    return function
