"""What an application adds to the report of a study.

A file of its own, because every command names its experiments at the start, and what computes a
result takes half a second to import.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# `normlab.analysis.result.StudyResult`, whose module imports this one.
AnyStudyResult = Any


@dataclass(frozen=True)
class StudyExperiment:
    """What an application adds to a study whose runs all name it by their key `figure`.

    Attributes:
        name: of the experiment, and of its figure's file.
        draw_figure: the figure of a study with at least one finished run.
        write_sentences: what the study shows, each sentence computed from its numbers.
    """

    name: str
    draw_figure: Callable[[AnyStudyResult], "Figure"]
    write_sentences: Callable[[AnyStudyResult], list[str]]


StudyExperiments = Mapping[str, StudyExperiment]  # by the value of the key `figure`
