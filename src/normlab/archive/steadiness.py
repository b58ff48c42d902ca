"""Whether a speed is one number: how much it varies over equal parts of what was timed.

Other work on the machine slows some parts of a run and not others. A speed is compared with
another only where its coefficient of variation over equal parts is below `MOST_VARIATION`.
"""

import math
from collections.abc import Sequence

import numpy as np

PARTS = 10
FEWEST_PARTS = 3
MOST_VARIATION = 0.10
NOT_COMPARABLE = "not comparable"


def speed_variation(values: Sequence[float]) -> float:
    """Coefficient of variation of the means of equal parts of the values, in their order.

    Fewer than `PARTS` values are a part each; NaN for fewer than `FEWEST_PARTS`, or a mean of zero.
    """
    if len(values) < FEWEST_PARTS:
        return math.nan
    parts = np.array_split(np.asarray(values, float), min(PARTS, len(values)))
    return coefficient_of_variation([float(part.mean()) for part in parts])


def coefficient_of_variation(values: Sequence[float]) -> float:
    """Standard deviation over mean; NaN for fewer than two values, or a mean of zero."""
    if len(values) < 2:
        return math.nan
    mean = float(np.mean(values))
    return float(np.std(values, ddof=1)) / mean if mean else math.nan


def is_steady(variation: float | None) -> bool:
    """Whether so much variation lets a speed be compared; NaN and None do not."""
    return variation is not None and variation < MOST_VARIATION
