"""Slopes of the logarithms of what was measured at initialization, by seed."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from normlab.analysis.statistics import mean_interval
from normlab.apps.probe.record import ModelSlope, ProbedModel
from normlab.archive import tags

# The names of the slopes. The first is fitted over depths, the others within a model.
# In theory −1/2 with Pre-LN and 0 with Post-LN (2002.04745).
LAST_GRADIENT = "gradient of the last feed-forward against depth"
STREAM_GROWTH = "stream variance against block"
# 2002.04745 has √(2/3) = 0.816 for Post-LN at initialization, which is the factor of the skip path
# alone: with the gradient through the branches it is 0.985.
GRADIENT_DECAY = "gradient norm of a feed-forward, factor a block towards the input"


def fit_slopes(models: Sequence[ProbedModel]) -> tuple[ModelSlope, ...]:
    """All slopes that can be fitted: of each seed alone, then their mean and t-interval.

    Over depths: log of the last feed-forward's gradient norm on log L. Within a model: log of the
    stream's variance on log l, and the factor by which gradients change from a block to the one
    before it, e to minus the slope of their log on l.
    """
    fits: list[ModelSlope] = []

    def add(arm: str, name: str, depth: int | None, slopes: Sequence[float]) -> None:
        # A seed without a slope, as where a gradient is 0, leaves the arm without one.
        if slopes and all(map(math.isfinite, slopes)):
            mean, half = mean_interval(slopes)
            interval = None if math.isnan(half) else half
            fits.append(ModelSlope(arm, name, depth, mean, interval, tuple(slopes)))

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
        add(arm, LAST_GRADIENT, None, slopes)
        for depth, group in sorted(by_depth.items()):
            growth = [_slope_within(model, tags.STREAM_VARIANCE, np.log) for model in group]
            add(arm, STREAM_GROWTH, depth, growth)
            decay = [_slope_within(model, tags.PARAMETER_GRADIENT, np.asarray) for model in group]
            add(arm, GRADIENT_DECAY, depth, [math.exp(-slope) for slope in decay])
    return tuple(fits)


def _slope_within(model: ProbedModel, quantity: str, scale: Callable[..., Any]) -> float:
    """The slope of the log of a quantity on scale(block), within one model."""
    return fit_log_slope(range(1, model.depth + 1), model.by_block(quantity), scale)


def fit_log_slope(x: Sequence[float], y: Sequence[float], scale: Callable[..., Any]) -> float:
    """Least squares of log y on scale(x); NaN of fewer than two x, or of a y without a log."""
    if len(set(x)) < 2 or not all(math.isfinite(value) and value > 0 for value in y):
        return math.nan
    return float(np.polyfit(scale(np.array(x, float)), np.log(y), 1)[0])
