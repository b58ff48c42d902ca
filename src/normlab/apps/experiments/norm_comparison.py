"""No norm against norms over one grid of learning rates: who still trains, and how low it gets."""

import math
from collections.abc import Sequence

from normlab.analysis.sentences import measured
from normlab.apps.experiments.trials import (
    NO_CONTEXT,
    ONE_SEED,
    Trial,
    best,
    by,
    differences,
    loss,
    not_told,
    rate,
    said,
    trials,
)
from normlab.archive.study import Study


def tell(study: Study) -> list[str]:
    """Where runs diverged, every arm at one shared rate and at its own best, and what differs."""
    found = trials(study)
    arms = by(lambda trial: trial.name, found)
    tuned = [one for some in arms.values() if (one := best(some))]
    words = [*_diverged(arms), _at_one_rate(found), *_tuned(tuned), _without_context(arms)]
    return [sentence for sentence in words if sentence]


def shared_rate(found: Sequence[Trial]) -> float | None:
    """The rate at which all arms finish, and of those the one with the lowest mean over them.

    None where there is no such rate.
    """
    arms = len(by(lambda trial: trial.name, found))
    means = {
        value: sum(trial.mean for trial in some) / arms
        for value, some in by(lambda trial: trial.rate, found).items()
        if len(some) == arms and all(trial.whole for trial in some)
    }
    return min(means, key=lambda value: means[value], default=None)


def _diverged(arms: dict[str, list[Trial]]) -> list[str]:
    words = []
    for name, some in arms.items():
        lost = sorted((trial for trial in some if trial.diverged), key=lambda trial: trial.rate)
        if not lost:
            continue
        where = said([f"{rate(trial.rate)} ({trial.diverged} of {trial.runs})" for trial in lost])
        there = {trial.rate for trial in lost}
        others = [
            f"{trial.name} ends at {loss(trial)} at {rate(trial.rate)}"
            for trials_of in arms.values()
            for trial in trials_of
            if trial.rate == max(there) and trial.whole and trial.name != name
        ]
        words.append(f"Diverged: {name} at {where}{', where ' * bool(others)}{said(others)}.")
    return words or [f"No run of {said(list(arms))} diverged at any rate of the grid."]


def _at_one_rate(found: Sequence[Trial]) -> str:
    value = shared_rate(found)
    if value is None:
        return "There is no rate at which every arm finishes, so none is compared at a shared one."
    there = sorted((trial for trial in found if trial.rate == value), key=lambda trial: trial.mean)
    ends = said([f"{trial.name} at {loss(trial)}" for trial in there])
    return f"At one shared rate, {rate(value)}, the final losses are {ends} nats per token."


def _tuned(tuned: Sequence[Trial]) -> list[str]:
    if len(tuned) < 2:
        return ["Fewer than two arms finish at any rate, so there is nothing to compare."]
    ordered = sorted(tuned, key=lambda trial: trial.mean)
    low = ordered[0]
    ends = said([f"{trial.name} {loss(trial)} ({rate(trial.rate)})" for trial in ordered])
    words = [f"Each at its own best rate of the grid: {ends}."]
    if max(len(trial.losses) for trial in tuned) < 2:
        return [*words, ONE_SEED]
    told, untold = [], []
    for other, difference, p in differences(ordered):
        if difference.outcome_at(p) == "lower":
            told.append(f"{other.name} by {measured(-difference.mean, difference.half)}")
        else:
            untold.append(f"{other.name} ({not_told(difference)})")
    if told:
        words.append(f"So {low.name} ends lower than {said(told)}.")
    if untold:
        words.append(f"Cannot tell {low.name} from {said(untold)}.")
    pairs = math.comb(len(ordered), 2)
    basis = f"Paired seeds, Holm over all {pairs} pairs." if pairs > 1 else "Paired seeds."
    return [*words[:-1], f"{words[-1]} {basis}"]


def _without_context(arms: dict[str, list[Trial]]) -> str:
    stuck = {
        name: [trial for trial in some if trial.learned_no_context] for name, some in arms.items()
    }
    words = [
        f"{name} at {said([rate(trial.rate) for trial in some])}"
        for name, some in stuck.items()
        if some
    ]
    if not words:
        return ""
    unigram = next(trial.unigram for some in stuck.values() for trial in some)
    return (
        f"Above, or less than {NO_CONTEXT:g} below, the loss of token frequencies alone "
        f"({unigram:.2f}), and so with hardly any use of context: {'; '.join(words)}."
    )
