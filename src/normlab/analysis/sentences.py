"""Comparisons in words: one by one where they are few, by facet or counted where they are many."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from normlab.analysis.arms import Arm
from normlab.analysis.comparison import Comparison, losses_by_seed, mostly_diverged
from normlab.analysis.statistics import mean_interval

MOST_SENTENCES = 5
_MOST_NAMED = 3

_Together = Sequence[Comparison]  # of one facet's best arm


def some(names: Iterable[str]) -> str:
    """The first of the names, and how many there are besides."""
    every = list(names)
    if len(every) <= _MOST_NAMED + 1:  # nobody wants "and 1 more"
        return "; ".join(every)
    return f"{'; '.join(every[:_MOST_NAMED])}; and {len(every) - _MOST_NAMED} more"


def compared(comparisons: Sequence[Comparison]) -> list[str]:
    """At most a handful of sentences, what is told before what cannot be."""
    of_facet: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for one in comparisons:
        of_facet[one.facet, one.best.label].append(one)
    groups = list(of_facet.values())
    if all(math.isnan(one.p) for one in comparisons):
        words = [_untested(together) for together in groups]
    elif len(comparisons) <= MOST_SENTENCES:
        words = [sentence(one) for one in sorted(comparisons, key=_telling)]
    else:
        ranked = sorted(groups, key=lambda together: (not _tells(together), _smallest(together)))
        words = [_summary(together) for together in ranked]
    if len(words) <= MOST_SENTENCES:
        return words
    told = sum(map(_tells, groups))
    return [_counted(groups), *words[: min(told, MOST_SENTENCES - 1)]]


def sentence(comparison: Comparison) -> str:
    """One comparison, the arm with the lower loss first."""
    found = comparison.difference
    low, high = comparison.best, comparison.other
    if found.mean > 0:
        low, high = high, low
    at = f"At {comparison.facet}: " if comparison.facet else ""
    by = measured(abs(found.mean), found.half)
    basis = f"{_basis(comparison)}{_survivors(low, high)}"
    if comparison.outcome == "cannot tell":
        return (
            f"{at}{low.name} and {high.name}: cannot tell (difference {by}, {basis}; "
            f"{_more(comparison)})."
        )
    return f"{at}{low.name} ends lower than {high.name} by {by} nats per token ({basis})."


def diverged(arms: Sequence[Arm]) -> list[str]:
    """Which arms diverged and when, most often first; nothing where none did."""
    lost = {arm.label: arm.with_state("diverged") for arm in arms}
    some_lost = sorted((arm for arm in arms if lost[arm.label]), key=lambda a: -len(lost[a.label]))
    if not some_lost:
        return []
    count, total = sum(map(len, lost.values())), sum(len(arm.runs) for arm in arms)
    named = []
    for arm in some_lost:
        steps = [run.record.diverged_step or run.record.step for run in lost[arm.label]]
        when = f"step {steps[0]}" if len(set(steps)) == 1 else f"steps {min(steps)}–{max(steps)}"
        named.append(f"{arm.label} ({len(steps)} of {len(arm.runs)}, {when})")
    words = [f"Diverged: {count} of {total} runs: {some(named)}."]
    survived = [arm.label for arm in some_lost if mostly_diverged(arm) and losses_by_seed(arm)]
    if survived:
        words.append(
            f"Half of the runs or more diverged, so the others do not stand for the arm and are "
            f"not compared: {some(survived)}."
        )
    return words


def nothing_to_compare(arms: Sequence[Arm]) -> str:
    """Why a study has no comparison, and what it has."""
    ended = [arm for arm in arms if losses_by_seed(arm)]
    if not ended:
        return "No run has finished, so there is no loss to compare."
    if len(ended) == 1:
        losses = list(losses_by_seed(ended[0]).values())
        seeds = "1 seed" if len(losses) == 1 else f"{len(losses)} seeds"
        return (
            f"{ended[0].label} ends at {measured(*mean_interval(losses))} nats per token "
            f"({seeds}); no other arm has finished, so there is nothing to compare it with."
        )
    return (
        "No two arms that can be compared share their other settings, so none are compared; sweep "
        "norm= or placement= at equal settings."
    )


def measured(value: float, half: float) -> str:
    """`0.0207 ± 0.0064`, or without an interval `0.0207`; more digits where four are none."""
    largest = max((abs(one) for one in (value, half) if math.isfinite(one)), default=0)
    digits = 4 if largest == 0 else max(4, 1 - math.floor(math.log10(largest)))
    said = f"{value:.{digits}f}"
    return said if math.isnan(half) else f"{said} ± {half:.{digits}f}"


def _telling(comparison: Comparison) -> tuple[bool, float]:
    return comparison.outcome == "cannot tell", comparison.p


def _tells(together: _Together) -> bool:
    return any(one.outcome != "cannot tell" for one in together)


def _smallest(together: _Together) -> float:
    return min((one.p for one in together if not math.isnan(one.p)), default=math.inf)


def _basis(comparison: Comparison) -> str:
    found = comparison.difference
    if found.pairs:
        seeds = f"{found.pairs} paired seed{'s' * (found.pairs > 1)}"
    else:
        seeds = "unequal seeds, Welch's test" if not math.isnan(found.p) else "no seed in common"
    if math.isnan(found.p):
        return seeds
    name = "p" if comparison.family == 1 else "Holm p"
    return f"{seeds}, {name} {_probability(comparison.p)}"


def _probability(p: float) -> str:
    if p < 0.001:
        return "< 0.001"
    return f"= {p:.3f}" if p < 0.0995 else f"= {p:.2f}"


def _more(comparison: Comparison) -> str:
    if math.isnan(comparison.p):
        return "the same two seeds or more for both would tell noise from effect, seed=0,1,2"
    if comparison.difference.mean == 0:
        return "there is none"
    needed = comparison.needed
    if needed is None:
        return "no number of seeds that anyone trains would tell a difference of this size"
    rounded = needed if needed < 100 else round(needed, 2 - len(str(needed)))
    return f"about {rounded} pairs would be needed to tell a difference of this size"


def _survivors(*arms: Arm) -> str:
    """What is missing where an arm is compared by its runs that did not diverge."""
    lost = [
        f"; {len(gone)} of {len(arm.runs)} {arm.name} runs diverged and are not in it"
        for arm in arms
        if (gone := arm.with_state("diverged"))
    ]
    return "".join(lost)


def _at(facet: str) -> str:
    return f"At {facet}, " if facet else ""


def _untested(together: _Together) -> str:
    """A facet in which no two arms have two seeds."""
    best, nearest = together[0].best, together[0]
    loss = mean_interval(list(losses_by_seed(best).values()))[0]
    gap = measured(abs(nearest.difference.mean), math.nan)
    others = f", the nearest of {len(together)} others" if len(together) > 1 else ""
    return (
        f"{_at(nearest.facet)}{best.name} ends lowest, at {loss:.4f} nats per token, {gap} below "
        f"{nearest.other.name}{others}; without a second seed nothing tells that from noise."
    )


def _summary(together: _Together) -> str:
    """A facet in one sentence, however many arms it has."""
    if len(together) == 1:
        return sentence(together[0])
    best, first = together[0].best, together[0]
    lower = [one.other.name for one in together if one.outcome == "lower"]
    open_ = [one.other.name for one in together if one.outcome == "cannot tell"]
    words = [f"ends lower than {len(lower)} of {len(together)} others"]
    if lower:
        words[0] += f" ({some(lower)})"
    if open_:
        words.append(f"cannot be told from {len(open_)} ({some(open_)})")
    loss = measured(*mean_interval(list(losses_by_seed(best).values())))
    return (
        f"{_at(first.facet)}{best.name} has the lowest mean, {loss} nats per token"
        f"{_survivors(best)}; it {' and '.join(words)}; Holm over {first.family} pairs."
    )


def _counted(groups: Sequence[_Together]) -> str:
    """Many facets: in how many anything is told, and which arm is the lowest most often."""
    told = sum(map(_tells, groups))
    lowest = Counter(together[0].best.name for together in groups)
    name, often = lowest.most_common(1)[0]
    return (
        f"Of {len(groups)} combinations of settings, the lowest arm ends lower than another in "
        f"{told}, and in {len(groups) - told} that cannot be told; most often, in {often}, the "
        f"lowest mean is that of {name}."
    )
