"""`probe.json`: what was measured inside models at initialization, and the slopes fitted to it.

A number that is not finite is None, for JSON has neither NaN nor infinity.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from normlab.archive import tags
from normlab.archive.versioned_json import FiniteNumber, none_to_nan, write_versioned_json

SCHEMA_VERSION = 1
PROBE_FILE = "probe.json"


def feedforward_site(block: int) -> str:
    """The site of a block's feed-forward, blocks from 1."""
    return f"block_{block:02d}/feedforward"


@dataclass(frozen=True)
class ProbedModel:
    """One model and one batch.

    `settings` are the other overrides that vary, as `width=64`; `values` are by quantity (those
    of `archive.tags.QUANTITIES`, and of a norm's parameters) and site, in the order of depth.
    """

    norm: str
    placement: str
    settings: tuple[str, ...]
    depth: int
    seed: int
    loss: FiniteNumber  # nats per token
    values: dict[str, dict[str, FiniteNumber]]

    @property
    def arm(self) -> str:
        """Everything but depth and seed: `rmsnorm · pre`."""
        # `any` is a choice that makes no difference to the network.
        return " · ".join([*(x for x in (self.norm, self.placement) if x != "any"), *self.settings])

    def value(self, quantity: str, site: str) -> float:
        """The number, NaN where it is not finite or was not measured."""
        return none_to_nan(self.values.get(quantity, {}).get(site))

    def by_block(self, quantity: str) -> list[float]:
        """A quantity at the feed-forward of the blocks; NaN where it was not measured."""
        return [self.value(quantity, feedforward_site(block)) for block in range(1, self.depth + 1)]

    @property
    def last_gradient(self) -> float:
        """The gradient norm of the last feed-forward's weights."""
        return self.value(tags.PARAMETER_GRADIENT, feedforward_site(self.depth))


@dataclass(frozen=True)
class ModelSlope:
    """A slope, or a factor, of each seed, their mean, and half of its 95 % t-interval.

    See `slopes.fit_slopes`. `half` is None for one seed; `name` says what against what, `depth` at
    which depth, if at one.
    """

    arm: str
    name: str
    depth: int | None
    mean: FiniteNumber
    half: FiniteNumber
    seeds: tuple[float, ...]

    def __str__(self) -> str:
        half = "" if self.half is None else f" ± {self.half:.3f}"
        return "–" if self.mean is None else f"{self.mean:z.3f}{half}"


@dataclass(frozen=True)
class ProbeResult:
    """All models that one call measured, and the slopes that were fitted to them."""

    measurements: tuple[ProbedModel, ...]
    slopes: tuple[ModelSlope, ...]

    @property
    def arms(self) -> list[str]:
        """The arms, in the order of the overrides."""
        return list(dict.fromkeys(model.arm for model in self.measurements))

    @property
    def depths(self) -> list[int]:
        """The numbers of blocks, ascending."""
        return sorted({model.depth for model in self.measurements})

    def models_of(self, arm: str, depth: int | None = None) -> list[ProbedModel]:
        """An arm's models, at one depth or at all."""
        return [m for m in self.measurements if m.arm == arm and depth in (None, m.depth)]

    def slope(self, arm: str, name: str, depth: int | None = None) -> ModelSlope | None:
        """The slope of that name, None where it could not be fitted."""
        key = (arm, name, depth)
        return next((s for s in self.slopes if (s.arm, s.name, s.depth) == key), None)


def write_probe_result(folder: Path, result: ProbeResult, origin: dict[str, Any]) -> Path:
    """Write `probe.json` atomically, with the keys of `origin`. Raises OSError."""
    return write_versioned_json(folder / PROBE_FILE, {**origin, **asdict(result)}, SCHEMA_VERSION)
