"""What a study's numbers show, in sentences.

Comparisons are written one by one where they are few, by facet or counted where they are many.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from normlab.analysis.arms import Arm, split_facets
from normlab.analysis.comparison import (
    LITTLE_LEARNED,
    Comparison,
    FinalLoss,
    is_unlearned,
    learned_data,
    losses_by_seed,
    mostly_diverged,
)
from normlab.analysis.formatting import (
    format_interval,
    format_probability,
    format_steps,
    join_first,
)
from normlab.analysis.learning_rates import LearningRates
from normlab.analysis.statistics import Difference, Outcome, mean_interval, mean_or_infinity
from normlab.archive.record import short_number
from normlab.text import count_noun

MOST_SENTENCES = 5

_Comparisons = Sequence[Comparison]  # of one facet's best arm


def describe_comparisons(comparisons: Sequence[Comparison]) -> list[str]:
    """At most a handful of sentences, conclusive comparisons first."""
    of_facet: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        of_facet[comparison.facet, comparison.best.label].append(comparison)
    groups = list(of_facet.values())
    if all(
        math.isnan(comparison.difference.p) for comparison in comparisons
    ):  # too few seeds for a test
        # Of several budgets or settings, the one that trained best comes first.
        groups.sort(key=lambda together: mean_or_infinity(together[0].best.final_losses))
        words = [_describe_untested(together) for together in groups]
    elif len(comparisons) <= MOST_SENTENCES:
        order = sorted(
            comparisons, key=lambda pair: (pair.outcome == "cannot tell", pair.difference.p)
        )
        words = [describe_comparison(comparison) for comparison in order]
    else:

        def rank(group: _Comparisons) -> tuple[bool, float]:
            tested = [pair.difference.p for pair in group if not math.isnan(pair.difference.p)]
            return not _has_difference(group), min(tested, default=math.inf)

        words = [_summarise_facet(group) for group in sorted(groups, key=rank)]
    if len(words) <= MOST_SENTENCES:
        return words
    different = sum(map(_has_difference, groups))
    return [_count_facets(groups), *words[: min(different, MOST_SENTENCES - 1)]]


def describe_comparison(comparison: Comparison) -> str:
    """One comparison, the arm with the lower loss first."""
    difference = comparison.difference
    low, high = comparison.best, comparison.other
    # `best` has the lowest mean over its seeds; over those that both have it may be the higher one.
    if difference.mean > 0:
        low, high = high, low
    at = f"At {comparison.facet}: " if comparison.facet else ""
    by = format_interval(abs(difference.mean), difference.half)
    basis = f"{_describe_basis(difference)}{_describe_excluded_runs(low, high)}"
    if difference.mean == 0 and difference.half == 0:
        return f"{at}{low.name} and {high.name} end at the same losses ({basis})."
    if comparison.outcome == "cannot tell":
        # What the study could have shown, with its noise and its seeds.
        sensitivity = (
            "the same two seeds or more for both separate noise from effect, seed=0,1,2"
            if math.isnan(difference.p)
            else f"a true difference of {format_interval(difference.detectable, math.nan)} would "
            f"be reported in 4 of 5 such studies"
        )
        return (
            f"{at}{low.name} and {high.name}: cannot tell (difference {by}, {basis}; "
            f"{sensitivity})."
        )
    if comparison.outcome == "the same":
        return (
            f"{at}{low.name} and {high.name} end the same within {comparison.margin:g} nats per "
            f"token (difference {by}, {basis})."
        )
    within = ""
    if _is_below_margin(comparison):
        within = f", less than the margin of {comparison.margin:g}"
    return f"{at}{low.name} ends lower than {high.name} by {by} nats per token{within} ({basis})."


def describe_divergence(arms: Sequence[Arm]) -> list[str]:
    """Which arms diverged and when, most often first; nothing where none did."""
    lost = {arm.label: arm.with_state("diverged") for arm in arms}
    diverged_arms = sorted(
        (arm for arm in arms if lost[arm.label]), key=lambda arm: -len(lost[arm.label])
    )
    if not diverged_arms:
        return []
    count, total = sum(map(len, lost.values())), sum(len(arm.runs) for arm in arms)
    named = []
    for arm in diverged_arms:
        when = format_steps(run.record.end_step for run in lost[arm.label])
        named.append(f"{arm.label} ({len(lost[arm.label])} of {len(arm.runs)}, {when})")
    words = [f"Diverged: {count} of {total} runs: {join_first(named)}."]
    survived = [arm.label for arm in diverged_arms if mostly_diverged(arm) and losses_by_seed(arm)]
    if survived:
        words.append(
            f"Of the finished and diverged runs half or more diverged, so the others do not stand "
            f"for the arm and are not compared: {join_first(survived)}."
        )
    return words


def describe_unlearned(arms: Sequence[Arm]) -> Iterator[str]:
    """Which arms ended near the loss of a model that ignores the context, or above it."""
    rows = []
    for arm in arms:
        finished = arm.with_state("finished")
        if unlearned := sum(map(is_unlearned, finished)):
            rows.append(f"{arm.label} ({unlearned} of {len(finished)} runs)")
    if rows:
        yield (
            f"Less than {LITTLE_LEARNED:g} nats better than the unigram loss (token frequencies "
            f"only), or worse: {join_first(rows)}. A comparison with such an arm says little about "
            f"trained models."
        )


def explain_no_comparison(arms: Sequence[Arm], study_arms: Sequence[Arm], loss: FinalLoss) -> str:
    """Why a study has no comparison, and what it has.

    `arms` are those that could have been compared, by `loss`, and `study_arms` all of the study: in
    a study over learning rates an arm for every rate.
    """
    finished = [arm for arm in study_arms if losses_by_seed(arm)]
    if not finished:
        return "No run has finished, so there is no loss to compare."
    ended = [arm for arm in arms if losses_by_seed(arm, loss)]
    if not ended:
        return (
            "No learning rate is shared by all arms with fewer than half of its runs diverged, so "
            "none are compared."
        )
    if len(ended) == 1:
        losses = losses_by_seed(ended[0], loss).values()
        others = (
            "no other arm has finished"
            if all(_is_part(arm, ended[0]) for arm in finished)
            else "the other arms are excluded (see the sentences below)"
        )
        return (
            f"{ended[0].label} ends at {format_interval(*mean_interval(losses))} nats per token "
            f"({count_noun(len(losses), 'seed')}); {others}, so there is nothing to compare it "
            f"with."
        )
    for facet in split_facets(arms):
        by_data = Counter(learned_data(arm) for arm in facet.arms if losses_by_seed(arm, loss))
        if max(by_data.values(), default=0) > 1:
            return (
                "Fewer than two arms can be compared: the others mostly diverged, are below the "
                "floor, were trained without the check for leaks, or learned several texts."
            )
    return (
        "No two arms that can be compared share their other settings, so none are compared; sweep "
        "norm= or placement= at equal settings."
    )


def _is_part(arm: Arm, merged: Arm) -> bool:
    """Whether the arm's runs are among those of an arm that merges learning rates."""
    same_name = (arm.norm, arm.placement) == (merged.norm, merged.placement)
    return same_name and all(setting in arm.settings for setting in merged.settings)


def _has_difference(together: _Comparisons) -> bool:
    return any(comparison.outcome in ("lower", "higher") for comparison in together)


def _is_below_margin(comparison: Comparison) -> bool:
    """Whether the arms differ, and by less than the margin."""
    difference, margin = comparison.difference, comparison.margin
    return (
        comparison.outcome in ("lower", "higher")
        and margin is not None
        and abs(difference.mean) + difference.half <= margin
    )


def _describe_basis(difference: Difference) -> str:
    paired = count_noun(difference.pairs, "paired seed") if difference.pairs else ""
    if math.isnan(difference.p):
        return paired or "no seed in common"
    seeds = paired or "unequal seeds, Welch's test"
    return f"{seeds}, p {format_probability(difference.p)}"


def _describe_excluded_runs(*arms: Arm) -> str:
    """What is missing where an arm is compared by its runs that did not diverge."""
    return "".join(
        f"; {len(diverged)} of {len(arm.runs)} {arm.name} runs diverged and are not in it"
        for arm in arms
        if (diverged := arm.with_state("diverged"))
    )


def _facet_prefix(facet: str) -> str:
    return f"At {facet}, " if facet else ""


def _describe_untested(together: _Comparisons) -> str:
    """A facet in which no two arms have two seeds."""
    best, nearest = together[0].best, together[0]
    loss = mean_interval(losses_by_seed(best, nearest.loss).values())[0]
    difference = nearest.difference.mean
    gap = format_interval(abs(difference), math.nan)
    suffix = f", the nearest of {len(together)} others" if len(together) > 1 else ""
    prefix = f"{_facet_prefix(nearest.facet)}{best.name}"
    noise = "one seed cannot separate this from noise"
    if losses_by_seed(best).keys() == losses_by_seed(nearest.other).keys():
        return (
            f"{prefix} ends lowest, at {loss:.4f} nats per token, {gap} below "
            f"{nearest.other.name}{suffix}; {noise}."
        )
    # The means are over other seeds, and may be the other way round.
    side = "above" if difference > 0 else "below"
    return (
        f"{prefix} has the lowest mean over its seeds, {loss:.4f} nats per token; at equal seeds "
        f"it is {gap} {side} {nearest.other.name}{suffix}; {noise}."
    )


def _summarise_facet(together: _Comparisons) -> str:
    """A facet in one sentence, however many arms it has."""
    if len(together) == 1:
        return describe_comparison(together[0])
    best, first = together[0].best, together[0]
    names: dict[Outcome, list[str]] = defaultdict(list)
    for comparison in together:
        names[comparison.outcome].append(comparison.other.name)
    words = [f"ends lower than {len(names['lower'])} of {len(together)} others"]
    if lower := names["lower"]:
        words[0] += f" ({join_first(lower)})"
    if higher := names["higher"]:
        words.append(f"is higher than {len(higher)} over their common seeds ({join_first(higher)})")
    if small := sum(map(_is_below_margin, together)):
        words[-1] += f", {small} of them by less than the margin of {first.margin:g}"
    if same := names["the same"]:
        words.append(f"is the same within {first.margin:g} as {len(same)} ({join_first(same)})")
    if open_ := names["cannot tell"]:
        words.append(f"cannot be told from {len(open_)} ({join_first(open_)})")
    loss = format_interval(*mean_interval(losses_by_seed(best, first.loss).values()))
    return (
        f"{_facet_prefix(first.facet)}{best.name} has the lowest mean, {loss} nats per token"
        f"{_describe_excluded_runs(best)}; it {' and '.join(words)}."
    )


def _count_facets(groups: Sequence[_Comparisons]) -> str:
    """Many facets: in how many anything is told, and which arm is the lowest most often."""
    different = [
        [pair for pair in together if pair.outcome in ("lower", "higher")]
        for together in groups
        if _has_difference(together)
    ]
    same = sum(all(pair.outcome == "the same" for pair in together) for together in groups)
    small = sum(all(map(_is_below_margin, pairs)) for pairs in different)
    margin = groups[0][0].margin
    words = [f"the lowest arm ends lower than another in {len(different)}"]
    if small:
        words[0] += f", {small} of them by less than the margin of {margin:g}"
    if same:
        words.append(f"in {same} all others are the same within {margin:g}")
    if unclear := len(groups) - len(different) - same:
        words.append(f"in {unclear} that cannot be told")
    if len(words) > 1:
        words[-1] = f"and {words[-1]}"
    lowest = Counter(together[0].best.name for together in groups)
    name, often = lowest.most_common(1)[0]
    return (
        f"Of {len(groups)} combinations of settings, {', '.join(words)}; most often, in {often}, "
        f"the lowest mean is that of {name}."
    )


def describe_best_rates(rates: LearningRates) -> Iterator[str]:
    """The learning rate at which each arm ends lowest."""
    best = [
        f"{rated.name} {short_number(rate)}" for rated in rates.arms if (rate := rated.best_rate)
    ]
    if best:
        low, high = short_number(rates.grid[0]), short_number(rates.grid[-1])
        chosen = (
            "chosen on one half of the validation windows and compared on the other"
            if rates.halved
            else "chosen and compared on the same windows"
        )
        yield (
            f"Each arm at its own best of {len(rates.grid)} learning rates from {low} to {high}, "
            f"{chosen}: {join_first(best)}."
        )


def describe_sensitivities(rates: LearningRates) -> Iterator[str]:
    """How much each arm suffers from other rates than its best, the least sensitive first."""
    rows = [
        (*mean_interval(rated.sensitivity.values()), rated)
        for rated in rates.arms
        if rated.sensitivity and rated.best
    ]
    if rows:
        # With the best loss: an arm that learns nothing at any rate is not sensitive to it either.
        words = [
            f"{rated.name} {format_interval(mean, half)} (its best loss {rated.tuned_mean:.4f})"
            for mean, half, rated in sorted(rows, key=lambda row: row[0])
        ]
        yield (
            f"LR sensitivity, by how much the loss over the grid exceeds its lowest, in nats per "
            f"token, the least sensitive first: {join_first(words)}."
        )


def describe_stable_rates(rates: LearningRates) -> Iterator[str]:
    """Up to which learning rate each arm trains stably, by rate, the largest first."""
    if not rates.grid:
        return
    names: dict[float, list[str]] = defaultdict(list)
    for rated in rates.arms:
        names[rated.largest_stable or 0.0].append(rated.name)  # 0: none of the grid
    words = []
    for rate in sorted(names, reverse=True):
        end = " (the end of the grid)" if rate == rates.grid[-1] else ""
        whose = join_first(names[rate]) if len(names) > 1 else "every arm"
        words.append(f"{short_number(rate) if rate else 'none of the grid'}{end} for {whose}")
    yield (
        f"Largest stable learning rate (no run diverged there or below, and every run ended "
        f"{LITTLE_LEARNED:g} nats or more below the unigram loss): {'; '.join(words)}."
    )
