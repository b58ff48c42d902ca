"""What depth does to a Transformer that is not trained: gradients, the stream, output changes.

At two initialisations, that of Xiong et al.'s theory (2002.04745) and GPT-2's; the models are those
of `scripts/probe.py`.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

from normlab.apps.claims.arms import slope
from normlab.apps.claims.measurement import Measurement, Series, Size
from normlab.apps.probe.record import Measurement as OfModel
from normlab.apps.probe.record import Probing
from normlab.apps.probe.tables import GRADIENT_DECAY, LAST_GRADIENT, by_block
from normlab.archive import tags

_INITS = {
    "theory": ("experiment=theory_init",),
    "GPT": ("norm=layernorm", "model.width=64", "model.context=32"),
}
# The theory's decay towards the input is that of a model this deep.
_DECAY_DEPTH = 8


def _measure(size: Size) -> Series:
    """A slope for each seed, as `theory post: last gradient`."""
    from normlab.apps.probe.main import measure

    series: Series = defaultdict(list)
    seeds = ",".join(map(str, range(size.seeds)))
    depths = [2**k for k in range(1, size.depth.bit_length())]
    for init, words in _INITS.items():
        for placement in ("pre", "post", "sandwich"):
            # Peri-LN is asked for its variance alone, which takes one depth.
            some = depths if placement != "sandwich" else [_DECAY_DEPTH]
            blocks = f"model.depth={','.join(map(str, some))}"
            found = measure([*words, f"placement={placement}", blocks, f"seed={seeds}"])
            for name, values in _slopes(found, some).items():
                series[f"{init} {placement}: {name}"] = values
    return dict(series)


def _slopes(found: Probing, depths: Sequence[int]) -> Series:
    (arm,) = found.arms
    series = {
        "last gradient": _fitted(found, arm, LAST_GRADIENT, None),
        "gradient decay": _fitted(found, arm, GRADIENT_DECAY, _DECAY_DEPTH),
    }
    deepest = found.of(arm, depths[-1])
    series["mean square a block"] = [_mean_square(one) for one in deepest]
    series["variance gained"] = [_gained(one) for one in deepest]
    series["variance"] = [_growth(one) for one in deepest]
    return {name: values for name, values in series.items() if values}


def _fitted(found: Probing, arm: str, name: str, depth: int | None) -> list[float]:
    fitted = found.slope(arm, name, depth)
    return [] if fitted is None else list(fitted.seeds)


def _mean_square(one: OfModel) -> float:
    """How much a block adds to the mean square of the stream."""
    squares = [value**2 for value in by_block(one, tags.STREAM_RMS)]
    return slope([(float(l), square) for l, square in enumerate(squares, 1)])


def _gained(one: OfModel) -> float:
    """Slope of ln(variance that the stream has gained) on ln(block): 1 is linear growth."""
    start = one.value(tags.STREAM_VARIANCE, "embedding")
    gained = [value - start for value in by_block(one, tags.STREAM_VARIANCE)]
    points = [(math.log(l), math.log(v)) for l, v in enumerate(gained, 1) if v > 0]
    return slope(points)


def _growth(one: OfModel) -> float:
    """Slope of ln(variance of the stream) over the blocks: 0 is constant."""
    values = by_block(one, tags.STREAM_VARIANCE)
    return slope([(float(l), math.log(v)) for l, v in enumerate(values, 1)])


DEPTH = Measurement(
    _measure,
    "LayerNorm, 2 to 32 blocks; the theory's initialisation (Xavier, one head, W_Q = W_K = 0, "
    "independent unit inputs) and GPT-2's at width 64",
)
