"""`probe.json`: what was measured inside models at initialisation, before anything is trained.

A number that is not finite is None, for JSON has neither NaN nor infinity.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from normlab.archive.versioned_json import read_versioned_json, restore_value, write_versioned_json

SCHEMA_VERSION = 1
PROBE_FILE = "probe.json"

Number = float | None


@dataclass(frozen=True)
class Measurement:
    """One model and one batch.

    `settings` are the other overrides that vary, as `width=64`; `values` are by quantity (those
    of `archive.tags.QUANTITIES`, and of a norm's parameters) and site, in the order of depth.
    """

    norm: str
    placement: str
    settings: tuple[str, ...]
    depth: int
    seed: int
    loss: Number  # nats per token
    values: dict[str, dict[str, Number]]

    @property
    def arm(self) -> str:
        """Everything but depth and seed: `rmsnorm · pre`."""
        return " · ".join([*(x for x in (self.norm, self.placement) if x != "any"), *self.settings])

    def value(self, quantity: str, site: str) -> float:
        """The number, NaN where it is not finite or was not measured."""
        found = self.values.get(quantity, {}).get(site)
        return math.nan if found is None else found


@dataclass(frozen=True)
class Slope:
    """A slope on log-log axes: of each seed, their mean, and half of its 95 % t-interval.

    `half` is None for one seed; `name` says what against what, `depth` at which depth, if at one.
    """

    arm: str
    name: str
    depth: int | None
    mean: Number
    half: Number
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class Probing:
    """Everything that one call measured, and the slopes that were fitted to it."""

    measurements: tuple[Measurement, ...]
    slopes: tuple[Slope, ...]

    @property
    def arms(self) -> list[str]:
        """The arms, in the order in which they were asked for."""
        return list(dict.fromkeys(one.arm for one in self.measurements))

    def of(self, arm: str, depth: int | None = None) -> list[Measurement]:
        """An arm's measurements, at one depth or at all."""
        return [one for one in self.measurements if one.arm == arm and depth in (None, one.depth)]

    def slope(self, arm: str, name: str, depth: int | None = None) -> Slope | None:
        """The slope of that name, None where it could not be fitted."""
        wanted = (arm, name, depth)
        return next((one for one in self.slopes if (one.arm, one.name, one.depth) == wanted), None)


def measurement(
    arm: tuple[str, str, Sequence[str]], depth: int, seed: int, found: Mapping[Any, float]
) -> Measurement:
    """What was found by (quantity, site), with the loss as (`loss`, `model`)."""
    values: dict[str, dict[str, Number]] = {}
    for (quantity, site), value in found.items():
        values.setdefault(quantity, {})[site] = value if math.isfinite(value) else None
    loss = values.pop("loss")["model"]
    return Measurement(arm[0], arm[1], tuple(arm[2]), depth, seed, loss, values)


def write_probing(folder: Path, probing: Probing, about: dict[str, Any]) -> Path:
    """Write `probe.json`, whole or not at all. Raises OSError."""
    return write_versioned_json(folder / PROBE_FILE, {**about, **asdict(probing)}, SCHEMA_VERSION)


def read_probing(path: Path) -> Probing:
    """What a file holds that `write_probing` wrote.

    Raises:
        FileNotFoundError: it is not there.
        NormlabError: it is damaged, or was written by a newer normlab.
    """
    probing: Probing = read_versioned_json(
        path, SCHEMA_VERSION, lambda raw: restore_value(Probing, raw), "measure again"
    )
    return probing
