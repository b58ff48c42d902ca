"""Experiments that end in a figure and a paragraph of their own.

A configuration names one of `MEASURED_EXPERIMENTS` by its key `measure`: it trains nothing. Or it
names one of `TRAINED_EXPERIMENTS` by its key `figure`, which shows a study's trained runs.

Nothing heavy is imported here: Hydra's commands start in a second, torch takes three.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, cast

from normlab.analysis.experiment import StudyExperiment

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from matplotlib.figure import Figure
    from omegaconf import DictConfig

    from normlab.analysis.result import StudyResult


def run_measured_experiment(
    loader: "ConfigLoader", master: "DictConfig", overrides: Sequence[str], study: str
) -> None:
    """Measure what `master.measure` names into the folder `study`, draw it, print what it shows.

    Raises:
        ConfigError: an override means nothing to it, or a value is not allowed.
        NormlabError: the results cannot be written.
    """
    from normlab.apps.experiments.main import run_experiment

    run_experiment(loader, master, overrides, study)


def trained_experiment(name: str) -> StudyExperiment:
    """The experiment of the module of this name, which is imported when it is needed."""

    def draw_figure(result: "StudyResult") -> "Figure":
        return cast("Figure", import_module(f"{__name__}.{name}").draw_figure(result))

    def write_sentences(result: "StudyResult") -> list[str]:
        return cast("list[str]", import_module(f"{__name__}.{name}").write_sentences(result))

    return StudyExperiment(name, draw_figure, write_sentences)


MEASURED_EXPERIMENTS = dict.fromkeys(
    ("gradient_vanishing", "layernorm_vs_rmsnorm", "precision"), run_measured_experiment
)
TRAINED_EXPERIMENTS = {
    name: trained_experiment(name) for name in ("norm_comparison", "prenorm_vs_postnorm", "block")
}
