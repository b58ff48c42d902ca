"""What the applications add to a study: `study.main.main` registers it, the sweeper reads it.

Hydra makes the sweeper from the configuration, so the command cannot pass it an argument. Only the
process of the command needs this: those that train a run, whoever starts them, draw nothing.
"""

from collections.abc import Callable, Mapping, Sequence

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from normlab.analysis.result import StudyExperiments

# Measures without training. Arguments: the loader, the composed configuration, the overrides, the
# study's name.
MeasuredExperiment = Callable[[ConfigLoader, DictConfig, Sequence[str], str], None]
MeasuredExperiments = Mapping[str, MeasuredExperiment]  # by `measure.name` of the configuration

study_experiments: StudyExperiments = {}
measured_experiments: MeasuredExperiments = {}


def register_applications(trained: StudyExperiments, measured: MeasuredExperiments) -> None:
    """Set both for the command that begins."""
    global study_experiments, measured_experiments
    study_experiments, measured_experiments = trained, measured
