"""`<name>.json`: the numbers of a measured experiment, their settings, and where they are from.

A number that is not finite is None, for JSON has neither NaN nor infinity. The names of fields are
the file's keys.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from normlab.analysis.spread import Spread, ratio
from normlab.apps.card.record import Invariance
from normlab.archive.steadiness import is_steady, speed_variation
from normlab.archive.versioned_json import (
    FiniteNumber,
    read_versioned_json,
    restore_value,
    write_versioned_json,
)

SCHEMA_VERSION = 1

# The implementations that are timed, in the order of figure and sentences, and what they are.
IMPLEMENTATIONS = {
    "fused": "in normlab's kernels",
    "torch": "in torch's functions",
    "compiled": "with torch.compile",
    "composite": "written out",
    "x.var": "with x.var",
}
# A LayerNorm that has no RMSNorm of its kind, and the implementation whose RMSNorm it is held to.
NAIVE, WRITTEN_OUT = "x.var", "composite"


@dataclass(frozen=True)
class Origin:
    """Where numbers are from: the command, when it began (ISO 8601) and how long it took."""

    command: str
    started: str
    seconds: float
    machine: dict[str, Any]
    versions: dict[str, str]
    git: dict[str, Any] | None


@dataclass(frozen=True)
class DepthProfile:
    """Signal and gradient by depth at initialization: index 0 is the input, then layer by layer.

    `rms`, `std` are those of the activations over features, inputs and seeds; `share` is the part
    of their variance that is variance across inputs at fixed weights; `gradient` is the norm of the
    loss's gradient there over that at the last layer; the errors are relative, one standard error
    over the seeds. `weight` and `bias` are the variances of a layer's weights and biases times the
    width, where layers are all alike.
    """

    name: str
    norm: str
    placement: str | None  # None: a stack of Linear and ReLU
    init: str
    width: int
    seeds: int
    rms: tuple[FiniteNumber, ...]
    std: tuple[FiniteNumber, ...]
    share: tuple[FiniteNumber, ...]
    gradient: tuple[FiniteNumber, ...]
    rms_error: tuple[FiniteNumber, ...]
    gradient_error: tuple[FiniteNumber, ...]
    weight: float | None = None
    bias: float | None = None

    @property
    def depth(self) -> int:
        """How many layers, or blocks, there are."""
        return len(self.rms) - 1

    def by_layer(self, quantity: str) -> list[float]:
        """A field with a number a layer, NaN where it is not finite."""
        return [math.nan if number is None else number for number in getattr(self, quantity)]


@dataclass(frozen=True)
class GradientVanishing:
    """Profiles of stacks of Linear and ReLU, and of Transformers' residual streams by block.

    `deep` is the first stack with many times the layers, forward only.
    """

    stacks: tuple[DepthProfile, ...]
    deep: DepthProfile
    transformers: tuple[DepthProfile, ...]


@dataclass(frozen=True)
class Moments:
    """Mean, standard deviation and RMS of a distribution, and the share of it in each bin."""

    mean: float
    std: float
    rms: float
    shares: tuple[float, ...]


@dataclass(frozen=True)
class NormalizedInput:
    """One kind of input and what comes out of each norm.

    `edges` are those of the bins. `cosine` is the median over tokens between input and output, and
    `apart` the RMS of the difference between both outputs over that of LayerNorm's.
    """

    input: str
    edges: tuple[float, ...]
    before: Moments
    after: dict[str, Moments]
    cosine: dict[str, float]
    apart: float


@dataclass(frozen=True)
class NormTimes:
    """Milliseconds of one implementation on fp32 (tokens, width), a value for every round."""

    way: str  # a key of IMPLEMENTATIONS
    norm: str
    tokens: int
    width: int
    forward: tuple[float, ...]
    both: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(tokens, width)."""
        return self.tokens, self.width


@dataclass(frozen=True)
class TimeRatio:
    """RMSNorm's time over LayerNorm's: with backward, and forward alone; None if not steady."""

    implementation: str
    shape: tuple[int, int]
    both: Spread | None
    forward: Spread | None


@dataclass(frozen=True)
class LayerNormVsRmsNorm:
    """What LayerNorm and RMSNorm do, side by side.

    `invariances` are by norm at its default eps and at none, `parameters` by norm at `width`,
    `not_timed` says of an implementation why it has no times.
    """

    inputs: tuple[NormalizedInput, ...]
    invariances: dict[str, tuple[Invariance, ...]]
    width: int
    parameters: dict[str, int]
    times: tuple[NormTimes, ...]
    not_timed: dict[str, str]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(tokens, width) of all times, in their order."""
        return list(dict.fromkeys(times.shape for times in self.times))

    def ratio_to_torch(self, times: NormTimes) -> Spread | None:
        """Time with backward over that of F.layer_norm at its shape; None if not steady."""
        reference = next(
            other
            for other in self.times
            if (other.way, other.norm, other.shape) == ("torch", "layernorm", times.shape)
        )
        return _steady_ratio(times.both, reference.both)

    def time_ratios(self, implementations: Sequence[str]) -> list[TimeRatio]:
        """RMSNorm against LayerNorm, for each implementation and shape with times of both."""
        times = {(t.way, t.norm, t.shape): t for t in self.times}
        ratios = []
        for implementation in implementations:
            rms_implementation = WRITTEN_OUT if implementation == NAIVE else implementation
            for shape in self.shapes:
                layer = times.get((implementation, "layernorm", shape))
                rms = times.get((rms_implementation, "rmsnorm", shape))
                if layer and rms:
                    both = _steady_ratio(rms.both, layer.both)
                    forward = _steady_ratio(rms.forward, layer.forward)
                    ratios.append(TimeRatio(implementation, shape, both, forward))
        return ratios


def _steady_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread | None:
    if is_steady(speed_variation(numerators)) and is_steady(speed_variation(denominators)):
        return ratio(numerators, denominators)
    return None


NUMBERS: dict[str, Any] = {
    "gradient_vanishing": GradientVanishing,
    "layernorm_vs_rmsnorm": LayerNormVsRmsNorm,
}


@dataclass(frozen=True)
class MeasurementRecord:
    """One measurement: its name, the settings that decide its numbers, the numbers."""

    name: str
    settings: dict[str, Any]
    origin: Origin
    numbers: Any  # of the class that NUMBERS has for the name

    def write(self, folder: Path) -> Path:
        """Write `<name>.json` into the folder, all of it or nothing. Raises OSError."""
        return write_versioned_json(record_path(folder, self.name), asdict(self), SCHEMA_VERSION)


def record_path(folder: Path, name: str) -> Path:
    """Where the numbers of the experiment of this name are."""
    return folder / f"{name}.json"


def find_record(folder: Path) -> Path | None:
    """The file that a measured experiment left in the folder; None without one."""
    paths = [record_path(folder, name) for name in NUMBERS]
    return next((path for path in paths if path.is_file()), None)


def read_record(path: Path) -> MeasurementRecord:
    """What `MeasurementRecord.write` wrote.

    Raises:
        FileNotFoundError: it is not there.
        NormlabError: it cannot be read, is damaged, or was written by a newer normlab.
    """

    def parse(raw: Any) -> MeasurementRecord:
        record: MeasurementRecord = restore_value(MeasurementRecord, raw)
        numbers = restore_value(NUMBERS[record.name], record.numbers, "numbers")
        return replace(record, numbers=numbers)

    return read_versioned_json(
        path, SCHEMA_VERSION, parse, "the command that made it measures again"
    )
