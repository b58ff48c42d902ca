"""Experiments whose study of trained runs ends in a figure and sentences of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from normlab.analysis.arms import group
from normlab.archive.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class StudyExperiment:
    """What an application adds to a study whose runs all name it by their key `figure`.

    Attributes:
        name: of the experiment, and of its figure's file.
        draw_figure: the figure of a study with at least one finished run.
        write_sentences: what the study shows, each sentence computed from its numbers.
    """

    name: str
    draw_figure: Callable[[Study], "Figure"]
    write_sentences: Callable[[Study], list[str]]


StudyExperiments = Mapping[str, StudyExperiment]  # by the value of the key `figure`


def find_study_experiment(study: Study, experiments: StudyExperiments) -> StudyExperiment | None:
    """The experiment that all runs of a study name; None where they name none, or several.

    Nor is there one where runs differ in more than norm, placement, rate, depth and warm-up: its
    sentences would take the losses of unlike data, precision or steps for one another's.
    """
    names = {str(run.record.config.get("figure")) for run in study.runs}
    varied = {key.split(".")[-1] for arm in group(study.runs) for key, _ in arm.settings}
    if len(names) != 1 or varied - {"lr", "depth", "warmup"}:
        return None
    return experiments.get(names.pop())
