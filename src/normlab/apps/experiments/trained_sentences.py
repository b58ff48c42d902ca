"""The paragraphs of the trained experiments: templates filled with a study's numbers.

A study's arms become trials: by norm, placement, learning rate, depth and warm-up.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from normlab.analysis.arms import Arm, format_value, group_runs
from normlab.analysis.comparison import losses_by_seed
from normlab.analysis.formatting import format_interval
from normlab.analysis.statistics import (
    Difference,
    Outcome,
    adjust_by_holm,
    mean_interval,
    paired_difference,
    seeds_needed,
)
from normlab.apps.experiments.formatting import join_words
from normlab.archive.study import Study

# Nats per token above the best guess without context within which a model has learned none.
_NO_CONTEXT = 0.05
_SINGLE_SEED = "One seed: no interval, and nothing tells effect from noise; add seed=0,1,2."


@dataclass(frozen=True)
class Trial:
    """Runs that differ in nothing but their seed.

    Attributes:
        losses: final validation loss by seed of those that finished, nats per token.
        diverged: how many of the `runs` did.
        unigram: the lowest loss without context, or None where the record does not have it.
    """

    arm: Arm
    rate: float
    depth: int
    warmup: float
    losses: Mapping[int, float]
    diverged: int
    runs: int
    unigram: float | None

    @property
    def name(self) -> str:
        """Norm and placement."""
        return self.arm.name

    @property
    def complete(self) -> bool:
        """Whether every run finished."""
        return len(self.arm.with_state("finished")) == self.runs and bool(self.losses)

    @property
    def mean(self) -> float:
        """Mean final loss of the runs that finished; NaN where none did."""
        return mean_interval(list(self.losses.values()))[0]

    @property
    def ignores_context(self) -> bool:
        """Whether it is hardly better than a guess by frequency."""
        return self.unigram is not None and self.mean > self.unigram - _NO_CONTEXT


def read_trials(study: Study) -> list[Trial]:
    """The study's arms as trials, in the order of its table."""
    trials = []
    for arm in group_runs(study.runs):
        record = arm.runs[0].record

        def setting(section: str, key: str, config: dict[str, Any] = record.config) -> Any:
            part = config.get(section)
            return part.get(key, math.nan) if isinstance(part, dict) else math.nan

        trials.append(
            Trial(
                arm=arm,
                rate=float(setting("optimizer", "lr")),
                depth=setting("model", "depth"),
                warmup=float(setting("schedule", "warmup")),
                losses=losses_by_seed(arm),
                diverged=len(arm.with_state("diverged")),
                runs=len(arm.runs),
                unigram=record.unigram,
            )
        )
    return trials


def group_trials(trials: Iterable[Trial], attribute: str) -> dict[Any, list[Trial]]:
    """Trials by an attribute, in the order in which its values come first."""
    groups: dict[Any, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(getattr(trial, attribute), []).append(trial)
    return groups


def best_trial(trials: Iterable[Trial]) -> Trial | None:
    """The trial with the lowest mean among the complete ones; None without one."""
    return min(
        (trial for trial in trials if trial.complete), key=lambda trial: trial.mean, default=None
    )


def best_trial_of_arms(trials: Iterable[Trial]) -> list[Trial]:
    """Each arm at its best setting, the lowest loss first; without arms that never finish."""
    tuned = [best for arm in group_trials(trials, "name").values() if (best := best_trial(arm))]
    return sorted(tuned, key=lambda trial: trial.mean)


def best_shared_rate(trials: Sequence[Trial]) -> float | None:
    """The rate with the lowest mean over all arms, of those at which every arm finishes.

    None where there is no such rate.
    """
    arms = len(group_trials(trials, "name"))
    means = {
        rate: sum(trial.mean for trial in group) / arms
        for rate, group in group_trials(trials, "rate").items()
        if len(group) == arms and all(trial.complete for trial in group)
    }
    return min(means, key=lambda rate: means[rate], default=None)


def format_rate(rate: float) -> str:
    """`lr=3e-3`."""
    return f"lr={format_value(rate)}"


def _format_loss(trial: Trial) -> str:
    """`2.6989 ± 0.0120`, or without the interval of a single seed."""
    return format_interval(*mean_interval(list(trial.losses.values())))


@dataclass(frozen=True)
class TrialPair:
    """Two trials over equal seeds, a − b; p is Holm's over all pairs of their question."""

    a: Trial
    b: Trial
    difference: Difference
    p: float

    @property
    def outcome(self) -> Outcome:
        """Whether a ends lower than b, higher, or the seeds cannot tell."""
        return self.difference.outcome_at(self.p)

    @property
    def gap(self) -> str:
        """`0.0120 ± 0.0300`, of b − a, as in `a is lower by`."""
        return format_interval(-self.difference.mean, self.difference.half)

    @property
    def reason(self) -> str:
        """Why the seeds cannot tell: `0.0120 ± 0.0300; about 12 pairs of seeds would tell`."""
        if not self.difference.pairs:
            return "no seed in common"
        pairs = seeds_needed(self.difference.mean, self.difference.spread)
        return f"{self.gap}; about {pairs} pairs of seeds would tell" if pairs else self.gap


def compare_pairs(pairs: Sequence[tuple[Trial, Trial]]) -> list[TrialPair]:
    """Each pair with its paired difference, and Holm's p over all of them."""
    differences = [paired_difference(a.losses, b.losses) for a, b in pairs]
    adjusted = adjust_by_holm([difference.p for difference in differences])
    return [
        TrialPair(*pair, difference, p)
        for pair, difference, p in zip(pairs, differences, adjusted, strict=True)
    ]


def _has_single_seed(trials: Iterable[Trial]) -> bool:
    return max((len(trial.losses) for trial in trials), default=0) < 2


def describe_norm_comparison(study: Study) -> list[str]:
    """Where runs diverged, every arm at a shared rate and at its own best, and what differs."""
    trials = read_trials(study)
    return [
        *_describe_divergence(trials),
        _describe_shared_rate(trials),
        *_describe_best_rates(best_trial_of_arms(trials)),
        *_describe_ignored_context(trials),
    ]


def _describe_divergence(trials: Sequence[Trial]) -> list[str]:
    sentences = []
    arms = group_trials(trials, "name")
    for name, arm in arms.items():
        diverged = sorted((t for t in arm if t.diverged), key=lambda trial: trial.rate)
        if diverged:
            rates = [f"{format_rate(t.rate)} ({t.diverged} of {t.runs})" for t in diverged]
            survivors = [
                f"{trial.name} ends at {_format_loss(trial)} at {format_rate(trial.rate)}"
                for trial in trials
                if trial.rate == diverged[-1].rate and trial.complete and trial.name != name
            ]
            where = f", where {join_words(survivors)}" if survivors else ""
            sentences.append(f"Diverged: {name} at {join_words(rates)}{where}.")
    return sentences or [f"No run of {join_words(list(arms))} diverged at any rate of the grid."]


def _describe_shared_rate(trials: Sequence[Trial]) -> str:
    rate = best_shared_rate(trials)
    if rate is None:
        return "There is no rate at which every arm finishes, so none is compared at a shared one."
    ordered = sorted((t for t in trials if t.rate == rate), key=lambda trial: trial.mean)
    losses = join_words([f"{trial.name} at {_format_loss(trial)}" for trial in ordered])
    return f"At one shared rate, {format_rate(rate)}, the final losses are {losses} nats per token."


def _describe_best_rates(tuned: Sequence[Trial]) -> Iterator[str]:
    if len(tuned) < 2:
        yield "Fewer than two arms finish at any rate, so there is nothing to compare."
        return
    losses = [f"{t.name} {_format_loss(t)} ({format_rate(t.rate)})" for t in tuned]
    yield f"Each at its own best rate of the grid: {join_words(losses)}."
    if _has_single_seed(tuned):
        yield _SINGLE_SEED
        return
    # The first is the lowest of all, so Holm counts every pair that it was chosen from; see
    # `analysis.comparison`.
    pairs = compare_pairs(list(combinations(tuned, 2)))
    with_lowest = pairs[: len(tuned) - 1]
    lower = [f"{p.b.name} by {p.gap}" for p in with_lowest if p.outcome == "lower"]
    undecided = [f"{p.b.name} ({p.reason})" for p in with_lowest if p.outcome != "lower"]
    if lower:
        yield f"So {tuned[0].name} ends lower than {join_words(lower)}."
    if undecided:
        yield f"Cannot tell {tuned[0].name} from {join_words(undecided)}."
    yield f"Paired seeds, Holm over all {len(pairs)} pairs." if len(pairs) > 1 else "Paired seeds."


def _describe_ignored_context(trials: Sequence[Trial]) -> Iterator[str]:
    stuck = [trial for trial in trials if trial.ignores_context]
    if stuck:
        arms = [
            f"{name} at {join_words([format_rate(trial.rate) for trial in arm])}"
            for name, arm in group_trials(stuck, "name").items()
        ]
        yield (
            f"Above, or less than {_NO_CONTEXT:g} below, the loss of token frequencies alone "
            f"({stuck[0].unigram:.2f}), and so with hardly any use of context: {'; '.join(arms)}."
        )


def describe_prenorm_vs_postnorm(study: Study) -> list[str]:
    """At every depth the placements at their best settings, what warm-up does, and what fails."""
    trials = read_trials(study)
    arms = group_trials(trials, "name")
    tuned = {
        depth: best_trial_of_arms(same_depth)
        for depth, same_depth in sorted(group_trials(trials, "depth").items())
    }
    placements = compare_pairs([(best[0], other) for best in tuned.values() for other in best[1:]])
    warmups = compare_pairs([pair for arm in arms.values() for pair in _warmup_pairs(arm)])
    sentences = []
    for depth, best in tuned.items():
        pairs = [pair for pair in placements if pair.a.depth == depth]
        sentences.append(_describe_depth(depth, best, pairs))
    for name in arms:
        changes = [_describe_warmup(pair) for pair in warmups if pair.a.name == name]
        if changes:
            changed = f"Warm-up changes the best final loss of {name} by {join_words(changes)}."
            sentences.append(changed)
    if arms:
        failures = "; of ".join(_describe_failures(name, arm) for name, arm in arms.items())
        sentences.append(f"Of {failures}.")
    if _has_single_seed(trials):
        return [*sentences, _SINGLE_SEED]
    basis = (
        f"Paired seeds, Holm over the {len(placements)} comparisons of placements and the "
        f"{len(warmups)} of warm-up."
    )
    return [*sentences, basis]


def _warmup_pairs(arm: Sequence[Trial]) -> Iterator[tuple[Trial, Trial]]:
    """An arm with warm-up and without, each at its best rate, by depth."""
    for _, trials in sorted(group_trials(arm, "depth").items()):
        with_warmup = best_trial(trial for trial in trials if trial.warmup > 0)
        without = best_trial(trial for trial in trials if trial.warmup == 0)
        if with_warmup and without:
            yield with_warmup, without


def _describe_depth(depth: int, arms: Sequence[Trial], pairs: Sequence[TrialPair]) -> str:
    if len(arms) < 2:
        return f"At depth {depth} fewer than two arms finish."
    losses = [
        f"{trial.name} {_format_loss(trial)} ({format_rate(trial.rate)}, warm-up "
        f"{format_value(trial.warmup)})"
        for trial in arms
    ]
    clauses = [f"At depth {depth}, each at its best: {join_words(losses)}"]
    for pair in pairs:
        if pair.difference.pairs < 2:
            continue
        if pair.outcome == "cannot tell":
            clauses.append(f"{pair.a.name} and {pair.b.name} cannot be told apart ({pair.reason})")
        else:
            clauses.append(f"{pair.a.name} is lower by {pair.gap}")
    return f"{'; '.join(clauses)}."


def _describe_warmup(pair: TrialPair) -> str:
    """What warm-up changes for an arm at a depth, each at its best rate."""
    change = format_interval(pair.difference.mean, pair.difference.half)
    untested = pair.difference.pairs < 2
    doubt = " (cannot tell)" if pair.outcome == "cannot tell" and not untested else ""
    return f"{change} at depth {pair.a.depth}{doubt}"


def _describe_failures(name: str, arm: Sequence[Trial]) -> str:
    diverged = sum(bool(trial.diverged) for trial in arm)
    stuck = [trial for trial in arm if trial.ignores_context]
    depths = [
        f"{len(group)} at depth {depth}"
        for depth, group in sorted(group_trials(stuck, "depth").items())
    ]
    where = f", {join_words(depths)}" if depths else ""
    return (
        f"{len(arm)} settings of {name} {diverged} diverge and {len(stuck)} end above, or less "
        f"than {_NO_CONTEXT:g} below, the loss of token frequencies alone{where}"
    )


DESCRIPTIONS: dict[str, Any] = {
    "norm_comparison": describe_norm_comparison,
    "prenorm_vs_postnorm": describe_prenorm_vs_postnorm,
}
