"""The errors a user can cause, each one sentence: what was given, what is allowed, what to do.

The commands run in `report_user_errors`, which prints the sentence and leaves with the code;
nothing else prints errors. What a message names is shortened here, whoever wrote it.
"""

import argparse
import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import NoReturn

from normlab.text import LONGEST_PART, excerpt, printable, shorten_long_parts


class NormlabError(Exception):
    """Something outside the program went wrong: a file, the disk, a download. Exit code 1."""

    exit_code = 1

    def __str__(self) -> str:
        return shorten_long_parts(super().__str__())


class ConfigError(NormlabError):
    """The request itself cannot be carried out: a key, a value, a combination. Exit code 2."""

    exit_code = 2


@contextmanager
def report_user_errors() -> Iterator[None]:
    """Turn a user's error in the body into its sentence on stderr and its exit code."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        _leave(
            ConfigError(f"{excerpt(error.filename)} is too long for a path; give a shorter one.")
        )
    except NormlabError as error:
        _leave(error)


@contextmanager
def explain_failed_import() -> Iterator[None]:
    """Turn what a library raises while the body imports it into a NormlabError that names it.

    A module that is not installed is left to the command.
    """
    try:
        yield
    except (ModuleNotFoundError, NormlabError):
        raise
    except Exception as error:
        frames = [frame for frame, _ in walk_tb(error.__traceback__)]
        library = str(frames[-1].f_globals.get("__name__", "")).partition(".")[0]
        if library == "normlab":
            raise
        reason = excerpt(" ".join(str(error).split()))
        raise NormlabError(
            f"{library} cannot be imported ({type(error).__name__}: {reason}); a variable "
            f"of the environment that it reads may be wrong, or its installation damaged."
        ) from error


def _leave(error: NormlabError) -> NoReturn:
    message = str(error)
    for argument in sys.argv[1:]:  # with commas, a value looks like many parts
        for value in (argument, argument.partition("=")[2].strip()):
            if len(value) > LONGEST_PART:
                message = message.replace(value, excerpt(value))
    sys.stderr.write(printable(f"normlab: {message}\n"))
    sys.exit(error.exit_code)


class CommandParser(argparse.ArgumentParser):
    """Reads a command's flags; what is wrong with them is a sentence as any other."""

    def error(self, message: str) -> NoReturn:
        """Raise the sentence."""
        raise ConfigError(f"{message}; --help shows what there is.")
