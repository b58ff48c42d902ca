"""What is drawn of a study, decided before anything is: matplotlib is not needed for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from normlab.analysis.arms import Arm, Facet, facets, group
from normlab.analysis.sentences import some
from normlab.analysis.statistics import mean_interval
from normlab.analysis.style import Look
from normlab.archive.study import Study

MOST_FACETS = 12
MOST_CURVES = 20  # arms in one panel of curves
MOST_RANKED = 40  # rows of a ranking
MOST_RANKED_APART = 12  # rows of each of several rankings


@dataclass(frozen=True)
class Plan:
    """What is drawn of a study: facets with the arms in them, their looks, and what is left out.

    Attributes:
        study: its name.
        facets: what the curves show, at most `MOST_CURVES` arms by name.
        ranked: what the final losses show: more arms, where they have the figure to themselves.
        names: how many arms by name there are in all.
        combinations: how many facets there are in all.
        look: colours and line styles.
        left_out: sentences for what is not drawn.
    """

    study: str
    facets: tuple[Facet, ...]
    ranked: tuple[Facet, ...]
    names: int
    combinations: int
    look: Look
    left_out: tuple[str, ...]

    @property
    def arms(self) -> list[Arm]:
        """Every arm whose curves are drawn."""
        return [arm for facet in self.facets for arm in facet.arms]


def plan(study: Study) -> Plan:
    """Decide what is drawn: every facet and arm, or where they are many, the best of them."""
    arms = group(study.runs)
    every = facets(arms)
    best = sorted(every, key=best_loss)[:MOST_FACETS]
    shown = tuple(facet for facet in every if facet in best)
    hidden = [facet.title for facet in every if facet not in best]
    left_out: tuple[str, ...] = ()
    if arms and arms[0].unnamed:
        left_out += (
            f"Arms differ in more than their names tell: also in {some(sorted(arms[0].unnamed))}; "
            f"report.html lists every key.",
        )
    if hidden:
        left_out += (
            f"The figures show the {MOST_FACETS} of {len(every)} combinations with the lowest "
            f"validation loss; left out: {some(hidden)}.",
        )
    names = _by_loss([arm for facet in shown for arm in facet.arms])
    rows = MOST_RANKED if len(shown) == 1 else MOST_RANKED_APART
    drawn, ranked = (_cut(shown, names[:most]) for most in (MOST_CURVES, rows))
    if len(names) > MOST_CURVES:
        left_out += (
            f"The curves show the {MOST_CURVES} of {len(names)} arms with the lowest final loss, "
            f"and a ranking at most {rows}; runs.csv and report.html hold all.",
        )
    looks = Look.of([arm for facet in (*drawn, *ranked) for arm in facet.arms])
    return Plan(study.name, drawn, ranked, len(names), len(every), looks, left_out)


def _by_loss(arms: Sequence[Arm]) -> list[str]:
    """The arms' names, that with the lowest mean final loss in any facet first."""
    lowest: dict[str, float] = {}
    for arm in arms:
        losses = [run.record.final.val_loss for run in arm.with_state("finished")]
        mean = mean_interval([loss for loss in losses if loss is not None])[0]
        known = math.inf if math.isnan(mean) else mean
        lowest[arm.name] = min(known, lowest.get(arm.name, math.inf))
    return sorted(lowest, key=lambda name: lowest[name])


def _cut(shown: Sequence[Facet], names: Sequence[str]) -> tuple[Facet, ...]:
    """The facets with these arms alone; one without any of them is left as it is."""
    kept = [(facet, tuple(arm for arm in facet.arms if arm.name in names)) for facet in shown]
    return tuple(replace(facet, arms=arms or facet.arms[:MOST_CURVES]) for facet, arms in kept)


def best_loss(facet: Facet) -> float:
    """Lowest mean of the best validation losses among the facet's arms; infinite without one."""
    means = []
    for arm in facet.arms:
        losses = [run.record.best.val_loss for run in arm.with_state("finished")]
        means.append(mean_interval([loss for loss in losses if loss is not None])[0])
    return min((mean for mean in means if not math.isnan(mean)), default=math.inf)
