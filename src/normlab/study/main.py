"""The front door: Hydra composes, the sweeper plans and launches, this prints what went wrong."""

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from normlab import config, output
from normlab.archive.lock import RunLockedError
from normlab.config.compose import explain_error, is_configuration_error
from normlab.config.compose import register_schemas as register_schema
from normlab.config.gate import check_folder, check_overrides
from normlab.config.run_spec import RunSpec, make_run_spec
from normlab.errors import ConfigError, Parser, in_words
from normlab.study import engine
from normlab.study.applications import MeasuredExperiments, register_applications
from normlab.study.plan import ELSEWHERE, is_settled
from normlab.text import excerpt, suggest_closest
from normlab.training import stopping

if TYPE_CHECKING:
    from normlab.analysis.result import StudyExperiments
    from normlab.study.terminal import Lines


def main(trained: "StudyExperiments", measured: MeasuredExperiments) -> None:
    """Run the command in `sys.argv`; leave with 1 or 2 and one sentence when it cannot be done.

    `trained` and `measured` are the experiments that a configuration may name, by its keys `figure`
    and `measure`.
    """
    register()
    register_applications(trained, measured)
    run_hydra = hydra.main(
        version_base="1.3", config_path=str(config.conf_folder()), config_name="train"
    )(train_one)
    stopping.listen()
    with in_words(), _hydras_errors_in_words():
        if any(word.partition("=")[0] == "--from" for word in sys.argv):
            from normlab.study.repeat import repeat

            repeat(sys.argv[1:], shlex.join(sys.argv))
            return
        if {"-m", "--multirun"} & {*sys.argv}:
            engine.begin()  # it imports torch while this process reads and checks
        try:
            sys.argv[1:] = read_command(sys.argv[1:])
            run_hydra()
        except Exception as error:
            if isinstance(error, ConfigError) or is_configuration_error(error):
                engine.end()
            raise


def register() -> None:
    """Make known what the files of conf/ refer to. Calling it again changes nothing."""
    register_schema()


def read_command(arguments: Sequence[str]) -> list[str]:
    """The command line as Hydra takes it: flags by their full names, then the overrides.

    Every file from elsewhere that it names has passed the gate. `-m` may stand anywhere; beside a
    question (`--help`, `--cfg`) it means nothing, for every command is a study.

    Raises:
        ConfigError: a flag is unknown, or a folder is not there.
        UntrustedError: a file asks for what no file may ask for.
    """
    options, words = _command_parser().parse_known_args(list(arguments))
    unknown = [word for word in words if word.startswith("-") and word != "--"]
    if unknown:
        flag = unknown[0].partition("=")[0]
        raise ConfigError(
            f"{excerpt(flag)} is not a flag; {suggest_closest(flag, _FLAGS)}"
            f"--help shows what there is."
        )
    overrides = [word for word in words if word != "--"]
    folders = [Path(path) for path in (options.config_dir, options.config_path) if path]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(
                f"{folder} is not a folder; give --config-dir one with <group>/<name>.yaml."
            )
        check_folder(folder, options.config_name)
    check_overrides(overrides, folders)
    if options.cfg or options.help:
        options.multirun = False
    if options.config_path:
        options.config_path = os.path.abspath(options.config_path)
    flags: list[str] = []
    for name, value in vars(options).items():
        if value not in (None, False):
            # The command is kept in run.json: -m as it is written everywhere.
            flag = "-m" if name == "multirun" else f"--{name.replace('_', '-')}"
            flags += [flag, *([] if value is True else [value])]
    return [*flags, *overrides]


_FLAGS = (
    *("--help", "--cfg", "--resolve", "--package", "--multirun", "--info", "--hydra-help"),
    *("--config-dir", "--config-name", "--config-path", "--shell-completion", "--version"),
    "--from",
)


def _command_parser() -> argparse.ArgumentParser:
    """Hydra's flags without its abbreviations, and without the one that reads a pickle."""
    parser = Parser(add_help=False, allow_abbrev=False)
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
    ):
        parser.add_argument(*names)
    return parser


@contextmanager
def _hydras_errors_in_words() -> Iterator[None]:
    """Make Hydra raise its errors instead of printing them, and say them as our own."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    except KeyboardInterrupt as stop:
        stopping.ignore()
        rest = str(stop) or "goes on where it was"
        sys.stderr.write(f"stopped; the same command {rest}\n")
        sys.exit(stopping.exit_code(stop))
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


def train_one(composed: DictConfig, runs: int = 1, lines: "Lines | None" = None) -> str:
    """Hydra's task: train one run of a study of `runs`, unless it is there. Returns its state.

    The state of a run that another process trains is `elsewhere`. `lines` makes the run's line,
    where it is not this process that shows it.
    """
    spec = make_run_spec(composed, HydraConfig.get().runtime.choices)
    if is_settled(spec):
        return "there"
    job = HydraConfig.get().job
    number = 1 if OmegaConf.is_missing(job, "num") else int(job.num) + 1
    return train_here(spec, number, runs, shlex.join(sys.argv), lines)


def train_here(
    spec: RunSpec, number: int, runs: int, command: str, lines: "Lines | None" = None
) -> str:
    """Train run `number` of `runs` in this process, with its line. Returns its state."""
    # Torch takes seconds to import; a command that cannot be carried out never gets here.
    from normlab.study import warm
    from normlab.study.terminal import RunLine

    output.secure()  # a launcher of Hydra's may have begun this process
    warm.load()
    from normlab.training.run import train

    with (lines or RunLine)(spec.name, number, runs, spec.config.trainer.max_steps) as line:
        try:
            record = train(spec, command, line)
        except RunLockedError as held:
            line.say(str(held))
            return ELSEWHERE
    line.finish(record)
    return record.state
