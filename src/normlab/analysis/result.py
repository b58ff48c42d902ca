"""What a study comes to, computed once: `analyse_study` makes the `StudyResult`.

The terminal's tables, the figures and the report show it, and group no runs of their own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from normlab.analysis.arms import Arm, Facet, group_runs, split_facets
from normlab.analysis.caveats import find_caveats
from normlab.analysis.comparison import Comparison, compare_arms, is_invalid
from normlab.analysis.conclusions import (
    describe_best_rates,
    describe_comparisons,
    describe_divergence,
    describe_sensitivities,
    describe_stable_rates,
    describe_unlearned,
    explain_no_comparison,
)
from normlab.analysis.convergence import (
    Convergence,
    analyse_convergence,
    describe_convergence,
)
from normlab.analysis.experiment import StudyExperiment, StudyExperiments
from normlab.analysis.formatting import join_first
from normlab.analysis.learning_rates import LearningRates, analyse_learning_rates
from normlab.analysis.statistics import mean_or_infinity
from normlab.analysis.style import Look
from normlab.analysis.summary import ArmSummary, summarise_arms
from normlab.archive.record import INVALID
from normlab.archive.study import Study

MOST_FACETS = 12
MOST_CURVES = 20  # arms in one panel of curves
MOST_RANKED = 40  # rows of a ranking
MOST_RANKED_SEVERAL = 12  # rows of each of several rankings


@dataclass(frozen=True)
class FigurePlan:
    """What is drawn of a study: facets with the arms in them, their looks, and what is left out.

    Attributes:
        study: its name.
        facets: what the curves show, at most `MOST_CURVES` arms by name.
        ranked: what the final losses show: more arms, where they have the figure to themselves.
        arm_count: how many arms by name there are in all.
        facet_count: how many facets there are in all.
        look: colours and line styles.
        left_out: sentences for what is not drawn.
    """

    study: str
    facets: tuple[Facet, ...]
    ranked: tuple[Facet, ...]
    arm_count: int
    facet_count: int
    look: Look
    left_out: tuple[str, ...]

    @property
    def arms(self) -> list[Arm]:
        """Every arm whose curves are drawn."""
        return [arm for facet in self.facets for arm in facet.arms]


@dataclass(frozen=True)
class StudyResult:
    """What a study comes to. Losses are in nats per token.

    Attributes:
        study: the runs, as they were read.
        arms: in the order of every table.
        look: colours and line styles of all arms.
        plan: what is drawn.
        rates: the study over its learning rates, if its arms have enough of them.
        summaries: a row an arm, best first.
        comparisons: the arm with the lowest mean of every facet against each other arm there.
        convergence: steps to a target loss, and loss spikes, of the arms that are compared.
        warnings: what weakens the numbers: one seed, mixtures, runs that are missing or damaged.
        experiment: the experiment that the study is of, if any.
        story: what it shows, in the experiment's own words.
        sentences: what the numbers show besides, the differences first; what diverged.
    """

    study: Study
    arms: tuple[Arm, ...]
    look: Look
    plan: FigurePlan
    rates: LearningRates | None
    summaries: tuple[ArmSummary, ...]
    comparisons: tuple[Comparison, ...]
    convergence: Convergence
    warnings: tuple[str, ...]
    experiment: StudyExperiment | None = None
    story: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()

    @property
    def has_finished(self) -> bool:
        """Whether any run has."""
        return any(run.record.state == "finished" for run in self.study.runs)


def analyse_study(
    study: Study,
    experiments: StudyExperiments = MappingProxyType({}),
    *,
    margin: float | None = None,
    target: float | None = None,
) -> StudyResult:
    """Compare a study's arms by their final validation losses, within every facet.

    In a study over learning rates each arm is compared at its own best rate; see `RatedArm.best`.
    An experiment that has a figure of its own has its own words too. `margin` is the difference up
    to which arms count as the same, `target` the validation loss to which steps are counted, both
    in nats per token; without one it is that of the runs' configurations, where they agree on it.
    """
    margin = margin or _common_setting(study, "margin")
    target = target or _common_setting(study, "target")
    arms = group_runs(study.runs)
    rates = analyse_learning_rates(arms)
    compared = arms if rates is None else [rated.best.arm for rated in rates.arms if rated.best]
    loss = "val_loss" if rates is None else rates.compared_loss
    facets = split_facets(compared)
    comparisons = compare_arms(facets, margin, loss)
    convergence = analyse_convergence(compared, facets, target)
    merged = arms if rates is None else [rated.arm for rated in rates.arms]
    # Groups of seeds are looked for at the best rates (`facets`): a mean over all rates depends on
    # which rates a seed survived, and once made two groups of one.
    caveats = find_caveats(study.runs, split_facets(merged), facets)
    warnings = [*(rates.warnings if rates else ()), *caveats]
    result = StudyResult(
        study=study,
        arms=tuple(arms),
        look=Look.of(arms),
        plan=plan_figures(study.name, arms),
        rates=rates,
        summaries=tuple(summarise_arms(arms)),
        comparisons=tuple(comparisons),
        convergence=convergence,
        warnings=tuple(warnings),
        experiment=find_study_experiment(study, arms, experiments),
    )
    # An experiment computes its sentences from the result, so they come last.
    story: list[str] = []
    if result.experiment and result.has_finished:
        story = result.experiment.write_sentences(result)
    sentences: list[str] = []
    if not story:
        sentences += (
            describe_comparisons(comparisons)
            if comparisons
            else [explain_no_comparison(compared, arms, loss)]
        )
        sentences += describe_best_rates(rates) if rates else []
    if rates is not None:
        sentences += [*describe_sensitivities(rates), *describe_stable_rates(rates)]
    # An arm has learned nothing only if it has not at its best rate.
    sentences += [*describe_unlearned(compared), *describe_convergence(convergence)]
    sentences += describe_divergence(arms)
    return replace(result, story=tuple(story), sentences=tuple(sentences))


def _common_setting(study: Study, key: str) -> float | None:
    values = [run.record.config.get(key) for run in study.runs]
    is_common = all(value == values[0] for value in values)
    return values[0] if values and is_common and isinstance(values[0], int | float) else None


def find_study_experiment(
    study: Study, arms: Sequence[Arm], experiments: StudyExperiments
) -> StudyExperiment | None:
    """The experiment that all runs of a study name; None where they name none, or several.

    Nor is there one where runs differ in more than norm, placement, rate, depth and warm-up: its
    sentences would take the losses of unlike data, precision or steps for one another's.
    """
    # As text: a damaged record may hold a list there, which has no hash.
    names = {str(run.record.config.get("figure")) for run in study.runs}
    varied = {key.split(".")[-1] for arm in arms for key, _ in arm.settings}
    if len(names) != 1 or varied - {"lr", "depth", "warmup"}:
        return None
    return experiments.get(names.pop())


def plan_figures(study: str, arms: Sequence[Arm]) -> FigurePlan:
    """Decide what is drawn: every facet and arm, or where they are many, the best of them."""
    if any(map(is_invalid, arms)):
        study = f"{INVALID}: {study}"
    facets = split_facets(arms)
    best = sorted(facets, key=lowest_mean_loss)[:MOST_FACETS]
    visible = tuple(facet for facet in facets if facet in best)
    hidden = [facet.title for facet in facets if facet not in best]
    left_out: tuple[str, ...] = ()
    if arms and arms[0].unnamed:
        left_out += (
            f"Arms differ in more than their names tell: also in "
            f"{join_first(sorted(arms[0].unnamed))}; report.html lists every key.",
        )
    if hidden:
        left_out += (
            f"The figures show the {MOST_FACETS} of {len(facets)} combinations with the lowest "
            f"validation loss; left out: {join_first(hidden)}.",
        )
    names = _names_by_loss([arm for facet in visible for arm in facet.arms])
    rows = MOST_RANKED if len(visible) == 1 else MOST_RANKED_SEVERAL
    curves, ranked = (_limit_arms(visible, names[:most]) for most in (MOST_CURVES, rows))
    if len(names) > MOST_CURVES:
        left_out += (
            f"The curves show the {MOST_CURVES} of {len(names)} arms with the lowest final loss, "
            f"and a ranking at most {rows}; runs.csv and report.html hold all.",
        )
    looks = Look.of([arm for facet in (*curves, *ranked) for arm in facet.arms])
    return FigurePlan(study, curves, ranked, len(names), len(facets), looks, left_out)


def _names_by_loss(arms: Sequence[Arm]) -> list[str]:
    """The arms' names, that with the lowest mean final loss in any facet first."""
    lowest: dict[str, float] = {}
    for arm in arms:
        mean = mean_or_infinity(arm.final_losses)
        lowest[arm.name] = min(mean, lowest.get(arm.name, math.inf))
    return sorted(lowest, key=lambda name: lowest[name])


def _limit_arms(facets: Sequence[Facet], names: Sequence[str]) -> tuple[Facet, ...]:
    """The facets with these arms alone; where none of a facet's is among them, with its first."""
    limited = [(facet, tuple(arm for arm in facet.arms if arm.name in names)) for facet in facets]
    return tuple(replace(facet, arms=arms or facet.arms[:MOST_CURVES]) for facet, arms in limited)


def lowest_mean_loss(facet: Facet) -> float:
    """Lowest mean of the best validation losses among the facet's arms; infinite without one."""
    return min((mean_or_infinity(arm.best_losses) for arm in facet.arms), default=math.inf)
