"""The errors a user can cause, each one sentence: what was given, what is allowed, what to do.

The doors (train.py, scripts/) stand in `in_words`, which prints the sentence and leaves with the
code; nothing else prints errors.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from normlab.text import printable


class NormlabError(Exception):
    """Something outside the program went wrong: a file, the disk, a download. Exit code 1."""

    exit_code = 1


class ConfigError(NormlabError):
    """The request itself cannot be carried out: a key, a value, a combination. Exit code 2."""

    exit_code = 2


@contextmanager
def in_words() -> Iterator[None]:
    """Turn a user's error in the body into its sentence on stderr and its exit code."""
    try:
        yield
    except NormlabError as error:
        sys.stderr.write(printable(f"normlab: {error}\n"))
        sys.exit(error.exit_code)
