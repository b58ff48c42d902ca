"""Ctrl-C, SIGTERM, SIGHUP: the first asks a run that trains to save and stop, the second stops it.

Elsewhere, where there is nothing to save, the first stops at once. SIGHUP is sent where a terminal
closes; Windows has none, and what was begun by `nohup` ignores it.
"""

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from normlab import output

ANNOUNCEMENT = b"\nsaving, then stopping; once more stops at once\n"


SIGNALS: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
    SIGNALS += (signal.SIGHUP,)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, as Python raises KeyboardInterrupt for SIGINT."""

    signum = signal.SIGTERM


class InterruptedTrainingError(Exception):
    """Raised between two steps of a run that was asked to stop, when its state is saved."""


_asked: int | None = None
_training = False  # whether the first signal can wait until a state is saved
_served = False  # whether a parent speaks with the user, and says what is to be done
_raised = False  # of such a process: it is stopping
_at_once = False


def serve() -> None:
    """Be a process that stops when its parent says so.

    Signals that reach it as well, as Ctrl-C in a terminal does, then ask for nothing more.
    """
    global _served
    _served = True
    for signum in SIGNALS:
        signal.signal(signum, _serve)


def ask(signum: signal.Signals, at_once: bool = False) -> None:
    """Do in the main thread, from another, what a signal would do, or a second one."""
    global _at_once
    _at_once = _at_once or at_once
    _thread.interrupt_main(signum)


def asked() -> int | None:
    """The signal that asked to stop, since training began; None while nobody did."""
    return _asked


def listen() -> None:
    """Let the first signal raise KeyboardInterrupt, or Terminated; a second ends at once.

    A second one that were raised too would interrupt the answer to the first, with a traceback.
    """
    if threading.current_thread() is threading.main_thread():
        for signum in SIGNALS:
            signal.signal(signum, _raise)


def ignore() -> None:
    """The process is leaving: another signal would only interrupt its last words."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def signal_of(error: BaseException) -> signal.Signals:
    """The signal behind an interruption."""
    if isinstance(error, InterruptedTrainingError) and _asked is not None:
        return signal.Signals(_asked)
    return error.signum if isinstance(error, Terminated) else signal.SIGINT


def stop(signum: int) -> KeyboardInterrupt:
    """What to raise for a signal."""
    if signum == signal.SIGINT:
        return KeyboardInterrupt()
    stopped = Terminated()
    stopped.signum = signal.Signals(signum)
    return stopped


def exit_code(stopped: KeyboardInterrupt) -> int:
    """What a shell says of a process that the signal behind an interruption has ended."""
    return 128 + signal_of(stopped)


def obey() -> None:
    """Stop, if a signal asked for it when the run had no step left to stop before."""
    if _asked is not None:
        raise stop(_asked)


@contextmanager
def politely() -> Iterator[None]:
    """Note the first signal for `asked`, instead of raising."""
    global _asked, _training
    _asked = None
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    try:
        heed()
        _training = True
        yield
    finally:
        _training = False
        if threading.current_thread() is threading.main_thread():
            for signum, handler in before.items():
                signal.signal(signum, handler)


def heed() -> None:
    """Take the signals, also from a library that has taken them in between."""
    if threading.current_thread() is threading.main_thread():
        for signum in SIGNALS:
            signal.signal(signum, _serve if _served else _note)


def _note(signum: int, frame: FrameType | None) -> Any:
    global _asked
    if _asked is not None:
        raise stop(signum)
    _asked = signum
    output.write_error(ANNOUNCEMENT)


def _serve(signum: int, frame: FrameType | None) -> Any:
    global _asked, _raised
    if _raised or (_asked is not None and not (_training and _at_once)):
        return  # it is stopping
    if _training and not _at_once:
        _asked = signum
        return
    _raised = True
    raise stop(_asked or signum)


def _raise(signum: int, frame: FrameType | None) -> Any:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    raise stop(signum)
