"""A published claim and the test it is put to, as a file of conf/claim says it.

`normlab.apps.claims.config` reads the files, `normlab.analysis.claims` judges; what came out is
`normlab.apps.claims.verdicts`.
"""

from dataclasses import dataclass
from enum import Enum


class Quantity(Enum):
    """What is compared of a run: a validation loss, or how the stream's variance grows.

    `growth` is the power of the block with which the residual stream gains variance over that of
    the embedding, at the last step that was probed: 1 is linear, 0 is constant.
    """

    best = "best"
    final = "final"
    growth = "growth"


@dataclass
class Lower:
    """Arm a ends lower than arm b, on equal seeds. Less than `margin` apart there is no effect.

    An arm is what its runs have in common: `norm=layernorm placement=post optimizer.lr=1e-3`. Where
    its runs differ in more than the seed, as in the learning rate, each arm is taken where it is
    lowest on average.
    """

    a: str
    b: str
    margin: float
    quantity: Quantity = Quantity.final


@dataclass
class Parity:
    """Arms a and b end less than `margin` apart, each where it is lowest."""

    a: str
    b: str
    margin: float
    quantity: Quantity = Quantity.final


@dataclass
class Sensitivity:
    """Arm a is less sensitive to the learning rate than arm b (2309.14322)."""

    a: str
    b: str
    margin: float


@dataclass
class Diverges:
    """Arm a diverges at a learning rate at which arm b does not.

    The share of diverged runs of a minus that of b, at the rate where they differ most; where they
    differ nowhere, over all rates. Within `margin` there is no effect.
    """

    a: str
    b: str
    margin: float = 0.5


@dataclass
class Level:
    """An arm's number is between `low` and `high`, where it is lowest."""

    arm: str
    low: float
    high: float
    quantity: Quantity = Quantity.final


@dataclass
class Slope:
    """A fitted slope, one for each seed, is within `margin` of `value`; near zero there is none."""

    of: str
    value: float
    margin: float


@dataclass
class Ratio:
    """A ratio is between `low` and `high`; from 1 − margin to 1 + margin there is no effect."""

    of: str
    margin: float
    low: float | None = None
    high: float | None = None


@dataclass
class Value:
    """A measured value is between `low` and `high`."""

    of: str
    low: float | None = None
    high: float | None = None


@dataclass
class Exact:
    """An equation holds to rounding: its sides are at most `tolerance` of their size apart."""

    of: str
    tolerance: float


ArmsTest = Lower | Parity | Sensitivity | Diverges | Level
MeasuredTest = Slope | Ratio | Value | Exact
Test = ArmsTest | MeasuredTest

# What `test.kind` may be in a claim's file.
ARMS_KINDS: dict[str, type[ArmsTest]] = {
    "lower": Lower,
    "parity": Parity,
    "sensitivity": Sensitivity,
    "diverges": Diverges,
    "level": Level,
}
MEASURED_KINDS: dict[str, type[MeasuredTest]] = {
    "slope": Slope,
    "ratio": Ratio,
    "value": Value,
    "exact": Exact,
}
KINDS: dict[str, type[Test]] = {**ARMS_KINDS, **MEASURED_KINDS}


@dataclass
class Published:
    """What was reported, in words and, where it is one number on the test's scale, as that."""

    text: str
    value: float | None = None


@dataclass
class Claim:
    """One claim. `experiment` or `measurement` says what tests it; the other is None.

    Attributes:
        statement: one sentence, as it was published.
        source: an arXiv id, or what else it was read in.
        published: what was reported for it.
        setup: what it was obtained in.
        differs: what is different here.
        unit: of the number that the test looks at.
        experiment: an option of conf/experiment, whose runs are compared.
        measurement: the name of a measurement that needs no training.
        test: what decides.
    """

    statement: str
    source: str
    published: Published
    setup: str
    differs: str
    unit: str
    test: Test
    experiment: str | None = None
    measurement: str | None = None

    @property
    def arms(self) -> list[str]:
        """The arms that its test names."""
        return [getattr(self.test, key) for key in ("a", "b", "arm") if hasattr(self.test, key)]
