"""Experiments that end in a figure and a paragraph of their own.

A configuration names one of `MEASURED_EXPERIMENTS` by its key `measure`: it trains nothing. Or it
names one of `TRAINED_EXPERIMENTS` by its key `figure`, which shows a study's trained runs.

Nothing heavy is imported here: Hydra's commands start in a second, torch takes three.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from matplotlib.figure import Figure
    from omegaconf import DictConfig

    from normlab.archive.study import Study


@dataclass(frozen=True)
class TrainedExperiment:
    """The figure and the sentences of a study whose runs all name this experiment.

    Attributes:
        name: of the experiment, and of its figure's file.
    """

    name: str

    def draw_figure(self, study: "Study") -> "Figure":
        """The figure of a study with at least one finished run."""
        return cast("Figure", import_module(f"{__name__}.{self.name}").draw_figure(study))

    def write_sentences(self, study: "Study") -> list[str]:
        """What the study shows, each sentence computed from its numbers."""
        return cast("list[str]", import_module(f"{__name__}.{self.name}").write_sentences(study))


def run_measured_experiment(
    loader: "ConfigLoader", master: "DictConfig", overrides: Sequence[str], study: str
) -> None:
    """Measure what `master.measure` names into the folder `study`, draw it, print what it shows.

    Raises:
        ConfigError: an override means nothing to it, or a value is not allowed.
        NormlabError: the results cannot be written.
    """
    # By name, as analysis imports this package and must not depend on torch, which this needs.
    import_module(f"{__name__}.main").run_experiment(loader, master, overrides, study)


def redraw(folder: Path, metric: str | None = None) -> bool:
    """Draw anew what a measured experiment left in a folder; False where it left nothing.

    `metric` is the scalar that the command asked for, which a measurement does not have.

    Raises:
        NormlabError: the numbers cannot be read, the results not be written, or `metric` is set.
    """
    from normlab.apps.experiments.report import redraw_report

    return redraw_report(folder, metric)


def find_trained_experiment(study: "Study") -> TrainedExperiment | None:
    """The experiment that all runs of a study name; None where they name none, or several.

    Nor is there one where runs differ in more than norm, placement, rate, depth and warm-up: its
    sentences would take the losses of unlike data, precision or steps for one another's.
    """
    from normlab.analysis.arms import group

    names = {str(run.record.config.get("figure")) for run in study.runs}
    varied = {key.split(".")[-1] for arm in group(study.runs) for key, _ in arm.settings}
    if len(names) != 1 or varied - {"lr", "depth", "warmup"}:
        return None
    return TRAINED_EXPERIMENTS.get(names.pop())


MEASURED_EXPERIMENTS: dict[str, Callable[[Any, Any, Sequence[str], str], None]] = dict.fromkeys(
    ("gradient_vanishing", "layernorm_vs_rmsnorm"), run_measured_experiment
)
TRAINED_EXPERIMENTS = {
    name: TrainedExperiment(name) for name in ("norm_comparison", "prenorm_vs_postnorm")
}
