"""JSON files that say their version and carry a checksum, read back into typed dataclasses.

A file may be damaged, of another version or a stranger's: no value goes further than here unless it
has the type that its dataclass declares. Newer keys are passed over, and an older file may lack
those that have a default.
"""

import json
import math
import zlib
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from normlab.archive.files import read_text, write_text
from normlab.errors import NormlabError

FiniteNumber = float | None  # None where it is not finite: JSON has neither NaN nor infinity

_MOST_LEVELS = 64  # what is written here has ten at most
_TYPE_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}

_T = TypeVar("_T")


def finite_or_none(value: float) -> FiniteNumber:
    """The value where it is finite, as a file holds it."""
    return float(value) if math.isfinite(value) else None


def none_to_nan(value: FiniteNumber) -> float:
    """A number of a file, NaN where it was not finite."""
    return math.nan if value is None else value


def write_versioned_json(path: Path, plain: dict[str, Any], version: int) -> Path:
    """Write what JSON can hold with its version and checksum, atomically, and return the path.

    Raises:
        OSError: it cannot be written.
        ValueError: a number is not finite.
    """
    raw = {"schema_version": version, **plain}
    raw["checksum"] = compute_checksum(raw)
    write_text(path, json.dumps(raw, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_versioned_json(path: Path, version: int, parse: Callable[[Any], _T], remedy: str) -> _T:
    """What `parse` makes of a file of `write_versioned_json`; `remedy` ends the error's sentence.

    Raises:
        FileNotFoundError: it does not exist.
        NormlabError: it cannot be read, is damaged, or was written by a newer normlab.
    """
    try:
        raw = read_json(path)
        check_checksum(raw)
        written = raw.pop("schema_version")
        if not isinstance(written, int) or written > version:
            raise ValueError(f"its schema version is {json.dumps(written)}, this reads {version}")
        return parse(raw)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NormlabError(f"{path} cannot be read ({error.strerror}); {remedy}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise NormlabError(
            f"{path} is damaged or was written by another version ({error}); {remedy}."
        ) from error


def compute_checksum(raw: dict[str, Any]) -> int:
    """CRC-32 of what is written as JSON: a flipped bit can turn a digit into another."""
    return zlib.crc32(json.dumps(raw).encode())


def check_checksum(raw: Any) -> None:
    """Take the checksum out of a file's content. Raises ValueError: it is missing or wrong."""
    if not isinstance(raw, dict) or "checksum" not in raw:
        raise ValueError("it has no checksum")
    if raw.pop("checksum") != compute_checksum(raw):
        raise ValueError("wrong checksum")


def read_json(path: Path) -> Any:
    """The content of a JSON file; see `parse_json`.

    Raises:
        FileNotFoundError: it does not exist.
        OSError: it cannot be read, is a link or no regular file, or is too large.
        ValueError: it is not JSON in UTF-8.
    """
    return parse_json(read_text(path))


def parse_json(text: str) -> Any:
    """The value of a JSON text. NaN and infinities, which are no JSON, become None.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or holds a number beyond 64 bits or half a
            surrogate pair, which nothing can print.
    """
    try:
        value = json.loads(text, parse_constant=lambda name: None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # Level by level, since recursion would fail on deep values.
    level, depth = [value], 0
    while level:
        if depth > _MOST_LEVELS:
            raise ValueError("it is nested too deeply")
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                below += item
            # JSON's whole numbers have no limit; numpy's and C's have.
            elif isinstance(item, int) and abs(item) >= 2**63:
                raise ValueError(f"it holds a number of {len(str(item))} digits")
            elif isinstance(item, float) and not math.isfinite(item):  # 1e999 is read as infinity
                raise ValueError("it holds a number beyond 64 bits")
            elif isinstance(item, str):
                item.encode()  # raises UnicodeEncodeError, a ValueError
        level, depth = below, depth + 1
    return value


def restore_value(kind: Any, raw: Any, key: str = "") -> Any:
    """`raw`, from JSON, as a `kind`: a dataclass, a plain type, a list, tuple, dict or union.

    Raises:
        ValueError: a key is missing, or a value is of another type; the sentence names the `key`.
    """
    if is_dataclass(kind):
        return _restore_dataclass(kind, raw, key)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (tuple, list) and isinstance(raw, list):
        items = (restore_value(arguments[0], raw[n], f"{key}[{n}]") for n in range(len(raw)))
        return origin(items)
    if origin is dict and isinstance(raw, dict):
        return {name: restore_value(arguments[1], raw[name], f"{key}.{name}") for name in raw}
    if isinstance(kind, UnionType):
        if raw is None and NoneType in arguments:
            return None
        (kind,) = set(arguments) - {NoneType}  # the only unions of records are `X | None`
        return restore_value(kind, raw, key)
    if kind is float and type(raw) in (int, float):
        if not math.isfinite(float(raw)):
            raise ValueError(f"{key} is {_shorten_json(raw)}, not a finite number")
        return float(raw)
    # The exact type: true is not a number.
    if not (kind is Any or (raw in arguments if origin is Literal else type(raw) is kind)):
        expected = _TYPE_NAMES.get(kind, "what it must be")
        raise ValueError(f"{key} is {_shorten_json(raw)}, not {expected}")
    return raw


def _restore_dataclass(kind: Any, raw: Any, key: str) -> Any:
    if not isinstance(raw, dict):
        raise ValueError(f"{key or 'the file'} is {_shorten_json(raw)}, not an object")
    hints, prefix = get_type_hints(kind), f"{key}." if key else ""
    values = {}
    for field in fields(kind):
        name = field.name
        if name in raw:
            values[name] = restore_value(hints[name], raw[name], prefix + name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{prefix}{name} is missing")
    return kind(**values)


def _shorten_json(raw: Any) -> str:
    text = json.dumps(raw)
    return text if len(text) <= 40 else f"{text[:37]}…"
