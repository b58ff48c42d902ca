"""What a study's numbers show in sentences, and what weakens them: seeds, mixtures, missing runs.

Comparisons are written one by one where they are few, by facet or counted where they are many.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from itertools import pairwise
from typing import Any

from normlab.analysis.arms import Arm, Facet, format_value, split_facets
from normlab.analysis.comparison import (
    Comparison,
    FinalLoss,
    is_below_floor,
    is_invalid,
    learned_data,
    losses_by_seed,
    mostly_diverged,
)
from normlab.analysis.formatting import format_interval, format_probability, join_first
from normlab.analysis.learning_rates import LearningRates
from normlab.analysis.statistics import Outcome, mean_interval, mean_or_infinity
from normlab.archive import tags
from normlab.archive.record import SETTLED_STATES, short_number
from normlab.archive.study import Run, Study

MOST_SENTENCES = 5

_Comparisons = Sequence[Comparison]  # of one facet's best arm


def describe_comparisons(comparisons: Sequence[Comparison]) -> list[str]:
    """At most a handful of sentences, conclusive comparisons first."""
    of_facet: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        of_facet[comparison.facet, comparison.best.label].append(comparison)
    groups = list(of_facet.values())
    if all(math.isnan(comparison.p) for comparison in comparisons):
        # Of several budgets or settings, the one that trained best comes first.
        groups.sort(key=lambda together: mean_or_infinity(together[0].best.final_losses))
        words = [_describe_untested(together) for together in groups]
    elif len(comparisons) <= MOST_SENTENCES:
        order = sorted(comparisons, key=lambda pair: (pair.outcome == "cannot tell", pair.p))
        words = [describe_comparison(comparison) for comparison in order]
    else:

        def rank(group: _Comparisons) -> tuple[bool, float]:
            tested = [pair.p for pair in group if not math.isnan(pair.p)]
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
    if difference.mean > 0:
        low, high = high, low
    at = f"At {comparison.facet}: " if comparison.facet else ""
    by = format_interval(abs(difference.mean), difference.half)
    basis = f"{_describe_basis(comparison)}{_describe_excluded_runs(low, high)}"
    if difference.mean == 0 and difference.half == 0:
        return f"{at}{low.name} and {high.name} end at the same losses ({basis})."
    if comparison.outcome == "cannot tell":
        return (
            f"{at}{low.name} and {high.name}: cannot tell (difference {by}, {basis}; "
            f"{_describe_sensitivity(comparison)})."
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
        (arm for arm in arms if lost[arm.label]), key=lambda a: -len(lost[a.label])
    )
    if not diverged_arms:
        return []
    count, total = sum(map(len, lost.values())), sum(len(arm.runs) for arm in arms)
    named = []
    for arm in diverged_arms:
        steps = [run.record.end_step for run in lost[arm.label]]
        when = f"step {steps[0]}" if len(set(steps)) == 1 else f"steps {min(steps)}–{max(steps)}"
        named.append(f"{arm.label} ({len(steps)} of {len(arm.runs)}, {when})")
    words = [f"Diverged: {count} of {total} runs: {join_first(named)}."]
    survived = [arm.label for arm in diverged_arms if mostly_diverged(arm) and losses_by_seed(arm)]
    if survived:
        words.append(
            f"Of the finished and diverged runs half or more diverged, so the others do not stand "
            f"for the arm and are not compared: {join_first(survived)}."
        )
    return words


# Nats per token below the unigram loss within which a model has learned no more than that.
_NOTHING_LEARNED = 0.02


def describe_unlearned(arms: Sequence[Arm]) -> Iterator[str]:
    """Which arms ended at the loss of a model that ignores the context; nothing where none did."""
    rows = []
    for arm in arms:
        losses = [
            (run.record.unigram, run.record.final.val_loss) for run in arm.with_state("finished")
        ]
        unlearned = [
            loss
            for unigram, loss in losses
            if unigram is not None and loss is not None and loss > unigram - _NOTHING_LEARNED
        ]
        if unlearned:
            rows.append(f"{arm.label} ({len(unlearned)} of {len(losses)} runs)")
    if rows:
        yield (
            f"No better than the unigram loss (token frequencies only): {join_first(rows)}. A "
            f"comparison with such an arm says little about trained models."
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
        losses = list(losses_by_seed(ended[0], loss).values())
        seeds = "1 seed" if len(losses) == 1 else f"{len(losses)} seeds"
        others = (
            "no other arm has finished"
            if all(_is_part(arm, ended[0]) for arm in finished)
            else "the other arms are excluded (see the sentences below)"
        )
        return (
            f"{ended[0].label} ends at {format_interval(*mean_interval(losses))} nats per token "
            f"({seeds}); {others}, so there is nothing to compare it with."
        )
    for facet in split_facets(arms):
        by_data = Counter(learned_data(arm) for arm in facet.arms if losses_by_seed(arm, loss))
        if max(by_data.values(), default=0) > 1:
            return (
                "Fewer than two arms can be compared: the others mostly diverged, are below the "
                "floor, or were trained without the check for leaks."
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


def _describe_basis(comparison: Comparison) -> str:
    difference = comparison.difference
    if difference.pairs:
        seeds = f"{difference.pairs} paired seed{'s' * (difference.pairs > 1)}"
    else:
        seeds = (
            "unequal seeds, Welch's test" if not math.isnan(difference.p) else "no seed in common"
        )
    if math.isnan(difference.p):
        return seeds
    return f"{seeds}, p {format_probability(difference.p)}"


def _describe_sensitivity(comparison: Comparison) -> str:
    """What the study could have shown, with its noise and its seeds."""
    difference = comparison.difference
    if math.isnan(difference.p):
        return "the same two seeds or more for both separate noise from effect, seed=0,1,2"
    return (
        f"a true difference of {format_interval(difference.detectable, math.nan)} would be "
        f"reported in 4 of 5 such studies"
    )


def _describe_excluded_runs(*arms: Arm) -> str:
    """What is missing where an arm is compared by its runs that did not diverge."""
    lost = [
        f"; {len(diverged)} of {len(arm.runs)} {arm.name} runs diverged and are not in it"
        for arm in arms
        if (diverged := arm.with_state("diverged"))
    ]
    return "".join(lost)


def _facet_prefix(facet: str) -> str:
    return f"At {facet}, " if facet else ""


def _describe_untested(together: _Comparisons) -> str:
    """A facet in which no two arms have two seeds."""
    best, nearest = together[0].best, together[0]
    loss = mean_interval(list(losses_by_seed(best, nearest.loss).values()))[0]
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
    loss = format_interval(*mean_interval(list(losses_by_seed(best, first.loss).values())))
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


def find_caveats(
    study: Study, facets: Sequence[Facet], compared_facets: Sequence[Facet]
) -> list[str]:
    """Sentences about whatever weakens the comparison of the study's arms; none if nothing does.

    The arms of `facets` have all runs; those of `compared_facets`, in a study over learning rates,
    the runs at the best rate alone.
    """
    sentences = [
        *_seed_caveats(facets),
        *_init_caveats(study.runs),
        *_leak_caveats(facets),
        *_floor_caveats(facets),
        *_group_caveats(compared_facets),
        *_mixture_caveats(facets),
        *_budget_caveats(study.runs),
        *_precision_caveats(facets),
        *_data_caveats(facets),
        *_run_caveats(study.runs),
    ]
    return list(dict.fromkeys(sentences))


def _seed_caveats(facets: Sequence[Facet]) -> Iterator[str]:
    arms = _arms_by_label(facets)
    finished = [len(_arm_seeds(arm, "finished")) for arm in arms.values()]
    if max(finished, default=0) == 1:
        yield (
            "One seed: no number has an interval, and an effect cannot be separated from noise; "
            "add seed=0,1,2 to the command."
        )
    elif 1 in finished:
        alone = [arm.label for arm in arms.values() if len(_arm_seeds(arm, "finished")) == 1]
        yield f"Only one seed finished, and so no interval: {join_first(alone)}."
    lacking = {}
    for facet in facets:
        seeds = {seed for arm in facet.arms for seed in _arm_seeds(arm)}
        for arm in facet.arms:
            if missing := sorted(seeds - _arm_seeds(arm)):
                lacking[arm.label] = f"{arm.label} lacks seed={','.join(map(str, missing))}"
    if lacking:
        yield (
            f"Not all arms have a result for the same seeds, and only equal seeds are paired: "
            f"{join_first(lacking.values())}."
        )


# Placements whose papers derive their factors for Xavier's weights: 2203.00555, 2210.06423,
# 2004.08249, 2206.00330.
_XAVIER_PLACEMENTS = ("deepnorm", "subln", "admin", "b2t")


def _init_caveats(runs: Sequence[Run]) -> Iterator[str]:
    """Placements that assume other weights at the start than the model has."""
    names = set()
    for run in runs:
        model = run.record.config.get("model")
        init = model.get("init") if isinstance(model, dict) else None
        if isinstance(init, dict) and init.get("scheme", "normal") != "xavier":
            names.add(run.record.placement)
    assuming = [name for name in _XAVIER_PLACEMENTS if name in names]
    if assuming:
        yield (
            f"The factors of {', '.join(assuming)} were derived for Xavier's weights, and these "
            f"models start from smaller ones; model.init.scheme=xavier starts from Xavier's."
        )


def _arms_by_label(facets: Sequence[Facet]) -> dict[str, Arm]:
    return {arm.label: arm for facet in facets for arm in facet.arms}


def _leak_caveats(facets: Sequence[Facet]) -> Iterator[str]:
    """Arms that were trained without the check for leaks."""
    invalid = [label for label, arm in _arms_by_label(facets).items() if is_invalid(arm)]
    if invalid:
        yield (
            f"Trained with allow_leak=true, without the check that no token sees a later one, and "
            f"so compared with none: {join_first(invalid)}."
        )


def _floor_caveats(facets: Sequence[Facet]) -> Iterator[str]:
    """Arms below the lowest loss that is possible: they see what they have to predict."""
    below = [label for label, arm in _arms_by_label(facets).items() if is_below_floor(arm)]
    if below:
        yield (
            f"Below the floor, possible only for a model that sees the tokens it has to predict: "
            f"{join_first(below)}. Such losses mean nothing, and are compared with none."
        )


# Two groups of seeds: the gap between them is this many times as wide as either group.
_WIDE_GAP = 4.0
_FEWEST_IN_TWO_GROUPS = 4


def _group_caveats(facets: Sequence[Facet]) -> Iterator[str]:
    """Arms whose seeds end in two groups: their mean is the loss of no run."""
    rows = []
    for arm in _arms_by_label(facets).values():
        if groups := split_in_two(list(losses_by_seed(arm).values())):
            (low, high) = groups
            rows.append(
                f"{arm.label} ({len(low)} at {mean_interval(low)[0]:.4f}, "
                f"{len(high)} at {mean_interval(high)[0]:.4f})"
            )
    if rows:
        yield (
            f"Seeds end in two groups, so a mean and its interval describe no run; count the runs "
            f"of each, or train longer: {join_first(rows)}."
        )


def split_in_two(losses: Sequence[float]) -> tuple[list[float], list[float]] | None:
    """The losses in two groups with a wide gap between them; None where there is none.

    The gap must be `_WIDE_GAP` times the width of either group and 0.02 nats per token.
    """
    ordered = sorted(losses)
    if len(ordered) < _FEWEST_IN_TWO_GROUPS:
        return None
    gap, at = max(
        (after - before, index) for index, (before, after) in enumerate(pairwise(ordered))
    )
    low, high = ordered[: at + 1], ordered[at + 1 :]
    width = max(low[-1] - low[0], high[-1] - high[0])
    is_apart = gap > max(_WIDE_GAP * width, _NOTHING_LEARNED) and min(len(low), len(high)) > 1
    return (low, high) if is_apart else None


def _arm_seeds(arm: Arm, *states: str) -> set[int]:
    return {run.record.seed for run in arm.with_state(*(states or SETTLED_STATES))}


# What may differ between runs of one comparison without being an arm's own.
_ASPECTS: dict[str, Callable[[Run], Any]] = {
    "steps": lambda run: run.record.last_step,
    "precision": lambda run: run.record.precision,
    "device": lambda run: run.record.device,
    "threads": lambda run: run.record.threads,
    "CPU kernels": lambda run: run.record.kernels,
    "how they were trained": lambda run: "in a stack" if run.record.stacked else "alone",
    "versions": lambda run: tuple(sorted(run.record.versions.items())) or None,
    "commit": lambda run: _commit_name(run),
}


def _mixture_caveats(facets: Sequence[Facet]) -> Iterator[str]:
    for aspect, value_of in _ASPECTS.items():
        mixed: dict[Any, dict[int, Run]] = defaultdict(dict)
        for facet in facets:
            runs = [run for arm in facet.arms for run in arm.with_state(*SETTLED_STATES)]
            values = {id(run): value for run in runs if (value := value_of(run)) is not None}
            if len(set(values.values())) > 1:
                for run in runs:
                    if id(run) in values:
                        mixed[values[id(run)]][id(run)] = run
        if mixed:
            yield (
                f"Runs that are compared differ in {aspect}: "
                f"{join_first(_name_differing_values(aspect, mixed))}. A difference between arms "
                f"may come from that."
            )


def _name_differing_values(aspect: str, runs: Mapping[Any, Sized]) -> list[str]:
    values = list(runs)
    if aspect == "versions":  # of all packages, those that differ
        common = set(values[0]).intersection(*values[1:])
        words = [
            " ".join(
                f"{name} {number}" for name, number in versions if (name, number) not in common
            )
            for versions in values
        ]
    else:
        words = [format_value(value) for value in values]
    counts = [len(runs_of_value) for runs_of_value in runs.values()]
    pairs = sorted(zip(counts, words, strict=True), reverse=True)
    return [f"{word} in {count} run{'s' * (count > 1)}" for count, word in pairs]


def _commit_name(run: Run) -> str | None:
    git = run.record.git or {}
    if not git.get("commit"):
        return None
    return str(git["commit"])[:8] + (" with changes" if git.get("dirty") else "")


def _budget_caveats(runs: Sequence[Run]) -> Iterator[str]:
    budgets = {steps for run in runs if (steps := run.record.last_step) is not None}
    if len(budgets) > 1:
        words = [f"{steps} steps" for steps in sorted(budgets)]
        yield f"Runs of different budgets are not compared with each other: {join_first(words)}."


def _precision_caveats(facets: Sequence[Facet]) -> Iterator[str]:
    """Where precisions are apart by facet; inside one they are a mixture."""
    by_facet = [
        {run.record.precision for arm in facet.arms for run in arm.runs} - {None}
        for facet in facets
    ]
    distinct = {str(precision) for precisions in by_facet for precision in precisions}
    if len(distinct) > 1 and all(len(precisions) <= 1 for precisions in by_facet):
        yield (
            f"Runs of other precision are not compared with each other: "
            f"{join_first(sorted(distinct))}."
        )


def _data_caveats(facets: Sequence[Facet]) -> Iterator[str]:
    labels = [
        arm.label
        for facet in facets
        if len({learned_data(arm) for arm in facet.arms}) > 1
        for arm in facet.arms
    ]
    if labels:
        yield (
            f"Losses on different data do not compare, and are not compared: {join_first(labels)}."
        )


def _run_caveats(runs: Sequence[Run]) -> Iterator[str]:
    """Runs without a result, with damaged logs, or with probes that others do not have."""
    by_state: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_state[run.record.state].append(run)
    if failed := by_state["failed"]:
        named = [f"{run.record.name} ({run.record.reason or 'no reason kept'})" for run in failed]
        yield f"Failed, not counted: {join_first(named)}. The same command tries again."
    if stopped := by_state["interrupted"]:
        named = [f"{run.record.name} at step {run.record.step}" for run in stopped]
        yield (
            f"Interrupted, not in the means: {join_first(named)}. The curves end in an open "
            f"circle; the command that began them goes on with them."
        )
    if running := by_state["running"]:
        named = [run.record.name for run in running]
        yield f"Still running, not counted yet: {join_first(named)}."
    damaged = [run.record.name for run in runs if not run.complete]
    if damaged:
        yield (
            f"The logs are damaged or incomplete, and with them the curves: {join_first(damaged)}."
        )
    probed = [run for run in runs if any(map(tags.split_probe_tag, run.events.last_steps))]
    if 0 < len(probed) < len(runs):
        yield (
            f"Probes were on in {len(probed)} of {len(runs)} runs, which costs time: speeds do not "
            f"compare."
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
        (*mean_interval(list(rated.sensitivity.values())), rated)
        for rated in rates.arms
        if rated.sensitivity and rated.best
    ]
    if rows:
        words = [
            f"{rated.name} {format_interval(mean, half)} (its best loss {rated.tuned_mean:.4f})"
            for mean, half, rated in sorted(rows, key=lambda row: row[0])
        ]
        yield (
            f"LR sensitivity, by how much the loss over the grid exceeds its lowest, in nats per "
            f"token, the least sensitive first: {join_first(words)}."
        )


def describe_stable_rates(rates: LearningRates) -> Iterator[str]:
    """Up to which learning rate no run diverged, by rate, the largest first."""
    if not rates.grid:
        return
    names: dict[float, list[str]] = defaultdict(list)
    for rated in rates.arms:
        names[rated.largest_stable or 0.0].append(rated.name)
    words = []
    for rate in sorted(names, reverse=True):
        end = " (the end of the grid)" if rate == rates.grid[-1] else ""
        whose = join_first(names[rate]) if len(names) > 1 else "every arm"
        words.append(f"{short_number(rate) if rate else 'no rate'}{end} for {whose}")
    yield (
        f"Largest learning rate at which no run diverged, nor at a smaller one: {'; '.join(words)}."
    )
