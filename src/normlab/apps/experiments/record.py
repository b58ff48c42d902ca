"""What an experiment that trains nothing leaves: `<name>.json`, its numbers and their origin.

A number that is not finite is None, for JSON has neither NaN nor infinity.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from normlab.apps.card.record import Invariance, Number
from normlab.archive.versioned_json import read_versioned_json, restore_value, write_versioned_json

SCHEMA_VERSION = 1


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
class Profile:
    """Signal and gradient by depth at initialisation: index 0 is the input, then layer by layer.

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
    rms: tuple[Number, ...]
    std: tuple[Number, ...]
    share: tuple[Number, ...]
    gradient: tuple[Number, ...]
    rms_error: tuple[Number, ...]
    gradient_error: tuple[Number, ...]
    weight: float | None = None
    bias: float | None = None

    @property
    def depth(self) -> int:
        """How many layers, or blocks, there are."""
        return len(self.rms) - 1


@dataclass(frozen=True)
class Vanishing:
    """`gradient_vanishing`.

    `stacks` are of Linear and ReLU; `deep` is the first of them with many times the layers, forward
    only; `transformers` are profiles of the residual stream, block by block.
    """

    stacks: tuple[Profile, ...]
    deep: Profile
    transformers: tuple[Profile, ...]


@dataclass(frozen=True)
class Moments:
    """Mean, standard deviation and RMS of a distribution, and the share of it in each bin."""

    mean: float
    std: float
    rms: float
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Shown:
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
class Timed:
    """Milliseconds of one implementation on fp32 (tokens, width), a value for every round."""

    way: str
    norm: str
    tokens: int
    width: int
    forward: tuple[float, ...]
    both: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """`layernorm_vs_rmsnorm`.

    `invariances` are by norm at its default eps and at none, `parameters` by norm at `width`,
    `not_timed` says of a way why it has no times.
    """

    inputs: tuple[Shown, ...]
    invariances: dict[str, tuple[Invariance, ...]]
    width: int
    parameters: dict[str, int]
    times: tuple[Timed, ...]
    not_timed: dict[str, str]


NUMBERS: dict[str, Any] = {"gradient_vanishing": Vanishing, "layernorm_vs_rmsnorm": Comparison}


@dataclass(frozen=True)
class Measured:
    """One measurement: its name, the settings that decide its numbers, the numbers."""

    name: str
    settings: dict[str, Any]
    origin: Origin
    numbers: Any  # what NUMBERS has for the name

    def write(self, folder: Path) -> Path:
        """Write `<name>.json` into the folder, whole or not at all. Raises OSError."""
        return write_versioned_json(path_of(folder, self.name), asdict(self), SCHEMA_VERSION)


def path_of(folder: Path, name: str) -> Path:
    """Where the numbers of this name are."""
    return folder / f"{name}.json"


def measured_in(folder: Path) -> Path | None:
    """Where the numbers are that an experiment left in the folder; None without any."""
    paths = [path_of(folder, name) for name in NUMBERS]
    return next((path for path in paths if path.is_file()), None)


def read_measured(path: Path) -> Measured:
    """What `Measured.write` wrote.

    Raises:
        FileNotFoundError: it is not there.
        NormlabError: it cannot be read, is damaged, or was written by a newer normlab.
    """
    return read_versioned_json(
        path, SCHEMA_VERSION, _parse, "the command that made it measures again"
    )


def _parse(raw: Any) -> Measured:
    found: Measured = restore_value(Measured, raw)
    numbers = restore_value(NUMBERS[found.name], found.numbers, "numbers")
    return replace(found, numbers=numbers)
