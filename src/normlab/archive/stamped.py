"""JSON files with a schema version and a checksum, so that damage is told and never read."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from normlab.archive.durable import write_text
from normlab.archive.restore import read_json
from normlab.errors import NormlabError

_T = TypeVar("_T")


def write_stamped(path: Path, plain: dict[str, Any], version: int) -> Path:
    """Write what JSON can hold, whole or not at all, and return the path.

    Raises:
        OSError: it cannot be written.
        ValueError: a number is not finite.
    """
    raw = {"schema_version": version, **plain}
    whole = {**raw, "checksum": checksum(raw)}
    write_text(path, json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_stamped(path: Path, version: int, parse: Callable[[Any], _T], remedy: str) -> _T:
    """What `parse` makes of a file that `write_stamped` wrote; `remedy` says what to do otherwise.

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
    if raw.pop("checksum") != checksum(raw):
        raise ValueError("wrong checksum")


def checksum(raw: dict[str, Any]) -> int:
    """Of what is written as JSON; a flipped bit can turn a digit into another."""
    return zlib.crc32(json.dumps(raw).encode())
