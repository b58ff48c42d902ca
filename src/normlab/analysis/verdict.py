"""What a study's numbers show, each sentence computed from them, and what weakens them."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from normlab.analysis.arms import facets, group
from normlab.analysis.caveats import caveats
from normlab.analysis.comparison import Comparison, compare
from normlab.analysis.learning_rates import LearningRates, learning_rates
from normlab.analysis.result import StudyExperiment
from normlab.analysis.sentences import compared, diverged, measured, nothing_to_compare, some
from normlab.analysis.statistics import mean_interval
from normlab.archive.record import short_number
from normlab.archive.study import Study


@dataclass(frozen=True)
class Verdict:
    """What a study shows.

    Attributes:
        story: what an experiment with a figure of its own shows, in its own words.
        sentences: what the numbers show beside that, what they tell before what they do not; what
            diverged.
        warnings: what weakens them: one seed, mixtures, runs that are missing or damaged.
        comparisons: the arm with the lowest mean of every facet against each other arm there.
    """

    story: tuple[str, ...]
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]
    comparisons: tuple[Comparison, ...]


def verdict(study: Study, experiment: StudyExperiment | None = None) -> Verdict:
    """Compare a study's arms by their final validation losses, within every facet.

    In a study over learning rates each arm is compared at its own best rate; see `RatedArm.best`.
    An experiment that has a figure of its own has its own words too.
    """
    arms = group(study.runs)
    rates = learning_rates(study)
    whole = arms if rates is None else [one.arm for one in rates.arms]
    entered = arms if rates is None else [best for one in rates.arms if (best := one.at_its_best)]
    comparisons = compare(facets(entered))
    whose = (
        experiment.write_sentences(study)
        if experiment and any(arm.with_state("finished") for arm in arms)
        else []
    )
    words: list[str] = []
    if not whose:
        words += compared(comparisons) if comparisons else [nothing_to_compare(entered)]
        words += _best_rates(rates) if rates else []
    if rates is not None:
        words += [*_sensitivities(rates), *_stability(rates)]
    warnings = [*(rates.warnings if rates else ()), *caveats(study, facets(whole))]
    words += diverged(arms)
    return Verdict(tuple(whose), tuple(words), tuple(warnings), tuple(comparisons))


def _best_rates(rates: LearningRates) -> Iterator[str]:
    best = [f"{one.name} {short_number(rate)}" for one in rates.arms if (rate := one.best_rate)]
    if best:
        low, high = short_number(rates.grid[0]), short_number(rates.grid[-1])
        yield (
            f"Each arm at its own best of {len(rates.grid)} learning rates from {low} to {high}, "
            f"chosen by the same losses: {some(best)}."
        )


def _sensitivities(rates: LearningRates) -> Iterator[str]:
    known = [
        (*mean_interval(list(one.sensitivity.values())), one)
        for one in rates.arms
        if one.sensitivity
    ]
    if known:
        words = [
            f"{one.name} {measured(mean, half)} (its best loss {one.tuned_mean:.4f})"
            for mean, half, one in sorted(known, key=lambda row: row[0])
        ]
        yield (
            f"LR sensitivity, by how much the loss over the grid exceeds its lowest, in nats per "
            f"token, the least sensitive first: {some(words)}."
        )


def _stability(rates: LearningRates) -> Iterator[str]:
    if not rates.grid:
        return
    names: dict[float, list[str]] = defaultdict(list)
    for one in rates.arms:
        names[one.largest_stable or 0.0].append(one.name)
    words = []
    for rate in sorted(names, reverse=True):
        end = " (the end of the grid)" if rate == rates.grid[-1] else ""
        whose = some(names[rate]) if len(names) > 1 else "every arm"
        words.append(f"{short_number(rate) if rate else 'no rate'}{end} for {whose}")
    yield (
        f"Largest learning rate at which no run diverged, nor at a smaller one: {'; '.join(words)}."
    )
