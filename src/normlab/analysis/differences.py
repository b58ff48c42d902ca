"""What the runs of a study have in common and what not: configuration, machine, versions."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normlab.analysis.arms import flatten, format_value
from normlab.archive.record import RunRecord
from normlab.archive.study import Run

# Where results lie and how they are logged says nothing about what was trained.
_IGNORED = ("study", "output_dir", "jobs", "logger")
_MOST_VALUES = 12

COMMIT = "normlab commit"


@dataclass(frozen=True)
class Differences:
    """Keys with their values as text: those that vary over the runs, and those that do not."""

    varying: tuple[tuple[str, str], ...]
    fixed: tuple[tuple[str, str], ...]


def configuration(runs: Sequence[Run]) -> Differences:
    """The options taken and every resolved key, by whether all runs agree on it."""
    return _differences([_configuration(run.record) for run in runs])


def circumstances(runs: Sequence[Run]) -> Differences:
    """What the runs were made with: machine, device, precision, versions, normlab's commit."""
    return _differences([_circumstances(run.record) for run in runs])


def _configuration(record: RunRecord) -> dict[str, Any]:
    own = {"norm": record.norm, "placement": record.placement, "data": record.data}
    keys = {**record.choices, **own, **flatten(record.config)}
    return {key: value for key, value in keys.items() if key.split(".")[0] not in _IGNORED}


def _circumstances(record: RunRecord) -> dict[str, Any]:
    known = {
        "device": record.device,
        "precision": record.precision,
        **{f"machine {key}": value for key, value in record.hardware.items()},
        COMMIT: _commit(record.git),
        **{f"version {key}": value for key, value in record.versions.items()},
    }
    return {key: value for key, value in known.items() if value is not None}


def _commit(git: Mapping[str, Any] | None) -> str | None:
    if git is None:
        return None
    return f"{git.get('commit')}{' with changes that are not in it' if git.get('dirty') else ''}"


def _differences(known: Sequence[Mapping[str, Any]]) -> Differences:
    varying, fixed = [], []
    for key in dict.fromkeys(key for one in known for key in one):
        values = [one.get(key, _ABSENT) for one in known]
        counts = Counter(map(_said, values))
        if len(counts) == 1:
            fixed.append((key, next(iter(counts))))
        else:
            varying.append((key, _listed(_ordered(values, _said), counts)))
    return Differences(tuple(varying), tuple(fixed))


_ABSENT = object()


def _said(value: Any) -> str:
    return "not there" if value is _ABSENT else format_value(value)


def _ordered(values: Iterable[Any], said: Callable[[Any], str]) -> list[str]:
    """Each value once: numbers by size, then texts."""

    def rank(value: Any) -> tuple[bool, float, str]:
        is_number = isinstance(value, int | float)
        return not is_number, value if is_number else 0.0, json.dumps(said(value))

    return list(dict.fromkeys(said(value) for value in sorted(values, key=rank)))


def _listed(values: Sequence[str], counts: Mapping[str, int]) -> str:
    shown = [
        f"{value} ({counts[value]} {'run' if counts[value] == 1 else 'runs'})"
        for value in values[:_MOST_VALUES]
    ]
    rest = len(values) - len(shown)
    return ", ".join(shown) + (f", and {rest} other values" if rest else "")
