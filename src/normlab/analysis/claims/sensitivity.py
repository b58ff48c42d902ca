"""Sensitivity to the learning rate as published (2309.14322), one for each seed."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from normlab.analysis.arms import flatten
from normlab.analysis.claims.arms import NoBasisError, Setting
from normlab.archive import tags
from normlab.archive.folder import Run

FEWEST_RATES = 3


@dataclass(frozen=True)
class Sensitivities:
    """Mean over the learning rates of min(ℓ(η), ℓ₀) − ℓ*, in nats a token, by seed.

    ℓ(η) is the final validation loss, ℓ* the lowest of them, ℓ₀ the loss at initialisation, which
    also stands for a run that diverged.
    """

    rates: tuple[float, ...]
    by_seed: dict[int, float]


def sensitivities(settings: Sequence[Setting]) -> Sensitivities:
    """Of an arm whose settings differ in nothing but the learning rate.

    Raises:
        NoBasisError: they differ in more, or there are too few.
    """
    runs: dict[int, dict[float, Run]] = defaultdict(dict)
    for setting in settings:
        for seed, run in setting.runs.items():
            rate = flatten(run.record.config)["optimizer.lr"]
            if rate in runs[seed]:
                raise NoBasisError("the runs differ in more than learning rate and seed")
            runs[seed][rate] = run
    rates = tuple(sorted({rate for one in runs.values() for rate in one}))
    if len(rates) < FEWEST_RATES:
        raise NoBasisError(f"sensitivity takes {FEWEST_RATES} learning rates, not {len(rates)}")
    if any(len(one) < len(rates) for one in runs.values()):
        raise NoBasisError("not every seed has every learning rate")
    return Sensitivities(rates, {seed: _sensitivity(one) for seed, one in sorted(runs.items())})


def _sensitivity(runs: dict[float, Run]) -> float:
    losses = [min(_final(run), _start(run)) for run in runs.values()]
    return math.fsum(losses) / len(losses) - min(losses)


def _final(run: Run) -> float:
    loss = run.record.final.val_loss
    return math.inf if loss is None or run.record.state == "diverged" else loss


def _start(run: Run) -> float:
    for tag in (tags.VALIDATION_LOSS, tags.TRAIN_LOSS):
        series = run.events.scalars.get(tag)
        if series is not None and len(series.steps) and series.steps[0] == 0:
            return float(series.values[0])
    raise NoBasisError(f"{run.record.name} has no loss at initialisation")
