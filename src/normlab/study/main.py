"""The front door: Hydra composes, the sweeper plans and launches, this prints what went wrong."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from normlab import config, output
from normlab.archive.lock import HeldError
from normlab.config.explain import explain, is_configuration_error
from normlab.config.help import groups
from normlab.config.schema import register as register_schema
from normlab.config.spec import RunSpec, specify
from normlab.config.trust import check_arguments
from normlab.errors import ConfigError, in_words
from normlab.study import engine
from normlab.study.plan import ELSEWHERE, is_settled
from normlab.training import stopping

if TYPE_CHECKING:
    from normlab.study.terminal import Lines


def main() -> None:
    """Run the command in `sys.argv`; leave with 1 or 2 and one sentence when it cannot be done."""
    register()
    sys.argv[1:] = _flags_first(sys.argv[1:])
    door = hydra.main(version_base="1.3", config_path=str(config.folder()), config_name="train")
    stopping.listen()
    with in_words(), _hydras_errors_in_words():
        if sys.argv[1:2] in (["-m"], ["--multirun"]):
            engine.begin()  # it imports torch while this process reads and checks
        if "--from" in sys.argv:
            check_arguments(sys.argv[1:])
            from normlab.study.repeat import repeat

            repeat(sys.argv[1:], shlex.join(sys.argv))
            return
        try:
            check_arguments(sys.argv[1:])
            door(train_one)()
        except Exception as error:
            if isinstance(error, ConfigError) or is_configuration_error(error):
                engine.end()
            raise


def register() -> None:
    """Make known what the files of conf/ refer to. Calling it again changes nothing."""
    register_schema()
    OmegaConf.register_new_resolver("normlab.groups", groups, replace=True)


def _flags_first(arguments: list[str]) -> list[str]:
    """`-m` may stand anywhere; beside a question it means nothing, for all runs are studies."""
    flags = [word for word in arguments if word in ("-m", "--multirun")]
    others = [word for word in arguments if word not in flags]
    asks = any(word in ("-c", "--cfg", "-h", "--help") for word in others)
    return others if asks else [*flags[:1], *others]


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
        sys.exit(143 if isinstance(stop, stopping.Terminated) else 130)
    except Exception as error:
        # Who set the variable wants to see the traceback.
        if before == "1" or not is_configuration_error(error):
            raise
        raise explain(error) from error
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
    spec = specify(composed, HydraConfig.get().runtime.choices)
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
        except HeldError as held:
            line.say(str(held))
            return ELSEWHERE
    line.finish(record)
    return record.state
