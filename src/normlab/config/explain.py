"""Hydra's and OmegaConf's errors as one sentence each: what was given, what is allowed."""

import re
from traceback import walk_tb

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
from normlab.errors import ConfigError


def explain(error: Exception) -> ConfigError:
    """The sentence that tells a user what `error`, raised while composing, means."""
    cause = error.__cause__ or error.__context__
    match error:
        case UnicodeDecodeError():
            return ConfigError(
                f"{_file_read(error)} is not text in UTF-8 (byte {error.start} is "
                f"0x{error.object[error.start]:02x}); save it as UTF-8."
            )
        case YAMLError():
            return ConfigError(f"a file of the configuration is not YAML: {_one_line(str(error))}.")
        case ValueError() if "must be a string or a list" in str(error):
            return ConfigError("a group cannot be null; take one of its options, as --help lists.")
        case SearchPathException():
            return ConfigError(
                f"{_one_line(str(error))}; give --config-dir a folder that is there."
            )
        case MissingConfigException(missing_cfg_file=str(file)):
            return _missing_option(file, [str(option) for option in error.options or []])
        case OverrideParseException():
            return ConfigError(
                f"{error.override!r} cannot be read as an override; write key=value, and quote "
                f"it for the shell when it holds brackets, commas or spaces."
            )
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
        f"{group}={option} is not an option; {group} has {', '.join(options) or 'none'}, "
        f"and --config-dir DIR adds those in DIR/{group}/."
    )


def _misfit(cause: OmegaConfBaseException, message: str) -> ConfigError:
    """A key that is not there, or a value of the wrong type: on the command line or in a file."""
    file = re.match(r"In '([\w./-]+)'", message)
    where = f"in {file[1]}.yaml, " if file else ""
    if isinstance(cause, ValidationError):
        # Hydra names the override or the file, or says nothing.
        named = message.splitlines()[0].rpartition(" ")[2] if message and not file else ""
        given = where + (named or str(cause.full_key or "a value of a file"))
        return ConfigError(f"{given} is not allowed: {_reason(cause)}.")
    parent = cause.parent_node
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
    if isinstance(error, HydraException | OmegaConfBaseException | YAMLError):
        return True
    if isinstance(error, UnicodeDecodeError):
        return _file_read(error) is not None
    # Hydra raises plain ValueErrors about its own flags and groups, and stumbles over what stands
    # in place of an option.
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    module = frames[-1].f_globals.get("__name__", "") if frames else ""
    return module.partition(".")[0] in ("hydra", "omegaconf", "yaml")


def _file_read(error: Exception) -> str | None:
    """The file that Hydra was reading when it failed; the error does not say."""
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__", "").endswith("file_config_source"):
            return str(frame.f_locals.get("full_path"))
    return None
