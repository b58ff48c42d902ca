"""Hydra's and OmegaConf's errors as one sentence each: what was given, what is allowed."""

import os
import re
from traceback import walk_tb
from types import FrameType

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
    SearchPathException,
)
from omegaconf.errors import OmegaConfBaseException, ValidationError
from yaml import YAMLError

from normlab.config.check import unknown_key
from normlab.config.grammar import closest
from normlab.errors import ConfigError


def explain(error: Exception) -> ConfigError:
    """The sentence that tells a user what `error`, raised while composing, means."""
    cause = error.__cause__ or error.__context__
    sentence = _of_python(error)
    if sentence is not None:
        return sentence
    match error:
        case YAMLError():
            return ConfigError(f"a file of the configuration is not YAML: {_one_line(str(error))}.")
        case SearchPathException():
            return ConfigError(
                f"{_one_line(str(error))}; give --config-dir a folder that is there."
            )
        case MissingConfigException(missing_cfg_file=str(file)):
            return _missing_option(file, [str(option) for option in error.options or []])
        case OverrideParseException():
            return _not_an_override(str(error.override))
        case ConfigCompositionException() if isinstance(cause, OmegaConfBaseException):
            return _misfit(cause, str(error))
    doubled = re.match(r"Multiple values for ([\w/]+)\.", str(error))
    if doubled:
        return ConfigError(f"{doubled[1]} is chosen already; write {doubled[1]}=… without the +.")
    if not isinstance(error, HydraException | OmegaConfBaseException | ValueError):
        return ConfigError(
            f"the configuration cannot be composed ({type(error).__name__}: "
            f"{_one_line(str(error))}); give every group the name of an option, every key a value."
        )
    return ConfigError(_one_line(str(error)))


def _of_python(error: Exception) -> ConfigError | None:
    """What Hydra lets through of Python's own errors; None for another error."""
    match error:
        case UnicodeDecodeError():
            return ConfigError(
                f"{_file_read(error)} is not text in UTF-8 (byte {error.start} is "
                f"0x{error.object[error.start]:02x}); save it as UTF-8."
            )
        case ValueError() if "must be a string or a list" in str(error):
            return ConfigError(
                "a group takes the name of one of its options, as --help lists; it cannot be null, "
                "a number or a list of keys."
            )
        case KeyError() if isinstance(error.args[0], str) and error.args[0] not in os.environ:
            return ConfigError(
                f"the environment has no variable {error.args[0]}, which hydra.job.env_copy names; "
                f"set it, or leave it out."
            )
        case RecursionError():
            return ConfigError(
                "the configuration leads back to itself, by a list of defaults or an interpolation "
                "${…}; remove the entry that closes the circle."
            )
    return None


_LEAKING = ("batchnorm", "powernorm")  # asked for by name, they deserve the reason


def _missing_option(file: str, options: list[str]) -> ConfigError:
    group, _, option = file.rpartition("/")
    if not group:
        return ConfigError(f"there is no configuration named {option}; leave --config-name out.")
    if group == "norm" and option in _LEAKING:
        return ConfigError(
            f"norm={option} takes statistics over all tokens of a batch, so a token would see the "
            f"future ones it has to predict; norm has {', '.join(options)}."
        )
    return ConfigError(
        f"{group}={option} is not an option; {closest(option, options, f'{group}=')}{group} has "
        f"{', '.join(options) or 'none'}, and --config-dir DIR adds those in DIR/{group}/."
    )


def _not_an_override(word: str) -> ConfigError:
    """A list with spaces reaches the program as several words, the first ending in a comma."""
    if word.rstrip().endswith(",") or ("=" not in word and word[:1] not in "+~"):
        return ConfigError(
            f"{word!r} cannot be read as an override; write key=value, and a list of values "
            f"without spaces, as in norm=rmsnorm,layernorm."
        )
    return ConfigError(
        f"{word!r} cannot be read as an override; write key=value, and quote it for the shell "
        f"when it holds brackets, commas or spaces."
    )


def _misfit(cause: OmegaConfBaseException, message: str) -> ConfigError:
    """A key that is not there, or a value of the wrong type: on the command line or in a file."""
    file = re.match(r"In '([\w./-]+)'", message)
    where = f"in {file[1]}.yaml, " if file else ""
    if isinstance(cause, ValidationError):
        # Hydra names the override or the file, or says nothing.
        override = re.match(r"Error merging override (.*)", message)
        given = where + (override[1] if override else str(cause.full_key or "a value of a file"))
        return ConfigError(f"{given} is not allowed: {_reason(cause)}.")
    parent = cause.parent_node
    # Hydra looks up ${…} in place of an option under a key of its own.
    if str(cause.full_key) == "_dummy_":
        return ConfigError(
            "a group takes the name of one of its options, as --help lists; an interpolation ${…} "
            "there cannot be resolved."
        )
    if cause.full_key is None or parent is None:
        return ConfigError(where + _one_line(str(cause).splitlines()[0]))
    allowed = [str(key) for key in parent] if hasattr(parent, "__iter__") else []
    return ConfigError(f"{where}{unknown_key(str(cause.full_key), allowed)}")


def _reason(cause: ValidationError) -> str:
    line = str(cause).splitlines()[0].rstrip(".")
    expected = re.search(r"expected one of \[(.*)\]", line)
    if expected:
        return f"it must be one of {expected[1]}"
    converted = re.search(r"Value '(.*)' of type '.*' could not be converted to (\w+)", line)
    if converted:
        return f"it must be {_KINDS.get(converted[2], converted[2])}"
    if "is not a valid bool" in line:
        return "it must be true or false"
    if "is not a ListConfig" in line:
        return "it must be a list, as in [0.9,0.99]"
    return line[0].lower() + line[1:]


_KINDS = {"Integer": "a whole number", "Float": "a number"}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def is_configuration_error(error: Exception) -> bool:
    """Whether `error` is about what the user asked for, not about the program."""
    if isinstance(error, HydraException | OmegaConfBaseException | YAMLError | RecursionError):
        return True
    if isinstance(error, UnicodeDecodeError):
        return _file_read(error) is not None
    # Hydra raises plain ValueErrors about its own flags and groups, and stumbles over what stands
    # in place of an option.
    # What they call of the standard library may be the last frame.
    packages = [_package(frame) for frame, _ in walk_tb(error.__traceback__)]
    last = next((name for name in reversed(packages) if name in (*_COMPOSING, "normlab")), "")
    return last in _COMPOSING


_COMPOSING = ("hydra", "omegaconf", "yaml")


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _file_read(error: Exception) -> str | None:
    """The file that Hydra was reading when it failed; the error does not say."""
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__", "").endswith("file_config_source"):
            return str(frame.f_locals.get("full_path"))
    return None
