"""No norm against norms over one grid of learning rates: who still trains, and how low it gets."""

from collections.abc import Sequence

from normlab.analysis.sentences import measured
from normlab.analysis.stories.cells import (
    Cell,
    best,
    by,
    cells,
    differences,
    loss,
    rate,
    said,
)
from normlab.archive.folder import Study


def tell(study: Study) -> str:
    """Where runs diverged, every arm at one shared rate and at its own best, and what differs."""
    found = cells(study)
    arms = by(lambda cell: cell.name, found)
    tuned = [one for some in arms.values() if (one := best(some))]
    words = [_diverged(arms), _at_one_rate(found), _tuned(tuned), _without_context(arms)]
    return " ".join(filter(None, words))


def shared_rate(found: Sequence[Cell]) -> float | None:
    """The rate at which all arms finish, and of those the one with the lowest mean over them.

    None where there is no such rate.
    """
    arms = len(by(lambda cell: cell.name, found))
    means = {
        value: sum(cell.mean for cell in some) / arms
        for value, some in by(lambda cell: cell.rate, found).items()
        if len(some) == arms and all(cell.whole for cell in some)
    }
    return min(means, key=lambda value: means[value], default=None)


def _diverged(arms: dict[str, list[Cell]]) -> str:
    words = []
    for name, some in arms.items():
        lost = sorted((cell for cell in some if cell.diverged), key=lambda cell: cell.rate)
        if not lost:
            continue
        where = said([f"{rate(cell.rate)} ({cell.diverged} of {cell.runs})" for cell in lost])
        there = {cell.rate for cell in lost}
        others = [
            f"{cell.name} ends at {loss(cell)} at {rate(cell.rate)}"
            for cells_of in arms.values()
            for cell in cells_of
            if cell.rate == max(there) and cell.whole and cell.name != name
        ]
        words.append(f"{name} diverges at {where}{', where ' * bool(others)}{said(others)}.")
    return " ".join(words) or f"No run of {said(list(arms))} diverged at any rate of the grid."


def _at_one_rate(found: Sequence[Cell]) -> str:
    value = shared_rate(found)
    if value is None:
        return "There is no rate at which every arm finishes, so none is compared at a shared one."
    there = sorted((cell for cell in found if cell.rate == value), key=lambda cell: cell.mean)
    ends = said([f"{cell.name} at {loss(cell)}" for cell in there])
    return f"At one shared rate, {rate(value)}, the final losses are {ends} nats per token."


def _tuned(tuned: Sequence[Cell]) -> str:
    if len(tuned) < 2:
        return "Fewer than two arms finish at any rate, so there is nothing to compare."
    low, *others = sorted(tuned, key=lambda cell: cell.mean)
    ends = said([f"{cell.name} {loss(cell)} ({rate(cell.rate)})" for cell in (low, *others)])
    words = f"Each at its own best rate of the grid: {ends}."
    if max(len(cell.losses) for cell in tuned) < 2:
        return f"{words} One seed: no interval, and nothing tells effect from noise."
    told, untold = [], []
    for other, difference, p in differences(low, others):
        by_ = measured(-difference.mean, difference.half)
        if difference.outcome_at(p) == "lower":
            told.append(f"{other.name} by {by_}")
        else:
            untold.append(f"{other.name} ({by_})")
    if told:
        words += f" So {low.name} ends lower than {said(told)}"
        words += " (paired seeds, Holm over all three)." if len(others) == 3 else " (paired seeds)."
    if untold:
        words += f" Cannot tell it from {said(untold)}."
    return words


def _without_context(arms: dict[str, list[Cell]]) -> str:
    stuck = {
        name: [cell for cell in some if cell.learned_no_context] for name, some in arms.items()
    }
    words = [
        f"{name} at {said([rate(cell.rate) for cell in some])}"
        for name, some in stuck.items()
        if some
    ]
    if not words:
        return ""
    unigram = next(cell.unigram for some in stuck.values() for cell in some)
    return (
        f"No better than the frequencies of the tokens alone ({unigram:.2f}), so in this many "
        f"steps without any use of context: {'; '.join(words)}."
    )
