"""The claims in conf/claim and in --config-dir, read and held to their types."""

import math
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, cast, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from normlab import config
from normlab.apps.claims.claim import ARMS_KINDS, KINDS, Claim, Published, Test
from normlab.config.messages import unknown_key_error
from normlab.config.safe_yaml import read_yaml
from normlab.errors import ConfigError
from normlab.text import excerpt, suggest_closest

GROUP = "claim"


def claims(names: Sequence[str] = (), config_dir: Path | None = None) -> dict[str, Claim]:
    """The claims asked for, or all, by name. A file in `config_dir` goes before one of ours.

    Raises:
        ConfigError: there is no such claim, a file does not hold one, or its experiment is nowhere.
    """
    files = _files(config_dir)
    for name in names:
        if name not in files:
            raise ConfigError(
                f"claim={excerpt(name)} is not there; {suggest_closest(name, files)}there are "
                f"{', '.join(files)}."
            )
    if not files:
        raise ConfigError(f"there is no claim; {config.conf_folder() / GROUP} holds no *.yaml.")
    found = {name: read(files[name]) for name in dict.fromkeys(names or files)}
    for name, claim in found.items():
        _check_experiment(files[name], claim, config_dir)
    return found


def _files(config_dir: Path | None) -> dict[str, Path]:
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError(
            f"--config-dir {config_dir} is not a folder; give one with {GROUP}/<name>.yaml."
        )
    folders = [folder for folder in (config.conf_folder(), config_dir) if folder is not None]
    paths = [path for folder in folders for path in (folder / GROUP).glob("*.yaml")]
    return {path.stem: path for path in sorted(paths, key=lambda one: one.stem)} | {
        path.stem: path for path in paths
    }


def read(path: Path) -> Claim:
    """The claim in a file.

    Raises:
        ConfigError: it cannot be read, or a key or a value of it does not fit.
    """
    raw = _raw(path)
    test = raw.pop("test", None)
    given = test.get("kind") if isinstance(test, dict) else test
    if not isinstance(test, dict) or not isinstance(given, str) or given not in KINDS:
        raise _wrong(
            path, f"test.kind={given} is not allowed; it must be one of {', '.join(KINDS)}"
        )
    kind = str(test.pop("kind"))
    decides = cast(Test, _typed(path, KINDS[kind], test, "test."))
    published = raw.pop("published", None)
    if not isinstance(published, dict):
        raise _wrong(path, "published must hold text, and value where it is a number")
    reported = cast(Published, _typed(path, Published, published, "published."))
    plain = _plain(path, Claim, raw, beside=("test", "published"))
    claim = Claim(**plain, test=decides, published=reported)
    _check(path, claim, kind)
    return claim


def _check_experiment(path: Path, claim: Claim, config_dir: Path | None) -> None:
    """Hold a claim to the experiments that there are, before anything is trained."""
    folders = [folder / "experiment" for folder in (config.conf_folder(), config_dir) if folder]
    options = sorted({one.stem for folder in folders for one in folder.glob("*.yaml")})
    if claim.experiment is not None and claim.experiment not in options:
        raise _wrong(
            path,
            f"experiment={claim.experiment} is not there; "
            f"{suggest_closest(claim.experiment, options)}there are {', '.join(options)}",
        )


def _raw(path: Path) -> dict[str, Any]:
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise _wrong(path, "it must hold statement, source, published, setup, differs, unit, test")
    return raw


def _typed(path: Path, kind: type, raw: dict[str, Any], prefix: str) -> Any:
    return kind(**_plain(path, kind, raw, prefix))


def _plain(
    path: Path, kind: Any, raw: dict[str, Any], prefix: str = "", beside: Sequence[str] = ()
) -> dict[str, Any]:
    """The keys of a dataclass as they are in the file, each converted to its type."""
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name not in beside}
    for key in raw:
        if key not in hints:
            allowed = (*hints, *beside, *(("kind",) if prefix == "test." else ()))
            raise _wrong(path, str(unknown_key_error(f"{prefix}{key}", allowed)).rstrip("."))
    for one in fields(kind):
        if one.name in hints and one.name not in raw and one.default is MISSING:
            raise _wrong(path, f"{prefix}{one.name} is missing")
    return {key: _value(path, f"{prefix}{key}", hints[key], value) for key, value in raw.items()}


def _value(path: Path, key: str, hint: Any, value: Any) -> Any:
    from dataclasses import make_dataclass

    if isinstance(value, bool):
        raise _wrong(path, f"{key}={str(value).lower()} is not allowed; no key is true or false")
    try:
        holder = OmegaConf.structured(make_dataclass("One", [("one", hint)]))
        holder.one = value
        found = OmegaConf.to_container(holder, enum_to_str=False)["one"]  # type: ignore[index, call-overload]
    except (ValidationError, OmegaConfBaseException) as error:
        said = " ".join(str(error).split("\n")[0].split())
        raise _wrong(path, f"{key}={value} is not allowed ({said})") from error
    if isinstance(found, float) and not math.isfinite(found):
        raise _wrong(path, f"{key}={value} is not allowed; it must be finite")
    return found


def _check(path: Path, claim: Claim, kind: str) -> None:
    if (claim.experiment is None) == (claim.measurement is None):
        raise _wrong(path, "it must have either experiment or measurement")
    if (kind in ARMS_KINDS) != (claim.experiment is not None):
        needed = "an experiment" if kind in ARMS_KINDS else "a measurement"
        raise _wrong(path, f"test.kind={kind} needs {needed}")
    for name in ("margin", "tolerance"):
        number = getattr(claim.test, name, 0.0)
        if number < 0:
            raise _wrong(path, f"test.{name}={number} is not allowed; it must be 0 or more")
    low, high = getattr(claim.test, "low", None), getattr(claim.test, "high", None)
    if kind in ("value", "ratio") and low is None and high is None:
        raise _wrong(path, "test.low and test.high are both missing; give one of them")
    if low is not None and high is not None and low > high:
        raise _wrong(path, f"test.low={low} is above test.high={high}")


def _wrong(path: Path, what: str) -> ConfigError:
    return ConfigError(f"{path}: {what}.")
