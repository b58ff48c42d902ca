"""Processes that train, each forked from one that has imported torch already: they start at once.

Where there is no fork server (Windows), or it cannot start, they are started afresh, and import it
themselves. A process that dies takes nothing with it but its own run: none shares a lock or a queue
with another.
"""

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from normlab.training.stopping import SIGNALS

if TYPE_CHECKING:
    from pebble import ProcessFuture

_PRELOAD = "normlab.study.preload"
# macOS has one too, but its own libraries do not survive a fork.
FORKS = sys.platform.startswith("linux")
_failed = False  # whether the fork server was tried, and could not start


def begin() -> bool:
    """Let the fork server start, and import, while this process does something else.

    Returns whether there is one.
    """
    global _failed
    if not FORKS or _failed:
        return False
    from multiprocessing import forkserver, resource_tracker

    forkserver.set_forkserver_preload([_PRELOAD])
    try:
        for start in (resource_tracker.ensure_running, forkserver.ensure_running):
            with _deaf():
                start()
    except OSError as error:  # its socket is a file in TMPDIR, with at most 107 characters
        _failed = True
        logging.getLogger("normlab").warning(
            "runs start a little slower: no fork server can be started with its socket in %s (%s);"
            " another TMPDIR would help",
            os.environ.get("TMPDIR", "TMPDIR"),
            error.strerror or error,
        )
    return not _failed


def end() -> None:
    """Stop the fork server, which would go on importing for a command that was a mistake."""
    import psutil

    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if _PRELOAD in " ".join(child.cmdline()):
                child.kill()


def call(function: Callable[..., Any], *arguments: Any) -> "ProcessFuture[Any]":
    """Call a function of a module in a process of its own; ProcessExpired if that is killed."""
    from pebble.concurrent import process as in_a_process

    context = multiprocessing.get_context("forkserver" if begin() else "spawn")
    # It declares `mp_context`, reads `context`, and without it takes a plain fork.
    given: dict[str, Any] = {"mp_context": context, "context": context}
    started = in_a_process(daemon=True, **given)(function)
    future: ProcessFuture[Any] = started(*arguments)
    return future


def hear() -> None:
    """In such a process: take the signals that its fork server does not."""
    if FORKS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def _deaf() -> Iterator[None]:
    """What is started here keeps the signals for later: Ctrl-C reaches it too, as it imports."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
