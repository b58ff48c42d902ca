"""Ctrl-C, SIGTERM, SIGHUP: the first asks a run that trains to save and stop, the second stops it.

Elsewhere, where there is nothing to save, the first stops at once. SIGHUP is sent where a terminal
closes; Windows has none, and what was begun by `nohup` ignores it.
"""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from normlab import output

ANNOUNCEMENT = b"\nsaving, then stopping; once more stops at once\n"

SIGNALS: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
    SIGNALS += (signal.SIGHUP,)

Handler = Callable[[int, FrameType | None], Any] | int | None


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, as Python raises KeyboardInterrupt for SIGINT."""

    signum = signal.SIGTERM


class InterruptedTrainingError(Exception):
    """Raised between two steps of a run that was asked to stop, when its state is saved."""


_requested: int | None = None  # the signal that asked to stop since training began
_training = False  # whether the first signal can wait until a state is saved
_has_parent = False  # whether a parent process hears the user's signals, and passes them on
_raised = False  # of such a process: it is stopping
_at_once = False  # whether its parent has asked a second time: no state is waited for
_interruption: KeyboardInterrupt | None = None  # what the first signal has raised


@contextmanager
def handle_signals(handler: Handler) -> Iterator[None]:
    """Handle every signal by `handler` in the body, and as before after it."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    try:
        _set_handlers(handler)
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for signum, previous in before.items():
                signal.signal(signum, previous)


def raise_on_signals() -> None:
    """Let the first signal raise KeyboardInterrupt, or Terminated; a second ends at once.

    A second one that were raised too would interrupt the answer to the first, with a traceback.
    """
    global _interruption
    _interruption = None  # of a command before this one, in the same process
    _set_handlers(_raise_once)


@contextmanager
def restore_interruption() -> Iterator[None]:
    """Raise a signal's exception again where a library raised another in its place.

    It does where the signal came in the middle of a cleanup, and what failed then is no user's
    error: OmegaConf says that a key does not exist.
    """
    try:
        yield
    except Exception:
        raise_swallowed()
        raise


def raise_swallowed() -> None:
    """Stop, if a signal's exception was raised and a library has swallowed it."""
    if _interruption is not None:
        raise _interruption from None


def end_on_signals() -> None:
    """Let a signal end this process at once, with a word, and by the signal itself.

    For imports: a KeyboardInterrupt in the middle of one is a traceback through others' files.
    """
    _set_handlers(_end_at_once)


def ignore_signals() -> None:
    """Ignore signals in a process that is leaving: they would only interrupt its last sentence."""
    _set_handlers(signal.SIG_IGN)


def follow_parent() -> None:
    """Be a process that stops when its parent asks for it.

    Signals that reach it as well, as Ctrl-C in a terminal does, then ask for nothing more.
    """
    global _has_parent
    _has_parent = True
    _set_handlers(_handle_as_child)


def request_stop(signum: signal.Signals, at_once: bool = False) -> None:
    """Do in the main thread, from another, what a signal would do, or a second one."""
    global _at_once
    _at_once = _at_once or at_once
    _thread.interrupt_main(signum)


@contextmanager
def defer_signals() -> Iterator[None]:
    """Note the first signal for `requested_signal`, instead of raising."""
    global _requested, _training
    _requested, _training = None, True
    with handle_signals(_handle_as_child if _has_parent else _note_first):
        try:
            yield
        finally:
            _training = False


def defer_signals_again() -> None:
    """Take the signals back from a library that has taken them within `defer_signals`."""
    _set_handlers(_handle_as_child if _has_parent else _note_first)


def requested_signal() -> int | None:
    """The signal that asked to stop, since training began; None while none did."""
    return _requested


def raise_requested() -> None:
    """Stop, if a signal asked for it when the run had no step left to stop before."""
    if _requested is not None:
        raise interruption_for(_requested)


def interruption_for(signum: int) -> KeyboardInterrupt:
    """What to raise for a signal."""
    if signum == signal.SIGINT:
        return KeyboardInterrupt()
    interruption = Terminated()
    interruption.signum = signal.Signals(signum)
    return interruption


def signal_of(error: BaseException) -> signal.Signals:
    """The signal behind an interruption."""
    if isinstance(error, InterruptedTrainingError) and _requested is not None:
        return signal.Signals(_requested)
    return error.signum if isinstance(error, Terminated) else signal.SIGINT


def exit_code(interruption: KeyboardInterrupt) -> int:
    """What a shell reports of a process that the signal behind an interruption has ended."""
    return 128 + signal_of(interruption)


def _set_handlers(handler: Handler) -> None:
    # Python lets only the main thread set them.
    if threading.current_thread() is threading.main_thread():
        for signum in SIGNALS:
            signal.signal(signum, handler)


def _end_at_once(signum: int, frame: FrameType | None) -> Any:
    output.write_error(b"stopped\n")
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)


def _raise_once(signum: int, frame: FrameType | None) -> Any:
    global _interruption
    _set_handlers(signal.SIG_DFL)
    _interruption = interruption_for(signum)
    raise _interruption


def _note_first(signum: int, frame: FrameType | None) -> Any:
    global _requested
    if _requested is not None:
        raise interruption_for(signum)
    _requested = signum
    output.write_error(ANNOUNCEMENT)


def _handle_as_child(signum: int, frame: FrameType | None) -> Any:
    global _requested, _raised
    if _raised or (_requested is not None and not (_training and _at_once)):
        return  # it is stopping
    if _training and not _at_once:
        _requested = signum
        return
    _raised = True
    raise interruption_for(_requested or signum)
