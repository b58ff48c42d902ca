"""The errors a user can cause, each one sentence: what was given, what is allowed, what to do.

The doors (train.py, scripts/) print the sentence and leave with the code; nothing else prints.
"""


class NormlabError(Exception):
    """Something outside the program went wrong: a file, the disk, a download. Exit code 1."""

    exit_code = 1


class ConfigError(NormlabError):
    """The request itself cannot be carried out: a key, a value, a combination. Exit code 2."""

    exit_code = 2
