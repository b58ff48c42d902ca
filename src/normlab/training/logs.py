"""Where a run's words go: to its own log, and Lightning's to nobody."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from normlab.archive.files import open_to_append
from normlab.text import printable
from normlab.training.tensorboard import writes_events

log = logging.getLogger("normlab")


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Keep what is logged meanwhile in this file."""
    file = open_to_append(path)
    handler = logging.StreamHandler(file)
    # A full disk fails here first; the run says so itself, with its next write that matters.
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
        with suppress(OSError):  # as above
            file.close()


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning greets, tips and warns about what is meant here; the terminal is the display's."""
    chatty = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in chatty]
    hook = threading.excepthook
    for logger in chatty:
        logger.setLevel(logging.ERROR)
    # What stops TensorBoard's writer is raised again here, with the next thing written.
    threading.excepthook = lambda raised: None if writes_events(raised.thread) else hook(raised)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
            yield
    finally:
        threading.excepthook = hook
        for logger, level in zip(chatty, levels, strict=True):
            logger.setLevel(level)
