"""A published claim and the test it is put to: the files of conf/claim, read and checked.

A claim's numbers come from `estimates`, its verdict from `judge`.
"""

import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from normlab.config import conf_folder
from normlab.config.gate import check_config_dir
from normlab.config.messages import unknown_key_error
from normlab.config.safe_yaml import read_yaml
from normlab.errors import ConfigError
from normlab.text import excerpt, suggest_closest

GROUP = "claim"


class Quantity(Enum):
    """What is compared of a run: the final validation loss, or how the stream's variance grows.

    Both kinds of growth are those at the last step that was probed. `growth` is the power of the
    block with which the residual stream gains variance over that of the embedding: 1 is linear, 0
    is constant. `acceleration` is ln of the variance that the second half of the blocks adds over
    what the first half adds, blocks 5 to 7 over blocks 2 to 4 of 8: the first is left out, and the
    last where the number is even. 0 is linear, exponential growth is above.
    """

    final = "final"
    # For the claims of 2502.02732 on how the stream's variance grows with depth.
    growth = "growth"
    acceleration = "acceleration"

    @property
    def is_loss(self) -> bool:
        """Whether it is a loss, in nats per token; the others need the probes of a run."""
        return self is Quantity.final


class Role(Enum):
    """A published statement about what could be otherwise, or an equation that must hold."""

    claim = "claim"
    check = "check"


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


RunTest = Lower | Parity | Sensitivity | Diverges | Level
MeasurementTest = Slope | Ratio | Value | Exact
Test = RunTest | MeasurementTest

# What `test.kind` may be in a claim's file, the class's name in lower case: tests of trained runs,
# and of what needs no training.
RUN_TESTS: dict[str, type[RunTest]] = {kind.__name__.lower(): kind for kind in get_args(RunTest)}
MEASUREMENT_TESTS: dict[str, type[MeasurementTest]] = {
    kind.__name__.lower(): kind for kind in get_args(MeasurementTest)
}
TESTS: dict[str, type[Test]] = {**RUN_TESTS, **MEASUREMENT_TESTS}


@dataclass
class Published:
    """What was reported, in words and, where it is one number on the test's scale, as that."""

    text: str
    value: float | None = None


@dataclass
class Regime:
    """Which runs can say something about the claim; shorter or smaller ones are not judged.

    Attributes:
        steps: the least length of a run, in optimizer steps.
        source: the paper, or the study of lengths, that these limits are from.
        depth: the fewest blocks, where that matters.
        width: the smallest width, where that matters.
    """

    steps: int
    source: str
    depth: int | None = None
    width: int | None = None


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
        regime: which runs of the experiment are judged; None: all.
        role: a check is listed on a page of its own.
        first_run: the date of its first verdict, where its test was not registered before that.
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
    regime: Regime | None = None
    role: Role = Role.claim
    first_run: str | None = None

    @property
    def quantity(self) -> Quantity | None:
        """What is compared of runs; None where the test says itself what it looks at."""
        return getattr(self.test, "quantity", None)

    @property
    def needs_probes(self) -> bool:
        """Whether what is compared is from the probes of runs."""
        return self.quantity is not None and not self.quantity.is_loss

    @property
    def kind(self) -> str:
        """The test's kind as the claim's file names it."""
        return type(self.test).__name__.lower()

    @property
    def arms(self) -> list[str]:
        """The arms that the test names; none where it is of a measurement."""
        return [getattr(self.test, key) for key in ("a", "b", "arm") if hasattr(self.test, key)]


def load_claims(names: Sequence[str] = (), config_dir: Path | None = None) -> dict[str, Claim]:
    """The claims of these names, or all, by name. A file in `config_dir` goes before one of ours.

    Raises:
        ConfigError: there is no such claim or experiment, or a file does not hold a claim.
    """
    if config_dir is not None:
        check_config_dir(config_dir, f"{GROUP}/<name>.yaml")
    folders = [conf_folder(), *([] if config_dir is None else [config_dir])]
    paths = {path.stem: path for folder in folders for path in (folder / GROUP).glob("*.yaml")}
    paths = dict(sorted(paths.items()))
    for name in names:
        if name not in paths:
            raise ConfigError(
                f"claim={excerpt(name)} does not exist; {suggest_closest(name, paths)}choose from "
                f"{', '.join(paths)}."
            )
    if not paths:
        raise ConfigError(f"there is no claim; {conf_folder() / GROUP} holds no *.yaml.")
    claims = {name: read_claim(paths[name]) for name in dict.fromkeys(names or paths)}
    options = {path.stem for folder in folders for path in (folder / "experiment").glob("*.yaml")}
    for name, claim in claims.items():
        if claim.experiment is not None and claim.experiment not in options:
            raise _claim_error(
                paths[name],
                f"experiment={claim.experiment} does not exist; "
                f"{suggest_closest(claim.experiment, sorted(options))}choose from "
                f"{', '.join(sorted(options))}",
            )
    return claims


def read_claim(path: Path) -> Claim:
    """The claim in a file.

    Raises:
        ConfigError: it cannot be read, or a key or a value of it does not fit.
    """
    raw = read_yaml(path)
    required = "statement, source, published, setup, differs, unit, test"
    if not isinstance(raw, dict):
        raise _claim_error(path, f"it must hold {required}")
    for key in ("test", "published"):
        if raw.get(key) is None:
            raise _claim_error(path, f"{key} is missing; a claim holds {required}")
    test, published = raw.pop("test"), raw.pop("published")
    kind = test.get("kind") if isinstance(test, dict) else test
    # A kind that is a list or a mapping has no hash to be looked up by.
    if not isinstance(test, dict) or not isinstance(kind, str) or kind not in TESTS:
        raise _claim_error(
            path,
            f"test.kind={kind} is not allowed; {suggest_closest(str(kind), TESTS)}"
            f"it must be one of {', '.join(TESTS)}",
        )
    del test["kind"]
    test = TESTS[kind](**_convert_keys(path, TESTS[kind], test, "test.", ("kind",)))
    if not isinstance(published, dict):
        raise _claim_error(path, "published must hold text, and value where it is a number")
    published = Published(**_convert_keys(path, Published, published, "published."))
    regime = raw.pop("regime", None)
    if regime is not None:
        if not isinstance(regime, dict):
            raise _claim_error(path, "regime must hold steps and source")
        regime = Regime(**_convert_keys(path, Regime, regime, "regime."))
    values = _convert_keys(path, Claim, raw, "", ("test", "published", "regime"))
    claim = Claim(**values, test=test, published=published, regime=regime)
    _check_claim(path, claim)
    return claim


def _convert_keys(
    path: Path, kind: Any, raw: dict[str, Any], prefix: str, nested: Sequence[str] = ()
) -> dict[str, Any]:
    """The keys of a dataclass but for `nested`, as in the file, each converted to its type."""
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name not in nested}
    for key in raw:
        if key not in hints:
            error = unknown_key_error(f"{prefix}{key}", (*hints, *nested))
            raise _claim_error(path, str(error).rstrip("."))
    for field in fields(kind):
        if field.name in hints and field.name not in raw and field.default is MISSING:
            raise _claim_error(path, f"{prefix}{field.name} is missing")
    return {key: _convert_value(path, prefix + key, hints[key], raw[key]) for key in raw}


def _convert_value(path: Path, key: str, hint: Any, value: Any) -> Any:
    # OmegaConf would take true for 1.
    if isinstance(value, bool):
        raise _claim_error(
            path, f"{key}={str(value).lower()} is not allowed; no key is true or false"
        )
    try:
        # As a field of its type. To YAML 2e-2, without a point, is text: OmegaConf converts it.
        node = OmegaConf.structured(make_dataclass("Key", [("value", hint)]))
        node.value = value
        converted = OmegaConf.to_container(node, enum_to_str=False)["value"]  # type: ignore[index, call-overload]
    except OmegaConfBaseException as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise _claim_error(path, f"{key}={value} is not allowed ({reason})") from error
    if isinstance(converted, float) and not math.isfinite(converted):
        raise _claim_error(path, f"{key}={value} is not allowed; it must be finite")
    return converted


def _check_claim(path: Path, claim: Claim) -> None:
    kind, test = claim.kind, claim.test
    if (claim.experiment is None) == (claim.measurement is None):
        raise _claim_error(path, "it must have either experiment or measurement")
    if (kind in RUN_TESTS) != (claim.experiment is not None):
        needed = "an experiment" if kind in RUN_TESTS else "a measurement"
        raise _claim_error(path, f"test.kind={kind} needs {needed}")
    if claim.regime is not None:
        if claim.experiment is None:
            raise _claim_error(path, "regime needs an experiment: a measurement trains nothing")
        for name in ("steps", "depth", "width"):
            least: int | None = getattr(claim.regime, name)
            if least is not None and least < 1:
                raise _claim_error(
                    path, f"regime.{name}={least} is not allowed; it must be 1 or more"
                )
    for name in ("margin", "tolerance"):
        number = getattr(test, name, 0.0)
        if number < 0:
            raise _claim_error(path, f"test.{name}={number} is not allowed; it must be 0 or more")
    low, high = getattr(test, "low", None), getattr(test, "high", None)
    if kind in ("value", "ratio") and low is None and high is None:
        raise _claim_error(path, "test.low and test.high are both missing; give one of them")
    if low is not None and high is not None and low > high:
        raise _claim_error(path, f"test.low={low} is above test.high={high}")


def _claim_error(path: Path, problem: str) -> ConfigError:
    return ConfigError(f"{path}: {problem}.")
