"""Pre-LN against Post-LN by depth, learning rate and warm-up: which of them still trains where."""

from collections.abc import Sequence

from normlab.analysis.arms import format_value
from normlab.analysis.sentences import measured
from normlab.analysis.statistics import Difference, paired_difference
from normlab.analysis.stories.trials import Trial, best, by, loss, rate, said, trials
from normlab.archive.folder import Study


def tell(study: Study) -> str:
    """At every depth the placements at their best settings, what warm-up does, and what fails."""
    found = trials(study)
    depths = by(lambda trial: trial.depth, sorted(found, key=lambda trial: trial.depth))
    words = [_at_depth(depth, some) for depth, some in depths.items()]
    words += [_warmup(name, some) for name, some in by(lambda trial: trial.name, found).items()]
    words.append(_failures(by(lambda trial: trial.name, found)))
    if max((len(trial.losses) for trial in found), default=0) < 2:
        words.append("One seed: no interval, and nothing tells effect from noise; add seed=0,1,2.")
    return " ".join(filter(None, words))


def _at_depth(depth: int, some: Sequence[Trial]) -> str:
    tuned = [one for trials_of in by(lambda c: c.name, some).values() if (one := best(trials_of))]
    if len(tuned) < 2:
        return f"At depth {depth} fewer than two arms finish."
    low, *others = sorted(tuned, key=lambda trial: trial.mean)
    ends = said([f"{trial.name} {loss(trial)} ({_setting(trial)})" for trial in (low, *others)])
    gaps = [_gap(low, other, paired_difference(low.losses, other.losses)) for other in others]
    return f"At depth {depth}, each at its best: {ends}{''.join(gaps)}."


def _gap(low: Trial, other: Trial, found: Difference) -> str:
    if found.pairs < 2:
        return ""
    by_ = measured(-found.mean, found.half)
    if found.outcome == "lower":
        return f"; {low.name} is lower by {by_}"
    return f"; {low.name} and {other.name} cannot be told apart ({by_})"


def _warmup(name: str, some: Sequence[Trial]) -> str:
    """What warm-up changes for an arm at every depth, each at its best rate."""
    parts = []
    for depth, there in by(lambda trial: trial.depth, sorted(some, key=lambda c: c.depth)).items():
        with_, without = (
            best(c for c in there if c.warmup > 0),
            best(c for c in there if c.warmup == 0),
        )
        if with_ is None or without is None:
            continue
        found = paired_difference(with_.losses, without.losses)
        change = f"{measured(found.mean, found.half)} at depth {depth}"
        parts.append(change if found.outcome != "cannot tell" else f"{change} (cannot tell)")
    return f"Warm-up changes the best final loss of {name} by {said(parts)}." if parts else ""


def _failures(arms: dict[str, list[Trial]]) -> str:
    parts = []
    for name, some in arms.items():
        settings = len(some)
        diverged = sum(bool(trial.diverged) for trial in some)
        stuck = [trial for trial in some if trial.learned_no_context]
        deep = f", {_most_at(stuck)}" if stuck else ""
        parts.append(
            f"of {settings} settings of {name} {diverged} diverge and {len(stuck)} end no better "
            f"than token frequencies alone{deep}"
        )
    return f"{'; '.join(parts)}.".capitalize() if parts else ""


def _most_at(stuck: Sequence[Trial]) -> str:
    depths = by(lambda trial: trial.depth, sorted(stuck, key=lambda trial: trial.depth))
    return said([f"{len(some)} at depth {depth}" for depth, some in depths.items()])


def _setting(trial: Trial) -> str:
    return f"{rate(trial.rate)}, warm-up {format_value(trial.warmup)}"
