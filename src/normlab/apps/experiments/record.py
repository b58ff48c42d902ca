"""`<name>.json`: the numbers of a measured experiment, their settings, and where they are from.

A number that is not finite is None. The names of fields are the file's keys.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from normlab.apps.experiments.gradient_vanishing import GradientVanishing
from normlab.apps.experiments.layernorm_vs_rmsnorm import LayerNormVsRmsNorm
from normlab.apps.experiments.precision import Precision
from normlab.archive.record import GitState
from normlab.archive.versioned_json import read_versioned_json, restore_value, write_versioned_json

SCHEMA_VERSION = 1

NUMBERS: dict[str, type[GradientVanishing | LayerNormVsRmsNorm | Precision]] = {
    "gradient_vanishing": GradientVanishing,
    "layernorm_vs_rmsnorm": LayerNormVsRmsNorm,
    "precision": Precision,
}


@dataclass(frozen=True)
class Origin:
    """Where numbers are from: the command, when it began (ISO 8601) and how long it took."""

    command: str
    started: str
    seconds: float
    machine: dict[str, Any]
    versions: dict[str, str]
    git: GitState | None


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
    """The path of the numbers of the experiment of this name."""
    return folder / f"{name}.json"


def find_record(folder: Path) -> Path | None:
    """The file that a measured experiment left in the folder; None without one."""
    paths = [record_path(folder, name) for name in NUMBERS]
    return next((path for path in paths if path.is_file()), None)


def read_record(path: Path) -> MeasurementRecord:
    """What `MeasurementRecord.write` wrote.

    Raises:
        FileNotFoundError: it does not exist.
        NormlabError: it cannot be read, is damaged, or was written by a newer normlab.
    """

    def parse(raw: Any) -> MeasurementRecord:
        record: MeasurementRecord = restore_value(MeasurementRecord, raw)
        numbers = restore_value(NUMBERS[record.name], record.numbers, "numbers")
        return replace(record, numbers=numbers)

    return read_versioned_json(
        path, SCHEMA_VERSION, parse, "the command that made it measures again"
    )
