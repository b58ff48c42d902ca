"""The command of a measured experiment: it measures, writes the numbers, draws and describes them.

The same command again draws the numbers that the folder has, unless its settings ask for others.
"""

import shlex
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from normlab.apps.experiments.arguments import MeasurementArguments
from normlab.apps.experiments.record import (
    NUMBERS,
    MeasurementRecord,
    Origin,
    read_record,
    record_path,
)
from normlab.apps.experiments.report import write_report
from normlab.archive.record import check_output_dir
from normlab.errors import NormlabError
from normlab.study.plan import check_writable, make_study_folder
from normlab.study.progress import Countdown, format_duration
from normlab.terminal import open_terminal


def run_experiment(
    loader: ConfigLoader, master: DictConfig, overrides: Sequence[str], study: str
) -> None:
    """See `normlab.apps.experiments.run_measured_experiment`."""
    name = str(master.measure.name)
    settings_class = NUMBERS[name].SETTINGS
    arguments = MeasurementArguments.parse(loader, master, overrides, settings_class.ALLOWED_KEYS)
    settings = settings_class(arguments)
    check_output_dir(str(master.output_dir))
    folder = Path(master.output_dir) / study
    check_writable(folder)
    record = read_previous_record(folder, name, settings.recorded)
    try:
        if record is None:
            make_study_folder(folder)
            record = measure_experiment(name, settings, arguments.threads)
            record.write(folder)
        write_report(record, folder).print_to(open_terminal())
    except KeyboardInterrupt as stop:
        # How the command's last sentence goes on: a measurement has no state to continue from.
        stop.args = ("measures from the beginning",)
        raise
    except OSError as error:
        raise NormlabError(
            f"the results in {folder} cannot be written ({error.strerror or error}); free space or "
            f"permit writing there, and give the same command."
        ) from error


def read_previous_record(
    folder: Path, name: str, settings: dict[str, Any]
) -> MeasurementRecord | None:
    """The record in the folder, if it has these settings; otherwise a note says why it does not."""
    path, terminal = record_path(folder, name), open_terminal()
    try:
        record = read_record(path)
    except OSError:
        return None
    except NormlabError as error:
        terminal.print(f"note: {error}", markup=False)
        return None
    changed = [key for key in settings if record.settings.get(key) != settings[key]]
    if record.settings == settings:
        terminal.print(f"there {path}, measured {record.origin.started[:10]}", markup=False)
        return record
    terminal.print(
        f"note: {path} was measured with other settings ({', '.join(changed)}); it is measured "
        f"again",
        markup=False,
    )
    return None


def measure_experiment(name: str, settings: Any, threads: int | None) -> MeasurementRecord:
    """Measure on this processor, in full precision, and note where the numbers are from."""
    terminal = open_terminal()
    started, began = datetime.now().astimezone(), time.monotonic()
    if not terminal.is_terminal:
        terminal.print(f"measure {name}: {settings.steps} steps", markup=False)
    with Countdown(terminal, f"measure {name}", settings.steps) as countdown:
        # These import torch, which takes three seconds: the countdown is on the screen by then.
        from normlab.config.schema import Device, TrainerConfig
        from normlab.training.hardware import (
            describe_machine,
            git_state,
            package_versions,
            resolve_hardware,
        )

        experiment = import_module(f"{__package__}.{name}_measurement")
        trainer = TrainerConfig(1, 1, precision="32-true", device=Device.cpu, compile=False)
        hardware = resolve_hardware(trainer, threads)
        numbers = experiment.measure(settings, countdown.begin)
    seconds = time.monotonic() - began
    terminal.print(f"measured in {format_duration(seconds)}", markup=False)
    origin = Origin(
        command=shlex.join(sys.argv),
        started=started.isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        machine=describe_machine(hardware),
        versions=package_versions(),
        git=git_state(),
    )
    return MeasurementRecord(name, settings.recorded, origin, numbers)
