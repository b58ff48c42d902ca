"""Range checks of options, named as the user types them; their types are checked elsewhere."""

from collections.abc import Sequence

from normlab.errors import ConfigError


def at_least(key: str, value: int, lowest: int) -> int:
    """Return `value`; ConfigError where it is below `lowest`."""
    if value < lowest:
        raise ConfigError(f"{key}={value} is too small: give {lowest} or more.")
    return value


def between(key: str, value: float, low: float, high: float) -> float:
    """Return `value`; ConfigError where it is not strictly between `low` and `high`."""
    if not low < value < high:
        raise ConfigError(f"{key}={value} is out of range: give a number between {low} and {high}.")
    return value


def one_of(key: str, value: str | None, allowed: Sequence[str]) -> str:
    """Return `value`; ConfigError where it is not `allowed`."""
    if value is None or value not in allowed:
        raise ConfigError(f"{key}={value} is not known: choose one of {', '.join(allowed)}.")
    return value
