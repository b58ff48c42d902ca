"""Pre-LN against Post-LN by depth, learning rate and warm-up: which of them still trains where."""

from collections.abc import Sequence
from dataclasses import dataclass

from normlab.analysis.arms import format_value
from normlab.analysis.sentences import measured
from normlab.analysis.statistics import Difference, holm, paired_difference
from normlab.apps.experiments.trials import (
    NO_CONTEXT,
    ONE_SEED,
    Trial,
    best,
    by,
    loss,
    not_told,
    rate,
    said,
    trials,
)
from normlab.archive.study import Study


@dataclass
class _Pair:
    """Two trials compared over equal seeds, a − b; p is Holm's over all pairs of its question."""

    a: Trial
    b: Trial
    difference: Difference
    p: float = float("nan")

    @property
    def told(self) -> bool:
        """Whether the difference can be told from none."""
        return self.difference.outcome_at(self.p) != "cannot tell"


def tell(study: Study) -> list[str]:
    """At every depth the placements at their best settings, what warm-up does, and what fails."""
    found = trials(study)
    depths = by(lambda trial: trial.depth, sorted(found, key=lambda trial: trial.depth))
    tuned = {depth: _tuned(some) for depth, some in depths.items()}
    gaps = {depth: [_pair(some[0], one) for one in some[1:]] for depth, some in tuned.items()}
    arms = by(lambda trial: trial.name, found)
    warmed = {name: _warmed(some) for name, some in arms.items()}
    counts = [_adjust(list(gaps.values())), _adjust(list(warmed.values()))]
    words = [_at_depth(depth, some, gaps[depth]) for depth, some in tuned.items()]
    words += [_warmup(name, some) for name, some in warmed.items()]
    words.append(_failures(arms))
    if max((len(trial.losses) for trial in found), default=0) < 2:
        words.append(ONE_SEED)
    else:
        placements, warm = counts
        words.append(
            f"Paired seeds, Holm over the {placements} comparisons of placements and the {warm} of "
            f"warm-up."
        )
    return [sentence for sentence in words if sentence]


def _adjust(question: Sequence[Sequence[_Pair]]) -> int:
    """Give all pairs of a question Holm's p; returns how many there are."""
    pairs = [pair for some in question for pair in some]
    for pair, p in zip(pairs, holm([pair.difference.p for pair in pairs]), strict=True):
        pair.p = p
    return len(pairs)


def _tuned(some: Sequence[Trial]) -> list[Trial]:
    """Every arm at its best setting, the lowest first."""
    found = [one for arm in by(lambda t: t.name, some).values() if (one := best(arm))]
    return sorted(found, key=lambda trial: trial.mean)


def _warmed(some: Sequence[Trial]) -> list[_Pair]:
    """An arm with warm-up and without, each at its best rate, by depth."""
    pairs = []
    for there in by(lambda t: t.depth, sorted(some, key=lambda t: t.depth)).values():
        warm = best(trial for trial in there if trial.warmup > 0)
        cold = best(trial for trial in there if trial.warmup == 0)
        if warm and cold:
            pairs.append(_pair(warm, cold))
    return pairs


def _pair(a: Trial, b: Trial) -> _Pair:
    return _Pair(a, b, paired_difference(a.losses, b.losses))


def _at_depth(depth: int, some: Sequence[Trial], gaps: Sequence[_Pair]) -> str:
    if len(some) < 2:
        return f"At depth {depth} fewer than two arms finish."
    ends = said([f"{trial.name} {loss(trial)} ({_setting(trial)})" for trial in some])
    return f"At depth {depth}, each at its best: {ends}{''.join(map(_gap, gaps))}."


def _gap(pair: _Pair) -> str:
    if pair.difference.pairs < 2:
        return ""
    if pair.told:
        by_ = measured(-pair.difference.mean, pair.difference.half)
        return f"; {pair.a.name} is lower by {by_}"
    return f"; {pair.a.name} and {pair.b.name} cannot be told apart ({not_told(pair.difference)})"


def _warmup(name: str, pairs: Sequence[_Pair]) -> str:
    """What warm-up changes for an arm at every depth, each at its best rate."""
    parts = []
    for pair in pairs:
        change = measured(pair.difference.mean, pair.difference.half)
        untold = "" if pair.told or pair.difference.pairs < 2 else " (cannot tell)"
        parts.append(f"{change} at depth {pair.a.depth}{untold}")
    return f"Warm-up changes the best final loss of {name} by {said(parts)}." if parts else ""


def _failures(arms: dict[str, list[Trial]]) -> str:
    parts = []
    for name, some in arms.items():
        settings = len(some)
        diverged = sum(bool(trial.diverged) for trial in some)
        stuck = [trial for trial in some if trial.learned_no_context]
        deep = f", {_most_at(stuck)}" if stuck else ""
        parts.append(
            f"of {settings} settings of {name} {diverged} diverge and {len(stuck)} end above, or "
            f"less than {NO_CONTEXT:g} below, the loss of token frequencies alone{deep}"
        )
    return f"O{'; '.join(parts)[1:]}." if parts else ""


def _most_at(stuck: Sequence[Trial]) -> str:
    depths = by(lambda trial: trial.depth, sorted(stuck, key=lambda trial: trial.depth))
    return said([f"{len(some)} at depth {depth}" for depth, some in depths.items()])


def _setting(trial: Trial) -> str:
    return f"{rate(trial.rate)}, warm-up {format_value(trial.warmup)}"
