"""`card.json`: what was measured of a norm by itself, before anything is trained with it.

The names of fields are the file's keys. A number that is not finite is None.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from normlab.archive.steadiness import is_steady
from normlab.archive.versioned_json import FiniteNumber, write_versioned_json

SCHEMA_VERSION = 1
CARD_FILE = "card.json"

Verdict = Literal["yes", "to eps", "at init", "no"]
# Names of the invariances that a causal model cannot do without.
TOKEN_ALONE, SEQUENCE_ALONE = "token alone", "sequence alone"


@dataclass(frozen=True)
class Parameter:
    """A learnable tensor."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Output:
    """What comes out for one kind of input: mean, RMS, and the median of the absolute value."""

    input: str
    mean: FiniteNumber
    rms: FiniteNumber
    median: FiniteNumber


@dataclass(frozen=True)
class Invariance:
    """Whether an equation holds, and by how much it fails.

    `deviation` is the largest difference between its sides on standard inputs, relative to the
    output's RMS, with parameters moved off their start.
    """

    name: str
    equation: str
    verdict: Verdict
    deviation: FiniteNumber


@dataclass(frozen=True)
class Spectrum:
    """The Jacobian of one token's output with respect to its own input, at a standard-normal token.

    `values` are its singular values, falling; `rank` counts those above rounding, `near_zero`
    those under 1e-4 of the largest, and `condition` is largest over smallest of the others.
    """

    width: int
    values: tuple[float, ...]
    rank: int
    near_zero: int
    condition: FiniteNumber

    @property
    def median(self) -> float:
        """The upper median of the singular values."""
        return self.values[(len(self.values) - 1) // 2]


@dataclass(frozen=True)
class Extreme:
    """What an extreme input does: `output` and `gradient` are finite, NaN or inf.

    The gradients are those of a sum of ± outputs with respect to input and parameters. `largest`
    and `steepest` are the largest finite magnitudes of the output and of the input's gradient. For
    an input with one bad feature, `reach` says how far it gets: nowhere, feature, token, or other
    tokens.
    """

    input: str
    output: str
    largest: FiniteNumber
    gradient: str
    steepest: FiniteNumber
    reach: str | None = None


@dataclass(frozen=True)
class Rounding:
    """Errors in half precision, elementwise and relative, in units of the format's epsilon.

    Rounding the exact result once would give at most 0.5. `problem` says what stood in the way.
    """

    format: str
    output_rms: FiniteNumber = None
    output_max: FiniteNumber = None
    gradient_rms: FiniteNumber = None
    gradient_max: FiniteNumber = None
    problem: str | None = None


@dataclass(frozen=True)
class Ratio:
    """A time over LayerNorm's in the same round: median and quartiles over the rounds.

    `variation` is that of the times, the larger of both.
    """

    median: float
    low: float
    high: float
    variation: float

    @property
    def is_comparable(self) -> bool:
        """Whether the times were steady over the measurement."""
        return is_steady(self.variation)


@dataclass(frozen=True)
class Speed:
    """Time against LayerNorm's on the same input of `shape`, in fp32 on the CPU."""

    shape: tuple[int, ...]
    threads: int
    rounds: int
    layernorm_milliseconds: tuple[float, float]  # forward; forward and backward
    forward: Ratio
    both: Ratio

    @property
    def circumstances(self) -> str:
        """`8×256×512, 1 thread`."""
        plural = "" if self.threads == 1 else "s"
        return f"{'×'.join(map(str, self.shape))}, {self.threads} thread{plural}"


@dataclass(frozen=True)
class Curves:
    """What the figure draws: one feature's response and slope, and RMS out against RMS in."""

    feature: tuple[float, ...]
    response: tuple[FiniteNumber, ...]
    slope: tuple[FiniteNumber, ...]
    rms_in: tuple[float, ...]
    rms_out: tuple[FiniteNumber, ...]


@dataclass(frozen=True)
class Card:
    """One norm at one width."""

    name: str
    config: dict[str, Any]
    width: int
    parameters: tuple[Parameter, ...]
    computes_in: str  # "float64" or "float32", when it is given float64
    outputs: tuple[Output, ...]
    invariances: tuple[Invariance, ...]
    spectrum: Spectrum
    extremes: tuple[Extreme, ...]
    rounding: tuple[Rounding, ...]
    gradcheck: str
    second_gradcheck: str
    speed: Speed
    curves: Curves

    @property
    def parameter_count(self) -> int:
        """How many numbers it learns."""
        return sum(math.prod(parameter.shape) for parameter in self.parameters)

    @property
    def leaks(self) -> bool:
        """Whether a token's output depends on other tokens, of its sequence or of another."""
        return any(
            invariance.verdict != "yes"
            for invariance in self.invariances
            if invariance.name in (TOKEN_ALONE, SEQUENCE_ALONE)
        )


def write_cards(folder: Path, cards: list[Card], versions: dict[str, str]) -> Path:
    """Write `card.json`, all of it or nothing. Raises OSError."""
    plain = {"versions": versions, "cards": [asdict(card) for card in cards]}
    return write_versioned_json(folder / CARD_FILE, plain, SCHEMA_VERSION)
