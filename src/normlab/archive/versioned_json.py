"""JSON files with a schema version and a checksum, so that damage is told and never read."""

import json
import math
import zlib
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from normlab.archive.files import read_text, write_text
from normlab.errors import NormlabError

_DEEPEST = 64  # what is written here is ten levels deep at most


def read_json(path: Path) -> Any:
    """What a JSON file holds; see `parse_json`.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it cannot be read, is a link or no regular file, or is too large.
        ValueError: it is no JSON in UTF-8.
    """
    return parse_json(read_text(path))


def parse_json(text: str) -> Any:
    """What JSON says. NaN and infinities, which are no JSON, become None.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or holds a number beyond 64 bits or half a
            surrogate pair, which nothing can print.
    """
    try:
        value = json.loads(text, parse_constant=lambda name: None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level, depth = [value], 0
    while level:
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, int) and abs(item) >= 2**63:
                raise ValueError(f"it holds a number of {len(str(item))} digits")
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError("it holds a number beyond 64 bits")
            elif isinstance(item, str):
                item.encode()  # raises UnicodeEncodeError, a ValueError
        level, depth = below, depth + 1
    return value


def restore_value(kind: Any, raw: Any, key: str = "") -> Any:
    """`raw`, from JSON, as a `kind`: a dataclass, a plain type, a list, tuple, dict or union.

    Raises:
        ValueError: a key is missing, or a value is of another type.
    """
    if is_dataclass(kind):
        return _dataclass(kind, raw, key)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (tuple, list) and isinstance(raw, list):
        return origin(
            restore_value(arguments[0], item, f"{key}[{n}]") for n, item in enumerate(raw)
        )
    if origin is dict and isinstance(raw, dict):
        return {
            name: restore_value(arguments[1], item, f"{key}.{name}") for name, item in raw.items()
        }
    if isinstance(kind, UnionType):
        if raw is None and NoneType in arguments:
            return None
        (kind,) = [one for one in arguments if one is not NoneType]
        return restore_value(kind, raw, key)
    if kind is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        return _finite(raw, key)
    if not _is(raw, kind):
        raise ValueError(f"{key} is {_shown(raw)}, not {_NAMES.get(kind, 'what it must be')}")
    return raw


_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _dataclass(kind: Any, raw: Any, key: str) -> Any:
    if not isinstance(raw, dict):
        raise ValueError(f"{key or 'the file'} is {_shown(raw)}, not an object")
    hints, prefix = get_type_hints(kind), f"{key}." if key else ""
    values = {}
    for one in fields(kind):
        if one.name in raw:
            values[one.name] = restore_value(hints[one.name], raw[one.name], prefix + one.name)
        elif not _has_default(one):
            raise ValueError(f"{prefix}{one.name} is missing")
    return kind(**values)


def _has_default(one: Field[Any]) -> bool:
    return one.default is not MISSING or one.default_factory is not MISSING


def _finite(raw: float, key: str) -> float:
    value = float(raw)
    if not math.isfinite(value):
        raise ValueError(f"{key} is {_shown(raw)}, not a finite number")
    return value


def _is(raw: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    if get_origin(kind) is Literal:
        return raw in get_args(kind)
    return type(raw) is kind  # true is no number


def _shown(raw: Any) -> str:
    text = json.dumps(raw)
    return text if len(text) <= 40 else f"{text[:37]}…"


_T = TypeVar("_T")


def write_versioned_json(path: Path, plain: dict[str, Any], version: int) -> Path:
    """Write what JSON can hold, whole or not at all, and return the path.

    Raises:
        OSError: it cannot be written.
        ValueError: a number is not finite.
    """
    raw = {"schema_version": version, **plain}
    whole = {**raw, "checksum": compute_checksum(raw)}
    write_text(path, json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_versioned_json(path: Path, version: int, parse: Callable[[Any], _T], remedy: str) -> _T:
    """What `parse` makes of a file of `write_versioned_json`; `remedy` says what to do otherwise.

    Raises:
        FileNotFoundError: it is not there.
        NormlabError: it cannot be read, is damaged, or was written by a newer normlab.
    """
    try:
        raw = read_json(path)
        check_checksum(raw)
        check_schema_version(raw.pop("schema_version"), version)
        return parse(raw)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NormlabError(f"{path} cannot be read ({error.strerror}); {remedy}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise NormlabError(
            f"{path} is damaged or was written by another version ({error}); {remedy}."
        ) from error


def check_schema_version(written: Any, version: int) -> None:
    """Refuse a file of a newer version than the one that is read here. Raises ValueError."""
    if not isinstance(written, int) or written > version:
        raise ValueError(f"its schema version is {json.dumps(written)}, this reads {version}")


def check_checksum(raw: Any) -> None:
    """Take the checksum out of what a file holds. Raises ValueError where it is not that of it."""
    if not isinstance(raw, dict) or "checksum" not in raw:
        raise ValueError("it has no checksum")
    if raw.pop("checksum") != compute_checksum(raw):
        raise ValueError("wrong checksum")


def compute_checksum(raw: dict[str, Any]) -> int:
    """Of what is written as JSON; a flipped bit can turn a digit into another."""
    return zlib.crc32(json.dumps(raw).encode())
