"""What depth does to a Transformer that is not trained: gradients, the stream, output changes.

At two initialisations: that of Xiong et al.'s theory (2002.04745), and GPT-2's.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from normlab.analysis.claims.arms import slope
from normlab.archive import tags
from normlab.config.spec import RunSpec
from normlab.study.claims.measuring import Measurement, Series, Size
from normlab.study.claims.studies import composed

if TYPE_CHECKING:
    from torch import Tensor

_VOCABULARY, _BATCH, _CONTEXT = 64, 2, 32
_MODELS = {"theory": ("model=xiong",), "GPT": ("model=nanogpt", "model.width=128")}
_PLACEMENTS = ("pre", "post", "sandwich")
_DELTA = 1e-3  # of the output change: small, so that it is linear

Readings = dict[tuple[str, str], float]


def _measure(size: Size) -> Series:
    """A slope for each seed, as `theory post: last gradient over depth`."""
    series: Series = defaultdict(list)
    for init, words in _MODELS.items():
        for placement in _PLACEMENTS:
            more = ("norm=layernorm", f"placement={placement}", f"model.context={_CONTEXT}")
            spec = composed([*words, *more])
            for seed in range(size.seeds):
                for name, value in _slopes(spec, seed, size.depth).items():
                    series[f"{init} {placement}: {name}"].append(value)
    return dict(series)


def _slopes(spec: RunSpec, seed: int, deepest: int) -> dict[str, float]:
    models = [_measured(spec, depth, seed) for depth in _depths(deepest)]
    deep, blocks = models[-1].readings, range(1, deepest + 1)
    gradients = [_last_gradient(one.readings, one.depth) for one in models]
    variance = [_at(deep, tags.STREAM_VARIANCE, block) for block in blocks]
    start = deep[tags.STREAM_VARIANCE, "embedding"]
    by_depth = [math.log(one.depth) for one in models]
    grown = [(math.log(l), v - start) for l, v in zip(blocks, variance, strict=True)]
    return {
        "last gradient over depth": _fit(by_depth, gradients),
        "gradient over blocks": _fit(blocks, [_gradient(deep, block) for block in blocks]),
        "variance over blocks": _fit(blocks, variance),
        "variance gained over blocks": slope([(x, math.log(v)) for x, v in grown if v > 0]),
        "mean square a block": slope(
            [(float(l), _at(deep, tags.STREAM_RMS, l) ** 2) for l in blocks]
        ),
        "output change over depth": _fit(by_depth, [one.change for one in models]),
    }


@dataclass(frozen=True)
class _Model:
    depth: int
    readings: Readings
    change: float


def _measured(spec: RunSpec, depth: int, seed: int) -> _Model:
    import torch

    from normlab.training.build import build_model
    from normlab.training.probes import at_initialization, output_change

    shape = replace(spec.config.model, depth=depth)
    model = build_model(replace(spec.config, model=shape, seed=seed), _VOCABULARY)
    generator = torch.Generator().manual_seed(seed)
    drawn: Tensor = torch.randint(_VOCABULARY, (_BATCH, _CONTEXT + 1), generator=generator)
    tokens, targets = drawn[:, :-1], drawn[:, 1:]
    readings = at_initialization(model, (tokens, targets))
    return _Model(depth, readings, output_change(model, tokens, _DELTA, seed))


def _depths(deepest: int) -> list[int]:
    """2, 4, 8, … up to the deepest."""
    return [2**k for k in range(1, deepest.bit_length())]


def _fit(x: Sequence[float], values: Sequence[float]) -> float:
    """Slope of ln(values) over x."""
    points: list[Any] = [(at, math.log(v)) for at, v in zip(x, values, strict=True) if v > 0]
    return slope(points)


def _last_gradient(readings: Readings, depth: int) -> float:
    return _gradient(readings, depth)


def _gradient(readings: Readings, block: int) -> float:
    return _at(readings, tags.PARAMETER_GRADIENT, block)


def _at(readings: Readings, quantity: str, block: int) -> float:
    return readings[quantity, f"block_{block:02d}/feedforward"]


DEPTH = Measurement(
    _measure,
    f"LayerNorm, width 128, {_BATCH} sequences of {_CONTEXT} random tokens; the theory's "
    "initialisation (Xavier, one head, W_Q = W_K = 0, unit inputs) and GPT-2's",
)
