"""The command line of a study: Hydra's flags, its composition, and its errors as sentences."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import hydra

from normlab import config
from normlab.config.compose import explain_error, is_configuration_error, register_schemas
from normlab.config.gate import check_config_dir, check_folder, check_overrides
from normlab.config.schema import TrainConfig
from normlab.errors import CommandParser, ConfigError, report_user_errors
from normlab.study import workers
from normlab.study.plan import check_repeated_keys
from normlab.study.repeat import repeat_run
from normlab.study.sweep import MeasurementExperiments, StudySweeper
from normlab.text import excerpt
from normlab.training import stopping

if TYPE_CHECKING:
    from normlab.analysis.experiment import StudyExperiments


def main(trained: "StudyExperiments", measurements: MeasurementExperiments) -> None:
    """Run the command in `sys.argv`; leave with 1 or 2 and a sentence when it cannot be done.

    `trained` and `measurements` are the experiments that a configuration may name, by its keys
    `figure` and `measure`.
    """
    register_schemas()
    # Hydra makes the sweeper from the configuration, so that it cannot be passed an argument here.
    StudySweeper.trained_experiments = trained
    StudySweeper.measurement_experiments = measurements
    run_hydra = hydra.main(
        version_base="1.3", config_path=str(config.conf_folder()), config_name="train"
    )(workers.train_job)
    stopping.raise_on_signals()
    with report_user_errors(), _translate_hydra_errors():
        if any(word.partition("=")[0] == "--from" for word in sys.argv):
            repeat_run(sys.argv[1:], shlex.join(sys.argv))
            return
        try:
            sys.argv[1:] = read_command(sys.argv[1:])
            run_hydra()
        except Exception as error:
            if isinstance(error, ConfigError) or is_configuration_error(error):
                workers.stop_fork_server()
            raise


def read_command(arguments: Sequence[str]) -> list[str]:
    """The command line as Hydra takes it: flags by their full names, then the overrides.

    Every file from elsewhere that it names has passed the gate. `-m` may stand anywhere; beside a
    question (`--help`, `--cfg`) it means nothing, for every command is a study.

    Raises:
        ConfigError: a flag is unknown, or a folder is not there.
        UntrustedError: a file asks for what no file may ask for.
    """
    options, words = _command_parser().parse_known_args(list(arguments))
    overrides = [word for word in words if word != "--"]
    folders = [Path(path) for path in (options.config_dir, options.config_path) if path]
    for folder in folders:
        check_config_dir(folder)
        check_folder(folder, options.config_name, overrides)
    check_overrides(overrides, folders)
    check_repeated_keys(overrides, "" if options.multirun else " with -m")
    for word in overrides:
        group = re.match(r"[+~]*hydra\.(launcher|sweeper|help|hydra_logging|job_logging)=\w", word)
        if group:
            raise ConfigError(
                f"{excerpt(word)} chooses nothing; a group of Hydra's is written with a slash, as "
                f"in hydra/{group[1]}={excerpt(word.partition('=')[2])}"
            )
    if options.cfg or options.help:
        options.multirun = False
    if options.config_path:
        # Hydra would look for a relative one beside the file of its task, not in this folder.
        options.config_path = os.path.abspath(options.config_path)
    flags: list[str] = []
    for name, value in vars(options).items():
        if value not in (None, False):
            # The command is kept in run.json: -m as it is written everywhere.
            flag = "-m" if name == "multirun" else f"--{name.replace('_', '-')}"
            flags += [flag, *([] if value is True else [value])]
    return [*flags, *overrides]


def _command_parser() -> argparse.ArgumentParser:
    """Hydra's flags without its abbreviations, and without the one that reads a pickle."""
    keys = [item.name for item in fields(TrainConfig)]
    parser = CommandParser(add_help=False, allow_abbrev=False, keys=keys)
    for names in (
        ("--help", "-h"),
        ("--hydra-help",),
        ("--version",),
        ("--resolve",),
        ("--multirun", "-m"),
        ("--shell-completion", "-sc"),
    ):
        parser.add_argument(*names, action="store_true")
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    parser.add_argument("--info", "-i", nargs="?", const="all")
    for names in (
        ("--package", "-p"),
        ("--config-dir", "-cd"),
        ("--config-name", "-cn"),
        ("--config-path", "-cp"),
        ("--from",),  # read by `repeat_run`; here for a flag that is nearly this one
    ):
        parser.add_argument(*names)
    return parser


@contextmanager
def _translate_hydra_errors() -> Iterator[None]:
    """Have Hydra raise its errors instead of printing them, and raise them as sentences."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with stopping.restore_interruption():
            yield
    except KeyboardInterrupt as interruption:
        stopping.ignore_signals()
        rest = str(interruption) or "goes on where it was"
        sys.stderr.write(f"stopped; the same command {rest}\n")
        sys.exit(stopping.exit_code(interruption))
    except Exception as error:
        # Who set the variable wants to see the traceback.
        if before == "1" or not is_configuration_error(error):
            raise
        raise explain_error(error) from error
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before
