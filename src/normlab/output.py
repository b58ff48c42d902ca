"""Standard streams that never raise: a command does not fail where it cannot write or decode them.

A character that the terminal's encoding lacks is shown by the nearest that it has. Where nothing
can be written any more (a reader that has left, a full disk, a closed descriptor) the rest is
dropped, and `write_failure` returns why.
"""

import codecs
import errno
import io
import os
import select
import sys
import unicodedata
from contextlib import suppress
from typing import Any, TextIO

_SIMPLIFY = "normlab.simplify"


class _Descriptor(io.RawIOBase):
    """An open file descriptor that takes everything, and drops it after the first failure."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        while self.failure is None:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # somebody else has made it one that does not wait
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.failure = error
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)


def secure_streams() -> None:
    """Let no standard stream of this process raise; one that was replaced is left alone."""
    _open_closed_descriptors()
    codecs.register_error(_SIMPLIFY, _encode_simpler)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _secure_stream(sys.stdout, 1, _SIMPLIFY)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _secure_stream(sys.stderr, 2, "backslashreplace")
    if sys.stdin is sys.__stdin__ and isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # as a byte that is typed and is not UTF-8


def write_failure(stream: TextIO | None) -> OSError | None:
    """Why a stream of `secure_streams` has dropped something; None where all was written."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    if not isinstance(raw, _Descriptor) or stream is None:
        return None
    stream.flush()
    return raw.failure


def write_error(data: bytes) -> None:
    """Write to standard error from a signal handler: past `sys.stderr`, which it may interrupt."""
    with suppress(OSError):
        os.write(2, data)


# What ASCII has in place of the signs that are written here.
_SIMPLER = {
    "±": "+-", "×": "x", "÷": "/", "·": "|", "−": "-", "–": "-", "—": "-", "…": "...", "→": "->",
    "≤": "<=", "≥": ">=", "≈": "~", "√": "sqrt", "∞": "inf", "∂": "d", "Δ": "delta", "‖": "|",
    "α": "alpha", "β": "beta", "γ": "gamma", "ε": "eps", "μ": "mu", "σ": "sigma", "←": "<-",
    "“": '"', "”": '"', "’": "'", "─": "-", "│": "|", "━": "-", "╸": "-", "╺": "-",
}  # fmt: skip


def _encode_simpler(error: UnicodeError) -> tuple[str, int]:
    """For `codecs`: each sign that the terminal lacks as the nearest that it has, or else `?`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    simpler = ""
    for character in error.object[error.start : error.end]:
        plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
        simpler += _SIMPLER.get(character) or plain or "?"
    return simpler, error.end


def _open_closed_descriptors() -> None:
    """Give descriptors 0 to 2 a file, or the next file that is opened would be standard output."""
    with suppress(OSError):
        descriptor = os.open(os.devnull, os.O_RDWR)
        while descriptor <= 2:
            os.set_inheritable(descriptor, True)
            descriptor = os.dup(descriptor)
        os.close(descriptor)


def _secure_stream(stream: TextIO | None, descriptor: int, errors: str) -> TextIO:
    raw = _Descriptor(descriptor)
    if stream is None:
        raw.failure = OSError(errno.EBADF, os.strerror(errno.EBADF))
        return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", errors)
    with suppress(OSError):
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        stream.encoding,
        errors,
        line_buffering=descriptor == 2 or stream.isatty(),
        write_through=bool(getattr(stream, "write_through", False)),
    )
