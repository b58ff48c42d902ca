"""Slopes on log-log axes of what was measured at initialisation, by seed."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from normlab.analysis.statistics import mean_interval
from normlab.apps.probe.record import ModelSlope, ProbedModel
from normlab.archive import tags

# The names of the slopes. The first is fitted over depths, the others within a model.
LAST_GRADIENT = "gradient of the last feed-forward against depth"
STREAM_GROWTH = "stream variance against block"
GRADIENT_DECAY = "gradient norm of a feed-forward, factor a block towards the input"
STREAM_DECAY = "gradient by the stream, factor a block towards the input"


def fit_slopes(models: Sequence[ProbedModel]) -> tuple[ModelSlope, ...]:
    """All slopes that can be fitted: of each seed alone, then their mean and t-interval.

    Over depths: log of the last feed-forward's gradient norm on log L. Within a model: log of the
    stream's variance on log l, and the factor by which gradients change from a block to the one
    before it, e to minus the slope of their log on l.
    """
    fits: list[tuple[str, str, int | None, list[float]]] = []
    for arm in dict.fromkeys(model.arm for model in models):
        by_seed, by_depth = defaultdict(list), defaultdict(list)
        for model in models:
            if model.arm == arm:
                by_seed[model.seed].append(model)
                by_depth[model.depth].append(model)
        slopes = [
            fit_log_slope([m.depth for m in group], [m.last_gradient for m in group], np.log)
            for group in by_seed.values()
        ]
        fits.append((arm, LAST_GRADIENT, None, slopes))
        for depth in sorted(by_depth):
            for name, slopes in _slopes_within(by_depth[depth]):
                fits.append((arm, name, depth, slopes))
    return tuple(
        _average_seeds(*fit) for fit in fits if fit[-1] and all(map(math.isfinite, fit[-1]))
    )


def _slopes_within(models: Sequence[ProbedModel]) -> Iterator[tuple[str, list[float]]]:
    """The slopes within models of one depth, by name, one for each model."""
    blocks = range(1, models[0].depth + 1)
    growth = [fit_log_slope(blocks, m.by_block(tags.STREAM_VARIANCE), np.log) for m in models]
    yield STREAM_GROWTH, growth
    for name, quantity in (
        (GRADIENT_DECAY, tags.PARAMETER_GRADIENT),
        (STREAM_DECAY, tags.STREAM_GRADIENT),
    ):
        slopes = [fit_log_slope(blocks, m.by_block(quantity), np.asarray) for m in models]
        yield name, [math.exp(-slope) for slope in slopes]


def fit_log_slope(x: Sequence[float], y: Sequence[float], scale: Callable[..., Any]) -> float:
    """Least squares of log y on scale(x); NaN of fewer than two x, or of a y without a log."""
    if len(set(x)) < 2 or not all(math.isfinite(value) and value > 0 for value in y):
        return math.nan
    return float(np.polyfit(scale(np.array(x, float)), np.log(y), 1)[0])


def _average_seeds(arm: str, name: str, depth: int | None, slopes: Sequence[float]) -> ModelSlope:
    mean, half = mean_interval(slopes)
    return ModelSlope(arm, name, depth, mean, None if math.isnan(half) else half, tuple(slopes))
