"""What claims measure without training: by name, kept as JSON, measured again when it changes."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from normlab.apps.claims.machine import machine
from normlab.apps.claims.measurement import SIZES, Measurement
from normlab.apps.claims.verdicts import Measured
from normlab.errors import ConfigError, NormlabError


def measurements() -> Mapping[str, Measurement]:
    """All there are, by name."""
    from normlab.apps.claims.measurements import MEASUREMENTS  # torch takes seconds to import

    return MEASUREMENTS


def check_measurement(name: str, claim: str) -> None:
    """Refuse a measurement that is none.

    Raises:
        ConfigError: naming those that there are.
    """
    if name not in measurements():
        raise ConfigError(
            f"claim={claim} asks for measurement={name}, which is not there; there are "
            f"{', '.join(sorted(measurements()))}."
        )


def kept(name: str, budget: str, folder: Path) -> Measured | None:
    """The measurement as it is kept; None where it is not, or was another one.

    Raises:
        NormlabError: the file is damaged.
    """
    try:
        found = Measured.read(_path(name, budget, folder))
    except FileNotFoundError:
        return None
    return found if found.asked == _asked(name, budget) else None


def measure(name: str, budget: str, folder: Path) -> Measured:
    """Measure, and keep it.

    Raises:
        NormlabError: it cannot be written.
    """
    from normlab.training.hardware import single_thread  # torch takes seconds to import

    one = measurements()[name]
    # What came out not finite was not measured: JSON could not say it either. On one thread the
    # sums of such small tensors are always the same.
    with single_thread():
        found = one.measure(SIZES[budget])
    series = {key: values for key, values in found.items() if all(map(math.isfinite, values))}
    day = datetime.now(UTC).date().isoformat()
    measured = Measured(name, _asked(name, budget), one.setup, one.over, series, machine(), day)
    path = _path(name, budget, folder)
    try:
        measured.write(path)
    except OSError as error:
        raise NormlabError(
            f"{path} cannot be written ({error.strerror or error}); give another place with "
            f"output_dir=…"
        ) from error
    return measured


def _asked(name: str, budget: str) -> dict[str, float]:
    return {"version": measurements()[name].version, **asdict(SIZES[budget])}


def _path(name: str, budget: str, folder: Path) -> Path:
    return folder / "measured" / f"{name}-{budget}.json"
