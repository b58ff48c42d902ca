"""Experiments that train nothing: they measure, write their numbers, and draw them.

The same command again draws what is there, unless its settings ask for other numbers.
"""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from normlab.apps.experiments import gradient_vanishing, layernorm_vs_rmsnorm
from normlab.apps.experiments.conclusion import conclude
from normlab.apps.experiments.record import Measured, Origin, path_of, read_measured
from normlab.apps.experiments.request import Request
from normlab.archive.identity import check_output_dir
from normlab.errors import NormlabError
from normlab.study.plan import check_writable, make_study_folder
from normlab.study.progress import Countdown, format_duration
from normlab.terminal import open_terminal

_ROOMS: dict[str, Any] = {
    "gradient_vanishing": gradient_vanishing,
    "layernorm_vs_rmsnorm": layernorm_vs_rmsnorm,
}


def carry_out(
    loader: ConfigLoader, master: DictConfig, arguments: Sequence[str], study: str
) -> None:
    """Measure what `master.measure` names, unless it is there, then draw it and say what it shows.

    `study` names the folder that all of it goes into.

    Raises:
        ConfigError: an override means nothing to it, or a value is not allowed.
        NormlabError: the results cannot be written.
    """
    room = _ROOMS[master.measure.name]
    request = Request.read(loader, master, arguments, room.TAKES)
    measurement = room.Measurement(request)
    check_output_dir(str(master.output_dir))
    folder = Path(master.output_dir) / study
    check_writable(folder)
    settings = measurement.settings
    found = _found(folder, request.name, settings)
    try:
        if found is None:
            make_study_folder(folder)
            found = _measured(request.name, settings, measurement, request.threads)
            found.write(folder)
        conclude(found, folder).show(open_terminal())
    except KeyboardInterrupt as stop:
        stop.args = ("measures from the beginning",)
        raise
    except OSError as error:
        raise NormlabError(
            f"the results in {folder} cannot be written ({error.strerror or error}); free space or "
            f"permit writing there, and give the same command."
        ) from error


def _found(folder: Path, name: str, settings: dict[str, Any]) -> Measured | None:
    """The numbers that are there, if they are what would be measured."""
    terminal = open_terminal()
    try:
        found = read_measured(path_of(folder, name))
    except OSError:
        return None
    except NormlabError as error:
        terminal.print(f"note: {error}", markup=False)
        return None
    if found.settings == settings:
        when = found.origin.started[:10]
        terminal.print(f"there {path_of(folder, name)}, measured {when}", markup=False)
        return found
    changed = [key for key in settings if found.settings.get(key) != settings[key]]
    terminal.print(
        f"note: {path_of(folder, name)} was measured with other settings "
        f"({', '.join(changed)}); it is measured again",
        markup=False,
    )
    return None


def _measured(
    name: str, settings: dict[str, Any], measurement: Any, threads: int | None
) -> Measured:
    terminal = open_terminal()
    started, began = datetime.now().astimezone(), time.monotonic()
    if not terminal.is_terminal:
        terminal.print(f"measure {name}: {measurement.steps} steps", markup=False)
    with Countdown(terminal, f"measure {name}", measurement.steps) as countdown:
        numbers, machine = _numbers(measurement, threads, countdown.begin)
    seconds = time.monotonic() - began
    terminal.print(f"measured in {format_duration(seconds)}", markup=False)
    from normlab.training.hardware import git_state, package_versions

    origin = Origin(
        shlex.join(sys.argv),
        started.isoformat(timespec="seconds"),
        round(seconds, 1),
        machine,
        package_versions(),
        git_state(),
    )
    return Measured(name, settings, origin, numbers)


def _numbers(
    measurement: Any, threads: int | None, each: Callable[[str], None]
) -> tuple[Any, dict[str, Any]]:
    """The numbers, and the machine that they were measured on: its processor, in full precision."""
    from normlab.config.schema import Device, TrainerConfig
    from normlab.training.hardware import describe_machine, resolve_hardware

    trainer = TrainerConfig(1, 1, precision="32-true", device=Device.cpu, compile=False)
    hardware = resolve_hardware(trainer, threads)
    return measurement.measure(hardware.threads, each), describe_machine(hardware)
