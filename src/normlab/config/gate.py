"""The gate in front of Hydra: what a file from elsewhere may ask for.

Hydra acts on a configuration while it composes it: it imports packages that a search path names,
sets up logging, builds callbacks, launchers and sweepers. A norm or an experiment that somebody
sends must not reach any of that. So every YAML file of a folder that is not normlab's own conf/ is
read here first, within the bounds of `safe_yaml`, and held to a list of what is allowed. What comes
out of composing, from files and the command line, is checked for trusted code before anything is
imported. The gate decides safety only: names, types and ranges stay with the schema.
`docs/security.md` says the same for users.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from normlab.archive.files import suggest_closest_path
from normlab.config import conf_folder
from normlab.config.safe_yaml import MAX_CHARACTERS, parse_yaml, read_text
from normlab.config.schema import DATA, TrainConfig
from normlab.errors import ConfigError
from normlab.text import excerpt

TRUST_VARIABLE = "NORMLAB_TRUST"

# Modules whose classes may be named. Never what lies deeper: a module gives away all that it
# imports, so `normlab.norms.formula.torch.hub.load` is a path too.
MODULES = ("torch.nn", "normlab.norms", "normlab.model.placement", "normlab.model.streams")
# A capital: Hydra would call a function of these modules as well.
_CLASS = re.compile(r"[A-Z]\w*", re.ASCII)
# What a file may set under `hydra`: what an experiment sweeps.
SWEEPER_KEYS = ("arms", "params", "budgets")
MAX_FILES = 1_000
# Entries of all lists of defaults that one option leads to, each as often as it is reached.
MAX_DEFAULTS = 200

# Their files hold parts of the whole configuration, each under its own key.
_GLOBAL_GROUPS = ("", "experiment", "sweep")
_HEADER_CHARACTERS = 512  # in which Hydra looks for `# @package`
_OPTION = re.compile(r"(?!.*\.\.)[\w][\w.+ -]*(/[\w][\w.+ -]*)*")
_DEFAULT = re.compile(r"(optional\s+)?(override\s+)?(?P<group>[\w/]+)(@(?P<package>[\w.]*))?")
_INTERPOLATION = re.compile(r"\$\{(?:(?P<key>[\w.]+)|oc\.env:[A-Za-z_]\w*(,[^${}\\]*)?)\}")
_STUDY_NAME = "${normlab.study:}"

File = str  # below the folder, without .yaml: `norm/mine/dyt`, or `train` for a primary config


class UntrustedError(ConfigError):
    """A configuration names code that nobody has declared trusted; none of it was imported."""


def check_config_dir(
    folder: Path, holds: str = "<group>/<name>.yaml, as norm/my_norm.yaml"
) -> None:
    """Refuse what is no folder. Raises ConfigError."""
    if not folder.is_dir():
        raise ConfigError(
            f"--config-dir {folder} is not a folder; {suggest_closest_path(folder)}give one that "
            f"holds {holds}."
        )


def check_folder(folder: Path, primary: str | None = None, overrides: Sequence[str] = ()) -> None:
    """Check every file of a folder from elsewhere that Hydra could read.

    Those are the files of the groups that conf/ has, and the root file that `primary` names. Also
    the ones that no override chooses: a list of defaults, a sweep or a glob may, and which these
    are only Hydra knows, by reading them.

    Raises:
        UntrustedError: a file asks for what no file may ask for.
        ConfigError: a file cannot be read, or is beyond the bounds.
    """
    defaults: dict[File, list[File]] = {}
    for group, path in _config_files(folder, primary):
        file = path.relative_to(folder).as_posix().removesuffix(".yaml")
        with _explain_unchosen(folder, file, overrides):
            defaults[file] = check_file(path, group)
    for file, entries in defaults.items():
        # A name may be one below the file's own folder, as Hydra has it, or of the whole folder.
        group_folder = file.rpartition("/")[0]
        candidates = [{entry, f"{group_folder}/{entry}"} for entry in entries]
        # One that is not in the folder is an option of conf/, and counts as well.
        defaults[file] = [
            name for names in candidates for name in sorted(names & defaults.keys()) or ["conf/"]
        ]
    counts: dict[File, int] = {}  # of files that were counted; 0 for those being counted
    for file in defaults:
        with _explain_unchosen(folder, file, overrides):
            _count_defaults(folder, file, defaults, counts)


@contextmanager
def _explain_unchosen(folder: Path, file: File, overrides: Sequence[str]) -> Iterator[None]:
    """Say of a refused file that no override names why it is refused all the same."""
    try:
        yield
    except ConfigError as error:
        name = re.escape(file.rpartition("/")[2])
        if not file.count("/") or any(re.search(rf"\b{name}\b", word) for word in overrides):
            raise
        raise type(error)(
            f"{error} The command does not name this file, but every file of {folder} is checked "
            f"before Hydra reads one; correct it, or move it out of {folder}."
        ) from error


def check_file(path: Path, group: str = "") -> list[File]:
    """Check one file from elsewhere; the files that its list of defaults leads to.

    Raises:
        UntrustedError: it asks for what no file may ask for.
        ConfigError: it cannot be read, or is beyond the bounds.
    """
    text = read_text(path)
    _check_header(path, text)
    content = parse_yaml(path, text)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a mapping of keys to values; write key: value.")
    _check_values(path, content, "" if group in _GLOBAL_GROUPS else group)
    _check_hydra(path, content.get("hydra"))
    return _check_defaults(path, content.get("defaults", []), group)


def check_overrides(overrides: Sequence[str], folders: Sequence[Path] = ()) -> None:
    """Check what the command line, or an entry of a sweep, says about files: options stay names.

    A folder in `hydra.searchpath` is checked as one from elsewhere, like `folders`.

    Raises:
        UntrustedError: an option is a path or is merged into hydra, a search path imports a
            package, or a group is read that conf/ does not have.
        ConfigError: see `check_folder`.
    """
    # Search paths first: their folders decide below what Hydra takes for a group.
    searched = [*folders]
    for word in overrides:
        if re.sub(r"[\s+~]", "", word).startswith("hydra.searchpath="):
            searched += _check_search_path(word, overrides)
    for word in overrides:
        if len(word) > MAX_CHARACTERS:
            raise ConfigError(
                f"{excerpt(word)} has {len(word):,} characters, and the most is "
                f"{MAX_CHARACTERS:,}; write the value into a file of a folder for --config-dir."
            )
        name, _, value = word.partition("=")
        key, _, packages = re.sub(r"[\s'\"]", "", name).lstrip("+~").partition("@")
        # group@package=option merges the option's file there, and group@package:package moves it.
        if not all(map(_is_package, packages.split(":"))):
            raise UntrustedError(
                f"{excerpt(word)} is not allowed: the file of an option is merged into the run's "
                f"own keys, as in +norm@placement.attention.norm=dyt, and not into hydra."
            )
        if key.partition("/")[0] in (*_group_names(), "hydra") and "." not in key:
            if ".." in value or re.search(r"(^|[\s,(\[{'\"])[/~]", value):
                raise UntrustedError(
                    f"{excerpt(word)} is not allowed: an option is a name, not a path; give the "
                    f"folder that holds {key}/<name>.yaml with --config-dir."
                )
        elif any((folder / key).is_dir() for folder in searched if key.strip(".")):
            raise UntrustedError(
                f"{excerpt(key)} is not a group; groups are {', '.join(_group_names())}."
            )


def check_sweep_entry(override: str) -> None:
    """Refuse an override of an experiment's sweep that reaches beyond the run's own keys.

    Raises:
        UntrustedError: it is no key of the run, begins with `hydra`, holds `defaults` or names a
            `_target_`.
    """
    key = re.sub(r"[\s'\"+~]", "", override.partition("=")[0])
    outside = re.split("[./@]", key)[0] not in (*_group_names(), *_top_level_keys())
    if outside or key.startswith("hydra") or "defaults" in key or "_target_" in override:
        raise UntrustedError(
            f"{excerpt(override)} is not allowed in hydra.sweeper: an entry sets a key of the "
            f"run, as in optimizer.lr=1e-3; give everything else on the command line."
        )
    check_overrides([override])


def check_trusted(norm: Any, placement: Any) -> None:
    """Refuse a norm or a placement, as plain containers, that names code not to be trusted.

    Raises:
        UntrustedError: naming the first such key.
    """
    _check_node("norm", norm)
    _check_node("placement", placement)


def _check_trusted_class(key: str, target: Any) -> None:
    """Refuse the value of a `_target_` that is not the path of a trusted class."""
    if isinstance(target, str):
        module, _, name = target.rpartition(".")
        if (module in MODULES and _CLASS.fullmatch(name)) or _is_trusted(target):
            return
    text = excerpt(target)
    raise UntrustedError(
        f"{excerpt(key)}={text} is not trusted, so nothing was imported; allowed is a class of "
        f"{', '.join(MODULES)}. If you know its code, {TRUST_VARIABLE}="
        f"{text.rpartition('.')[0] or text} in the environment trusts it."
    )


def _is_trusted(path: str) -> bool:
    """Whether a dotted path lies in a package or module that NORMLAB_TRUST names."""
    words = (word.strip() for word in os.environ.get(TRUST_VARIABLE, "").split(","))
    return any(path == word or path.startswith(f"{word}.") for word in words if word)


def _check_node(key: str, value: Any) -> None:
    """Every node, however deep: building one builds those inside it first."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            _check_trusted_class(f"{key}._target_", value["_target_"])
        for name, item in value.items():
            _check_node(f"{key}.{name}", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_node(f"{key}.{index}", item)
    elif isinstance(value, bytes) or (isinstance(value, str) and "${" in value):
        # Hydra resolves what it builds once more: \${…} would become a node after the check.
        raise UntrustedError(
            f"{excerpt(key)}={excerpt(value)} cannot be checked; a value is a number, true, "
            f"false, null, text without ${{, a list or a mapping."
        )


@cache
def _group_names() -> list[str]:
    """The groups of a run that conf/ has; claims are read by scripts/claims.py alone."""
    folders = sorted(path.name for path in conf_folder().iterdir() if path.is_dir())
    return [name for name in folders if name not in ("hydra", "claim")]


@cache
def _top_level_keys() -> list[str]:
    """The first level of the schema."""
    return [item.name for item in fields(TrainConfig)]


@cache
def _number_keys() -> frozenset[str]:
    """The keys of the schema that hold a number: an interpolation of one cannot grow."""

    def find_numbers(kind: Any, prefix: str) -> Iterator[str]:
        hints = get_type_hints(kind)
        for item in fields(kind):
            hint = hints[item.name]
            if is_dataclass(hint):
                yield from find_numbers(hint, f"{prefix}{item.name}.")
            elif {hint, *get_args(hint)} & {int, float}:
                yield prefix + item.name

    of_data = (name for kind in DATA.values() for name in find_numbers(kind, "data."))
    return frozenset([*find_numbers(TrainConfig, ""), *of_data])


def _config_files(folder: Path, primary: str | None) -> Iterator[tuple[str, Path]]:
    """Group and path of every file that Hydra could read, through links as Hydra goes."""
    _check_names(folder, primary)
    count = 0
    # `train` as well, for the file that `primary` names may have it among its defaults.
    for name in dict.fromkeys(("train", (primary or "train").removesuffix(".yaml"))):
        path = folder / f"{name}.yaml"
        if path.exists():
            yield "", path
    for group in _group_names():
        visited: set[str] = set()
        for parent, subfolders, names in os.walk(folder / group, followlinks=True):
            real = os.path.realpath(parent)
            if real in visited:
                subfolders.clear()
                continue
            visited.add(real)
            subfolders.sort()
            for name in sorted(names):
                if not name.endswith(".yaml"):
                    continue
                count += 1
                if count > MAX_FILES:
                    raise ConfigError(
                        f"{folder} holds more than {MAX_FILES:,} YAML files in the folders of "
                        f"groups; give --config-dir one with fewer."
                    )
                yield group, Path(parent, name)


def _check_names(folder: Path, primary: str | None) -> None:
    """Refuse folders and names by which Hydra would read files that are not checked here."""
    # A folder with the name of a key would be a group: `seed=0` reads the file seed/0.yaml, and
    # `trainer.precision=x` the file trainer.precision/x.yaml.
    keys = {"hydra", "schema", *_top_level_keys(), *_group_names()}
    for path in sorted(folder.iterdir()):
        is_group = path.name in _group_names()
        if not is_group and path.is_dir() and re.split(r"[.@=]", path.name.lower())[0] in keys:
            raise UntrustedError(
                f"{path} is not taken: a folder for --config-dir holds options of "
                f"{', '.join(_group_names())}; remove or rename it."
            )
    if primary is not None and not re.fullmatch(r"\w[\w.-]*", primary):
        raise UntrustedError(
            f"--config-name {excerpt(primary)} is not taken: it is the name of a file of the "
            f"folder itself."
        )


def _check_header(path: Path, text: str) -> None:
    """`# @package` may not lead into hydra's part; Hydra looks for it in the first characters."""
    # Hydra reads the header from a cut text, where `# @package hydraulic` may end after `hydra`.
    for line in [*text[:_HEADER_CHARACTERS].splitlines(), *text.splitlines()]:
        if not re.match(r"\s*#+\s*@", line):
            continue
        header = re.fullmatch(r"\s*#+\s*@package\s+(?P<package>[\w.]+)\s*", line)
        if header is None or not _is_package(header["package"]):
            raise UntrustedError(
                f"{path}: {excerpt(line.strip())} is not taken; a header is # @package _global_ "
                f"or names a part of the run, and not hydra."
            )


def _is_package(name: str) -> bool:
    """Whether a file may be merged there: nowhere below hydra, nor where its own name says.

    Hydra reads its header from a cut text, so a part that begins like hydra counts too.
    """
    parts = name.split(".")
    hydra = any(part and "hydra".startswith(part[:5]) for part in parts)
    return not hydra and "_name_" not in parts and re.fullmatch(r"[\w.]*", name) is not None


def _check_values(path: Path, value: Any, key: str) -> None:
    """Every `_target_` is trusted, and no interpolation can grow or build anything."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            inner = f"{key}.{name}" if key else str(name)
            if name == "_target_":
                if inner.partition(".")[0] not in ("norm", "placement"):
                    raise UntrustedError(
                        f"{path}: {excerpt(inner)}={excerpt(item)} is not taken; only norm and "
                        f"placement name a class."
                    )
                try:
                    _check_trusted_class(inner, item)
                except UntrustedError as error:
                    raise UntrustedError(f"{path}: {error}") from error
            _check_interpolation(path, name, inner)
            _check_values(path, item, inner)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_values(path, item, f"{key}.{index}")
    else:
        _check_interpolation(path, value, key)


def _check_interpolation(path: Path, value: Any, key: str) -> None:
    """An interpolation names a number of the schema or a variable of the environment.

    Text that holds interpolations of such text doubles at every step, so an interpolation is all
    of its value; only `study`, which none refers to, may hold text beside it.
    """
    if isinstance(value, bytes):
        raise UntrustedError(f"{path}: {excerpt(key)} holds bytes; write text or numbers.")
    if not isinstance(value, str) or "${" not in value:
        return
    text = value.replace(_STUDY_NAME, "") if key == "study" else value
    parts = list(_INTERPOLATION.finditer(text))
    rest = _INTERPOLATION.sub("", text)
    allowed = all(part["key"] is None or part["key"] in _number_keys() for part in parts)
    if not allowed or "${" in rest or (rest and key != "study"):
        raise UntrustedError(
            f"{path}: {excerpt(key)}: {excerpt(value)} is not taken; an interpolation in a "
            f"file is all of the value, and names a number, as ${{model.width}}, or "
            f"${{oc.env:NAME}}."
        )


def _check_hydra(path: Path, node: Any) -> None:
    """Under `hydra` a file may set what an experiment sweeps, without a `_target_` in it."""
    refused = next(_refused_hydra_keys({} if node is None else node), None)
    if refused is not None:
        raise UntrustedError(
            f"{path}: {excerpt(refused)} is not taken from a file; under hydra a file may set "
            f"{', '.join(f'sweeper.{key}' for key in SWEEPER_KEYS)}, and all else is given on the "
            f"command line."
        )


def _refused_hydra_keys(node: Any) -> Iterator[str]:
    if not isinstance(node, dict):
        yield "hydra"
        return
    yield from (f"hydra.{name}" for name in node if name != "sweeper")
    sweeper = node.get("sweeper", {})
    if not isinstance(sweeper, dict):
        yield "hydra.sweeper"
        return
    for name, value in sweeper.items():
        if name not in SWEEPER_KEYS:
            yield f"hydra.sweeper.{name}"
        elif "_target_" in _nested_keys(value):
            yield f"hydra.sweeper.{name} with a _target_"


def _nested_keys(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _nested_keys(item)


def _check_defaults(path: Path, entries: Any, group: str) -> list[File]:
    """The files that a list of defaults names, all of them options of groups that conf/ has.

    Each as `group/option`, or by its name alone, where it is one of the file's own folder.
    """
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: defaults is not a list; write defaults: [_self_].")
    files: list[File] = []
    for entry in entries:
        files_of_entry = _default_files(entry, group)
        if files_of_entry is None:
            raise UntrustedError(
                f"{path}: {excerpt(entry)} is not taken in defaults; an entry is _self_, an "
                f"option of the file's own group, or group: option for one of "
                f"{', '.join(_group_names())}."
            )
        files += files_of_entry
    return files


def _default_files(entry: Any, group: str) -> list[File] | None:
    """What an entry of a list of defaults names; None where it may not stand there."""
    if entry == "_self_" or (entry == "train" and not group):
        return []
    options: Any
    if isinstance(entry, dict) and len(entry) == 1:
        ((key, options),) = entry.items()
        match = _DEFAULT.fullmatch(str(key))
        if match is None or not _is_package(match["package"] or ""):
            return None
        group = match["group"].strip("/")
    elif isinstance(entry, str):
        name, _, package = entry.partition("@")
        if not _is_package(package):
            return None
        of, _, options = name.rpartition("/")
        if not of and group:  # an option of the file's own folder
            return [options] if _OPTION.fullmatch(options) else None
        group = of.strip("/")
    else:
        return None
    names = options if isinstance(options, list) else [] if options is None else [options]
    if group.partition("/")[0] not in (*_group_names(), "schema"):
        return None
    if not all(isinstance(name, str) and _OPTION.fullmatch(name) for name in names):
        return None
    return [f"{group}/{name.removesuffix('.yaml')}" for name in names]


def _count_defaults(
    folder: Path, file: File, defaults: Mapping[File, list[File]], counts: dict[File, int]
) -> int:
    """Entries that Hydra will read for this file: it follows a list of defaults without a limit."""
    subject = f"{folder}: the defaults of {file} lead"
    if counts.get(file) == 0:
        raise ConfigError(f"{subject} back to itself; remove the entry.")
    if file not in counts:
        counts[file] = 0
        total = 1
        for entry in defaults.get(file, []):
            total += _count_defaults(folder, entry, defaults, counts)
        if total > MAX_DEFAULTS:
            raise ConfigError(f"{subject} to more than {MAX_DEFAULTS} files; name fewer.")
        counts[file] = total
    return counts[file]


def _check_search_path(word: str, overrides: Sequence[str]) -> list[Path]:
    """A folder is checked like that of --config-dir; anything else is imported to be read.

    Returns the folders.
    """
    try:
        override: Override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(
            f"{excerpt(word)} cannot be read; write hydra.searchpath=[file:///a/folder]."
        ) from error
    folders = []
    value = override.value()
    for item in value if isinstance(value, list) else [value]:
        entry = item.text if isinstance(item, QuotedString) else str(item)
        scheme, separator, path = entry.rpartition("://")
        if "${" in entry:
            raise UntrustedError(f"{excerpt(entry)} cannot be checked; write the folder out.")
        if not separator or scheme == "file":
            if Path(path).is_dir():
                folders.append(Path(path))
                check_folder(Path(path), overrides=overrides)
        elif not _is_trusted(path.replace("/", ".")):
            raise UntrustedError(
                f"{excerpt(entry)} is not trusted, so it was not imported; give --config-dir a "
                f"folder, or, if you know its code, set {TRUST_VARIABLE}={excerpt(path)} in the "
                f"environment."
            )
    return folders
