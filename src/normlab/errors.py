"""The errors a user can cause, each one sentence: what was given, what is allowed, what to do.

The commands run in `report_user_errors`, which prints the sentence and leaves with the code;
nothing else prints errors. What a message names is shortened here, whoever wrote it.
"""

import argparse
import errno
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any, NoReturn

from normlab.text import (
    LONGEST_PART,
    excerpt,
    one_line,
    printable,
    shorten_long_parts,
    suggest_closest,
)


class NormlabError(Exception):
    """Something outside the program went wrong: a file, the disk, a download. Exit code 1."""

    exit_code = 1

    def __str__(self) -> str:
        return shorten_long_parts(super().__str__())


class ConfigError(NormlabError):
    """The request itself cannot be carried out: a key, a value, a combination. Exit code 2."""

    exit_code = 2


def describe_error(error: BaseException, most: int | None = None) -> str:
    """An error on one line, as a reason: with its class, unless it is normlab's or the system's.

    It ends with the line of the user's own code that raised it, where there is one. Of a message of
    more than `most` characters only the first ones are shown.
    """
    if isinstance(error, NormlabError):
        return one_line(error, most)
    if isinstance(error, OSError) and error.strerror:
        reason = f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    else:
        message = one_line(error, most)
        reason = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return reason + _name_source_line(error)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without its period; the class where there is none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


# What may stand between the program and a user's class.
_FRAMEWORKS = ("normlab", "torch", "hydra", "omegaconf", "pytorch_lightning", "lightning_fabric")


def _name_source_line(error: BaseException) -> str:
    """`, at FILE, line N`: the innermost line of code that is not the program's; or nothing."""
    lines = [
        (frame.f_code.co_filename, number)
        for frame, number in walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).partition(".")[0]
        not in (*_FRAMEWORKS, *sys.stdlib_module_names)
    ]
    # A package that the user's class calls, as numpy, says less than the line that calls it.
    own = [line for line in lines if "site-packages" not in Path(line[0]).parts]
    for file, number in (own or lines)[-1:]:
        return f", at {file}, line {number}"
    return ""


@contextmanager
def report_user_errors() -> Iterator[None]:
    """Turn a user's error in the body into its sentence on stderr and its exit code.

    An error that a library raises while it is imported is reported too: its usual cause is an
    environment variable.
    """
    try:
        yield
    except NormlabError as error:
        _leave(error)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            path = excerpt(error.filename)
            _leave(ConfigError(f"{path} is too long for a path; give a shorter one."))
        failure = _describe_failed_import(error)
        if failure is None:
            raise
        _leave(failure)


@contextmanager
def explain_failed_import() -> Iterator[None]:
    """Turn what a library raises while the body imports it into a NormlabError that names it.

    A module that is not installed is left to the command.
    """
    try:
        yield
    except Exception as error:
        failure = _describe_failed_import(error)
        if failure is None:
            raise
        raise failure from error


def _describe_failed_import(error: Exception) -> NormlabError | None:
    """The sentence about an error that a library raised while it was imported; None of another."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    packages = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame in frames]
    imported = [
        package
        for package, frame in zip(packages, frames, strict=True)
        if frame.f_code.co_name == "<module>" and package not in ("normlab", "__main__")
    ]
    if isinstance(error, ModuleNotFoundError | NormlabError):
        return None
    if not imported or packages[-1] == "normlab":
        return None
    library = imported[-1]
    reason = excerpt(one_line(error))
    # The value that the error quotes; a single digit may stand in any.
    quoted = [
        (len(value), name)
        for name, value in os.environ.items()
        if library.upper() in name and len(value) > 1 and value in str(error)
    ]
    if quoted:
        name = max(quoted)[1]
        return NormlabError(
            f"{library} cannot be imported, for it does not take {name}="
            f"{excerpt(os.environ[name])} in the environment ({reason}); unset {name}, or give it "
            f"a value that {library} takes."
        )
    return NormlabError(
        f"{library} cannot be imported ({type(error).__name__}: {reason}); a variable of the "
        f"environment that it reads may be wrong, or its installation damaged."
    )


def _leave(error: NormlabError) -> NoReturn:
    message = str(error)
    for argument in sys.argv[1:]:  # with commas, a value looks like many parts
        for value in (argument, argument.partition("=")[2].strip()):
            if len(value) > LONGEST_PART:
                message = message.replace(value, excerpt(value))
    sys.stderr.write(printable(f"normlab: {message}\n"))
    sys.exit(error.exit_code)


class CommandParser(argparse.ArgumentParser):
    """Reads a command's flags; what is wrong with them is a sentence as any other.

    `keys` are those that the command takes without dashes, as key=value.
    """

    def __init__(self, *arguments: Any, keys: Iterable[str] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._keys = tuple(keys)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The same, but an unknown flag is refused; the words that are left are no flags."""
        self._refuse_repeated_flags(sys.argv[1:] if args is None else args)
        options, words = super().parse_known_args(args, namespace)
        self._refuse_unknown_flags(words)
        return options, words

    def parse_known_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The same."""
        self._refuse_repeated_flags(sys.argv[1:] if args is None else args)
        options, words = super().parse_known_intermixed_args(args, namespace)
        self._refuse_unknown_flags(words)
        return options, words

    def _refuse_unknown_flags(self, words: Sequence[str]) -> None:
        for word in words:
            if not word.startswith("-") or word == "--":
                continue
            flag = word.partition("=")[0]
            name = flag.lstrip("-")
            if name.partition(".")[0] in self._keys:
                raise ConfigError(
                    f"{excerpt(flag)} is not a flag; a choice is written without dashes, as "
                    f"{excerpt(name)}=…"
                )
            # The usage has them all, but --help by its short name.
            flags = ["--help", *re.findall(r"(?<!\w)--?\w[\w-]*", self.format_usage())]
            raise ConfigError(
                f"{excerpt(flag)} is not a flag; {suggest_closest(flag, flags)}--help shows what "
                f"there is."
            )

    def _refuse_repeated_flags(self, words: Sequence[str]) -> None:
        """Of a flag that is given twice, argparse takes the last and says nothing."""
        flags = [word.partition("=")[0] for word in words if word.startswith("--")]
        for flag in flags:
            if flag != "--" and flags.count(flag) > 1:
                raise ConfigError(f"{excerpt(flag)} is given twice; give it once.")

    def error(self, message: str) -> NoReturn:
        """Raise the sentence."""
        value = re.fullmatch(r"argument (.*?)(?:/.*)?: invalid (\w+) value: '(.*)'", message)
        if value and value[2] in _KINDS:
            raise ConfigError(
                f"{value[1]} {excerpt(value[3])} is not allowed; it must be {_KINDS[value[2]]}."
            )
        choice = re.fullmatch(
            r"argument (.*?)(?:/.*)?: invalid choice: '(.*)' \(choose from (.*)\)", message
        )
        if choice:
            names = choice[3].replace("'", "").split(", ")
            raise ConfigError(
                f"{choice[1]} {excerpt(choice[2])} is not allowed; "
                f"{suggest_closest(choice[2], names)}it must be one of {', '.join(names)}."
            )
        raise ConfigError(f"{message}; --help shows what there is.")


_KINDS = {"int": "a whole number", "float": "a number"}
