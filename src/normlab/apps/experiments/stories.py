"""What an experiment shows, told: one figure of its own, and sentences that its numbers make."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from normlab.analysis.arms import group
from normlab.archive.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# By the key `figure` of a run's configuration: the module that draws and tells it.
_STORIES = ("norm_comparison", "prenorm_vs_postnorm")
_TOLD_APART = {"lr", "depth", "warmup"}  # beside norm and placement


@dataclass(frozen=True)
class Story:
    """One experiment's figure and sentences.

    Attributes:
        name: of the figure's file, and of the experiment.
        draw: the figure, of a study with at least one finished run.
        tell: the sentences, of any study.
    """

    name: str
    draw: Callable[[Study], "Figure"]
    tell: Callable[[Study], list[str]]


def story(study: Study) -> Story | None:
    """The story that the study's runs were trained for; None where they were for none, or several.

    Nor is there one where runs differ in something that it does not tell apart, as data, precision
    or steps: their losses would be taken for one another's.

    Drawing needs matplotlib, which is imported when the figure is.
    """
    asked = [str(run.record.config.get("figure")) for run in study.runs]
    name = asked[0] if len(set(asked)) == 1 else None
    varied = {setting for arm in group(study.runs) for setting, _ in arm.settings}
    if name not in _STORIES or {one.split(".")[-1] for one in varied} - _TOLD_APART:
        return None

    def draw(of: Study) -> "Figure":
        return cast("Figure", import_module(f"{__name__}.{name}_figure").draw(of))

    return Story(name, draw, import_module(f"{__name__}.{name}").tell)
