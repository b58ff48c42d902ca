"""What is drawn of a study, decided before anything is: matplotlib is not needed for it."""

import math
from dataclasses import dataclass

from normlab.analysis.arms import Arm, Facet, facets, group
from normlab.analysis.statistics import mean_interval
from normlab.analysis.style import Look
from normlab.archive.folder import Study

MOST_FACETS = 12


@dataclass(frozen=True)
class Plan:
    """What is drawn of a study: its facets, their looks, and a sentence for those left out."""

    study: str
    facets: tuple[Facet, ...]
    look: Look
    left_out: tuple[str, ...]

    @property
    def arms(self) -> list[Arm]:
        """Every arm that is drawn."""
        return [arm for facet in self.facets for arm in facet.arms]


def plan(study: Study) -> Plan:
    """Decide what is drawn: every facet, or the best dozen where there are more."""
    arms = group(study.runs)
    every = facets(arms)
    best = sorted(every, key=best_loss)[:MOST_FACETS]
    shown = tuple(facet for facet in every if facet in best)
    hidden = [facet.title for facet in every if facet not in best]
    left_out: tuple[str, ...] = ()
    if hidden:
        left_out = (
            f"The figures show the {MOST_FACETS} of {len(every)} combinations with the lowest "
            f"validation loss; left out: {'; '.join(hidden)}.",
        )
    return Plan(study.name, shown, Look.of(arms), left_out)


def best_loss(facet: Facet) -> float:
    """Lowest mean of the best validation losses among the facet's arms; infinite without one."""
    means = []
    for arm in facet.arms:
        losses = [run.record.best.val_loss for run in arm.with_state("finished")]
        means.append(mean_interval([loss for loss in losses if loss is not None])[0])
    return min((mean for mean in means if not math.isnan(mean)), default=math.inf)
