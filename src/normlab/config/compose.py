"""Hydra's composition of normlab's configuration: schemas, the gate, and errors as sentences."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from traceback import walk_tb

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
    SearchPathException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException, ValidationError
from yaml import YAMLError

from normlab.config import conf_folder
from normlab.config.gate import check_config_dir, check_folder, check_overrides
from normlab.config.messages import unknown_key_error, validation_reason
from normlab.config.schema import DATA, TrainConfig, default_study_name
from normlab.errors import ConfigError, first_line
from normlab.text import excerpt, one_line, printable, suggest_closest

# In conf/, but no choice of a run: claims are for scripts/claims.py.
_HIDDEN_GROUPS = ("hydra", "schema", "claim")


def register_schemas() -> None:
    """Make known what conf/ refers to: the group `schema`, and the resolvers. May be repeated."""
    OmegaConf.register_new_resolver("normlab.study", default_study_name, replace=True)
    OmegaConf.register_new_resolver("normlab.groups", list_groups, replace=True)
    store = ConfigStore.instance()
    store.store(group="schema", name="train", node=TrainConfig, package="_global_")
    for kind, node in DATA.items():
        store.store(group="schema", name=kind, node=node, package="data")


def list_groups() -> str:
    """Every group of conf/ and of the user's folder with its options, a line each, for --help."""
    return _list_loader_groups(GlobalHydra.instance().config_loader())


# Hydra resolves the text of the help again for every file that it merges, 11 times a run: without
# the cache this was a third of the time of composing.
@lru_cache(maxsize=1)
def _list_loader_groups(loader: ConfigLoader) -> str:
    # Not from `loader.get_group_options`, which reads the configuration anew for every group: all
    # of them took 0.1 s of every command.
    options: dict[str, set[str]] = {}
    for element in loader.get_search_path().get_path():
        folder = str(element.path).removeprefix("file://")
        if "://" not in folder:  # what is not a folder holds Hydra's own groups, and the schema
            for group in Path(folder).iterdir():
                if group.is_dir() and group.name not in _HIDDEN_GROUPS:
                    found = options.setdefault(group.name, set())
                    found.update(file.stem for file in group.glob("*.yaml"))
    width = max(map(len, options))
    lines = [
        f"  {group:<{width}}  {', '.join(sorted(options[group]))}" for group in sorted(options)
    ]
    return printable("\n".join(lines))


@contextmanager
def composed_config(
    overrides: Sequence[str], config_dir: Path | None = None
) -> Iterator[tuple[ConfigLoader, DictConfig]]:
    """Hydra's loader, and the configuration with these overrides, `hydra` included.

    `config_dir` holds the user's options. Errors of Hydra's, here and in the body, are
    raised as sentences.

    Raises:
        ConfigError: the folder does not exist, or the configuration cannot be composed.
        UntrustedError: a file or an override asks for what is not allowed.
    """
    if config_dir is not None:
        check_config_dir(config_dir)
    register_schemas()
    folders = [] if config_dir is None else [config_dir]
    # Before Hydra reads anything: it acts on a file while it composes.
    check_overrides(overrides, folders)
    for folder in folders:
        check_folder(folder, overrides=overrides)
    search = []
    if config_dir is not None:
        path = str(config_dir.resolve()).replace("\\", "\\\\").replace("'", "\\'")
        search = [f"hydra.searchpath=['file://{path}']"]
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            yield loader, compose("train", [*search, *overrides], return_hydra_config=True)
    except Exception as error:
        if not is_configuration_error(error):
            raise
        raise explain_error(error) from error


def explain_error(error: Exception) -> ConfigError:
    """The sentence that tells a user what `error`, raised while composing, means."""
    cause = error.__cause__ or error.__context__
    sentence = _explain_python_error(error)
    if sentence is not None:
        return sentence
    match error:
        case YAMLError():
            return ConfigError(f"a file of the configuration is not YAML: {one_line(error)}.")
        case SearchPathException():
            return ConfigError(f"{one_line(error)}; give --config-dir a folder that is there.")
        case MissingConfigException(missing_cfg_file=str(file)):
            return _missing_option_error(file, [str(option) for option in error.options or []])
        case OverrideParseException():
            return _override_error(str(error.override))
        case ConfigCompositionException() if isinstance(cause, OmegaConfBaseException):
            return _schema_error(cause, str(error))
    # All of these are of one class of Hydra's: the words of the message tell them apart.
    group = re.match(r"Multiple values for ([\w/]+)\.|([\w/]+) appears more than once", str(error))
    if group:
        name = group[1] or group[2]
        return ConfigError(f"{name} is chosen already; write {name}=… without the +.")
    sweep = re.match(r"Ambiguous value for argument '(.*)'", str(error))
    if sweep:
        return ConfigError(
            f"{sweep[1]} lists several values to compare, and --cfg and hydra.mode=RUN take one "
            f"configuration; give it one value."
        )
    package = re.match(r"In '(.*)': Could not override '(\w+)@(.+)\.\2'", str(error))
    if package:
        return ConfigError(
            f"{package[1]}.yaml chooses {package[2]} inside {package[3]}, where there is none; "
            f"begin the file with the line `# @package _global_`."
        )
    if not isinstance(error, HydraException | OmegaConfBaseException | ValueError):
        return ConfigError(
            f"the configuration cannot be composed ({type(error).__name__}: "
            f"{one_line(error)}); give every group the name of an option, every key a value."
        )
    return ConfigError(one_line(error))


def _explain_python_error(error: Exception) -> ConfigError | None:
    """What Hydra lets through of Python's own errors; None for another error."""
    is_circular = isinstance(error, RecursionError) or "Recursive interpolation" in str(error)
    match error:
        case ValueError() | TypeError() if re.search(
            "must be a string or a list|is not iterable", str(error)
        ):
            return ConfigError(
                "a group takes the name of one of its options, as --help lists; it cannot be null, "
                "a number or a list of keys."
            )
        case KeyError() if isinstance(error.args[0], str) and error.args[0] not in os.environ:
            return ConfigError(
                f"the environment has no variable {error.args[0]}, which hydra.job.env_copy names; "
                f"set it, or leave it out."
            )
        case RecursionError() | InterpolationResolutionError() if is_circular:
            return ConfigError(
                "the configuration leads back to itself, by a list of defaults or an interpolation "
                "${…}; remove the entry that closes the circle."
            )
        case InterpolationResolutionError(full_key=key):
            return ConfigError(
                f"{key or 'a key'} has an interpolation ${{…}} that cannot be resolved "
                f"({first_line(error)}); write the value itself."
            )
    return None


_LEAKING = ("batchnorm", "powernorm")  # asked for by name, they deserve the reason
# What papers and other programs call our options.
_OPTION_SYNONYMS = {
    "placement": {
        **dict.fromkeys(("prenorm", "preln"), "pre"),
        **dict.fromkeys(("postnorm", "postln"), "post"),
        # Peri-LN (2502.02732) is the sandwich of CogView (2105.13290).
        **dict.fromkeys(("perinorm", "periln", "sandwichln"), "sandwich"),
    },
    "norm": {"rms": "rmsnorm", "ln": "layernorm", "identity": "none", "dynamictanh": "dyt"},
    "data": {"tinyshakespeare": "shakespeare", "markov": "synthetic"},
}


def _missing_option_error(file: str, options: list[str]) -> ConfigError:
    group, _, option = file.rpartition("/")
    if "/" in group and not group.startswith("hydra/"):  # an option in a folder, as pre/no_skip
        group, _, option = file.partition("/")
        folder = conf_folder() / group
        nested = folder.glob("*/*.yaml")
        options += sorted(str(path.relative_to(folder).with_suffix("")) for path in nested)
    if not group:
        return ConfigError(f"there is no configuration named {option}; leave --config-name out.")
    if group == "norm" and option in _LEAKING:
        return ConfigError(
            f"norm={option} takes statistics over all tokens of a batch, so a token would see the "
            f"future ones it has to predict; norm has {', '.join(options)}."
        )
    # The very name in another group says more than a similar one in this.
    hint = _suggest_other_group(option)
    synonym = _OPTION_SYNONYMS.get(group, {}).get(re.sub(r"[-_ ]", "", option.lower()), "")
    if not hint and synonym in options:
        hint = f"did you mean {group}={synonym}? "
    hint = hint or suggest_closest(option, options, f"{group}=")
    # A user's folder may choose nothing of Hydra's.
    own = "" if group.startswith("hydra") else f", and --config-dir DIR adds those in DIR/{group}/"
    return ConfigError(
        f"{group}={option} is not an option; {hint}{group} has {', '.join(options) or 'none'}{own}."
    )


def _suggest_other_group(option: str) -> str:
    """Where another group has an option of this name, as sweep=lr for experiment=lr."""
    groups = sorted(
        path.parent.name
        for path in conf_folder().glob("*/*.yaml")
        if path.stem == option and path.parent.name not in _HIDDEN_GROUPS
    )
    return (
        f"did you mean {' or '.join(f'{group}={option}' for group in groups)}? " if groups else ""
    )


def _override_error(word: str) -> ConfigError:
    """A list with spaces reaches the program as several words, the first ending in a comma."""
    advice = "quote it for the shell when it holds brackets, commas or spaces"
    if word.rstrip().endswith(",") or ("=" not in word and word[:1] not in "+~"):
        advice = "a list of values without spaces, as in norm=rmsnorm,layernorm"
    key, _, value = word.partition("=")
    # Hydra's grammar has no letters beyond ASCII, except between quotes.
    if value and re.search(r"[^\x20-\x7e]", value) and not re.search(r"[\"'\\]", value):
        quoted = f"'{key}=\"{value}\"'"
        advice = f"give a value with such letters quotes of its own, as in {excerpt(quoted)}"
    return ConfigError(
        f"{excerpt(repr(word))} cannot be read as an override; write key=value, and {advice}."
    )


def _schema_error(cause: OmegaConfBaseException, message: str) -> ConfigError:
    """A key that is not there, or a value of the wrong type: on the command line or in a file."""
    file = re.match(r"In '([\w./-]+)'", message)
    where = f"in {file[1]}.yaml, " if file else ""
    # Hydra names the override or the file, or says nothing.
    override = re.match(r"Error merging override (.*)", message)
    subject = override[1] if override else str(cause.full_key or "a value of a file")
    if str(cause).startswith("Cannot merge"):
        return ConfigError(f"{where}{subject} is not allowed: one is a list, the other has keys.")
    if isinstance(cause, ValidationError):
        return ConfigError(f"{where}{subject} is not allowed: {validation_reason(cause)}.")
    parent = cause.parent_node
    # Hydra looks up ${…} in place of an option under a key of its own.
    if str(cause.full_key) == "_dummy_":
        return ConfigError(
            "a group takes the name of one of its options, as --help lists; an interpolation ${…} "
            "there cannot be resolved."
        )
    if cause.full_key is None or parent is None:
        return ConfigError(where + one_line(str(cause).splitlines()[0]))
    allowed = [str(key) for key in parent] if hasattr(parent, "__iter__") else []
    if str(cause.full_key).rpartition(".")[2] in allowed:  # the key is there
        if message.startswith("Error merging override ~"):
            return ConfigError(f"{where}{cause.full_key} cannot be removed; give it a value.")
        return ConfigError(f"{where}{cause.full_key} cannot be read ({first_line(cause)}).")
    return ConfigError(f"{where}{unknown_key_error(str(cause.full_key), allowed)}")


def is_configuration_error(error: Exception) -> bool:
    """Whether `error` is about the user's request, not about the program."""
    if isinstance(error, HydraException | OmegaConfBaseException | YAMLError | RecursionError):
        return True
    # Hydra raises plain ValueErrors about its flags and groups, and others where something else
    # stands in place of an option: no type tells them apart, so the module that raised does.
    # The last frame may be the standard library's, which these call.
    modules = [
        str(frame.f_globals.get("__name__", "")) for frame, _ in walk_tb(error.__traceback__)
    ]
    packages = [module.partition(".")[0] for module in modules]
    composing = ("hydra", "omegaconf", "yaml")
    last = next((name for name in reversed(packages) if name in (*composing, "normlab")), "")
    return last in composing
