"""The learning rate over a run, as a factor of its highest value."""

import math
from collections.abc import Callable

from normlab.config.schema import Decay, ScheduleConfig

# Progress of the decay, 0 to 1, to how much of it is done.
_SHAPES: dict[Decay, Callable[[float], float]] = {
    Decay.constant: lambda progress: 0.0,
    Decay.linear: lambda progress: progress,
    Decay.cosine: lambda progress: (1 - math.cos(math.pi * progress)) / 2,
}


def factor(schedule: ScheduleConfig, step: int, max_steps: int) -> float:
    """Factor of the learning rate in the update after `step` updates, out of `max_steps`.

    Warm-up rises linearly to 1 (the first update already moves), then the rate stays at 1 until
    the last `decay_share` of the run, over which it falls to `final_ratio`.
    """
    warmup = round(schedule.warmup * max_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    start = max(warmup, round((1 - schedule.decay_share) * max_steps))
    progress = min(1.0, max(0.0, (step - start) / max(1, max_steps - start)))
    return 1 - (1 - schedule.final_ratio) * _SHAPES[schedule.decay](progress)
