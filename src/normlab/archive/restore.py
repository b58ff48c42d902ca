"""Dataclasses from what JSON holds, every value held to its type: no damage gets further than here.

Newer keys are passed over, and an older file may lack those that have a default.
"""

import json
import math
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from normlab.archive.files import read_text

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


def restored(kind: Any, raw: Any, key: str = "") -> Any:
    """`raw`, from JSON, as a `kind`: a dataclass, a plain type, a list, tuple, dict or union.

    Raises:
        ValueError: a key is missing, or a value is of another type.
    """
    if is_dataclass(kind):
        return _dataclass(kind, raw, key)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (tuple, list) and isinstance(raw, list):
        return origin(restored(arguments[0], item, f"{key}[{n}]") for n, item in enumerate(raw))
    if origin is dict and isinstance(raw, dict):
        return {name: restored(arguments[1], item, f"{key}.{name}") for name, item in raw.items()}
    if isinstance(kind, UnionType):
        if raw is None and NoneType in arguments:
            return None
        (kind,) = [one for one in arguments if one is not NoneType]
        return restored(kind, raw, key)
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
            values[one.name] = restored(hints[one.name], raw[one.name], prefix + one.name)
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
