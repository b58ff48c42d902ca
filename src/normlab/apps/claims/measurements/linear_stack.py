"""The tutorial's first experiment: layers of Linear and ReLU at initialisation, without a norm."""

import math
from collections import defaultdict
from collections.abc import Sequence

from normlab.apps.claims.arms import slope
from normlab.apps.claims.measurement import Measurement, Series, Size
from normlab.apps.experiments.gradient_vanishing import DepthProfile

_WIDTH, _DEPTH, _INPUTS = 512, 24, 128
# Standard deviations that the tutorial prints for its layers 1 to 5.
_ROW = (1.04, 0.85, 0.62, 0.38, 0.21)
_AT = 8  # its last layer


def _measure(size: Size) -> Series:
    from normlab.apps.experiments.gradient_vanishing_measurement import (
        STACKS_WITHOUT_NORM,
        profile_stacks,
    )

    series: Series = defaultdict(list)
    for seed in range(size.seeds):
        found = profile_stacks(STACKS_WITHOUT_NORM, _WIDTH, _DEPTH, [seed], _INPUTS, lambda _: None)
        plain, _, kaiming = found
        std = _known(plain.std)
        series["std at layer 8"].append(std[_AT])
        series["std at layer 1"].append(std[1])
        series["slope of ln std beyond layer 8"].append(_slope(std, _AT, _DEPTH))
        series["slope of ln gradient"].append(_slope(_known(plain.gradient), 0, _AT))
        series["share from the input at layer 8"].append(_known(plain.share)[_AT])
        series["error of the printed row"].append(
            max(abs(math.log(ours / said)) for ours, said in zip(std[1:], _ROW, strict=False))
        )
        series["std with Kaiming"].append(_level(kaiming))
    return dict(series)


def _slope(values: Sequence[float], first: int, last: int) -> float:
    """Slope of the logarithm over the layers from first to last."""
    return slope([(float(l), math.log(values[l])) for l in range(first, last + 1)])


def _level(profile: DepthProfile) -> float:
    """Geometric mean over the tutorial's layers."""
    std = _known(profile.std)[1 : _AT + 1]
    return math.exp(math.fsum(map(math.log, std)) / len(std))


def _known(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


LINEAR_STACK = Measurement(
    _measure,
    f"{_DEPTH} layers of nn.Linear and ReLU, width {_WIDTH}, PyTorch's own initialisation, "
    f"{_INPUTS} inputs from N(0, 1), float64",
)
