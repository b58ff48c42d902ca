"""The studies that claims need: composed without torch, trained as a user would train them."""

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from normlab import config
from normlab.archive.record import RunRecord
from normlab.config.compose import composed_config
from normlab.config.run_spec import RunSpec
from normlab.errors import ConfigError, NormlabError
from normlab.study.experiment import Asked
from normlab.study.plan import Plan, make_plan, specified
from normlab.text import excerpt, suggest_closest

# What `train.py` does; there is no such file beside an installed package.
_TRAIN = "import sys; sys.argv[0] = 'train.py'; from normlab.cli import study; study()"
_SECONDS_TO_SAVE = 60


@dataclass(frozen=True)
class Place:
    """Where studies are composed from and go to.

    Attributes:
        budget: an option of conf/budget.
        output_dir: the folder of the studies' folders.
        config_dir: a folder with configuration of the user's own.
    """

    budget: str
    output_dir: Path
    config_dir: Path | None = None

    def arguments(self, experiment: str) -> list[str]:
        """What to give `train.py`."""
        own = [] if self.config_dir is None else ["--config-dir", str(self.config_dir)]
        overrides = [f"experiment={experiment}", f"budget={self.budget}"]
        return [*own, *overrides, f"output_dir={_quoted(str(self.output_dir))}"]

    def command(self, experiment: str) -> str:
        """What a user would type."""
        return shlex.join(["python", "train.py", *self.arguments(experiment)])


@dataclass(frozen=True)
class Planned:
    """A study of claims: its folder, the runs that it asks for, by id, and why there is none."""

    folder: Path = Path()
    asked: dict[str, RunRecord] = field(default_factory=dict)
    pending: int = 0
    problem: str = ""


def planned(experiment: str, place: Place) -> Planned:
    """What an experiment asks for. One that cannot be composed, or has no data, says why."""
    try:
        plan, folder = _plan(experiment, place)
    except NormlabError as error:
        return Planned(problem=str(error).rstrip("."))
    asked = {spec.id: _asked(spec) for spec in plan.specs}
    return Planned(folder, asked, len(plan.pending()))


def _plan(experiment: str, place: Place) -> tuple[Plan, Path]:
    given = [word for word in place.arguments(experiment) if "=" in word]
    with composed_config(given, place.config_dir) as (loader, master):
        sweeper = master.hydra.sweeper
        asked = Asked(sweeper.params, sweeper.arms, sweeper.budgets)
        arms, overrides = asked.overrides(given, place.budget)
        study = asked.study(str(master.study), place.budget)
        return make_plan(loader, master, overrides, study, arms), place.output_dir / study


def composed(overrides: Sequence[str]) -> RunSpec:
    """One run of our own configuration, composed.

    Raises:
        ConfigError: it cannot be.
    """
    with composed_config([]) as (loader, master):
        return specified(loader, master, overrides)


def _asked(spec: RunSpec) -> RunRecord:
    """A run as it stands before it begins."""
    norm, placement, data = (spec.choices[key] for key in ("norm", "placement", "data"))
    seed = spec.config.seed
    return RunRecord(spec.id, spec.name, norm, placement, data, seed, spec.choices, spec.plain)


def train(experiment: str, place: Place) -> str:
    """Train what is missing of an experiment in a process of its own, which shows how it goes.

    Returns why it did not get to the end; empty where it did.
    """
    process = subprocess.Popen([sys.executable, "-c", _TRAIN, *place.arguments(experiment)])
    try:
        code = process.wait()
    except BaseException:  # stopped: it saves what it has
        process.terminate()
        _wait(process)
        raise
    return "" if code == 0 else f"{place.command(experiment)} left with code {code}"


def _wait(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(_SECONDS_TO_SAVE)
    except subprocess.TimeoutExpired:
        process.kill()


def check_budget(budget: str) -> None:
    """Refuse a budget that is none.

    Raises:
        ConfigError: naming those that there are.
    """
    options = sorted(path.stem for path in (config.conf_folder() / "budget").glob("*.yaml"))
    if budget not in options:
        raise ConfigError(
            f"budget={excerpt(budget)} is not an option; {suggest_closest(budget, options)}"
            f"budget has {', '.join(options)}."
        )


def _quoted(text: str) -> str:
    if re.fullmatch(r"[\w./+-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
