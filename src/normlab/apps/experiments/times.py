"""Ratios of the times of `layernorm_vs_rmsnorm`, each inside a round."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from normlab.analysis.spread import Spread, ratio
from normlab.apps.experiments.record import Comparison, Timed
from normlab.archive.steadiness import is_steady, speed_variation

# In the order of the figure, with what they are.
WAYS = {
    "fused": "in normlab's kernels",
    "torch": "in torch's functions",
    "compiled": "with torch.compile",
    "composite": "written out",
    "x.var": "with x.var",
}
# A LayerNorm that has no RMSNorm of its own kind, and the one that it is held against.
NAIVE, WRITTEN_OUT = "x.var", "composite"


@dataclass(frozen=True)
class Pair:
    """RMSNorm's time over LayerNorm's in one way at one shape: with backward, and forward alone.

    None where the times vary too much over the measurement to be compared.
    """

    way: str
    shape: tuple[int, int]
    both: Spread | None
    forward: Spread | None


def shapes(numbers: Comparison) -> list[tuple[int, int]]:
    """(tokens, width) of all times, as they come."""
    return list(dict.fromkeys((one.tokens, one.width) for one in numbers.times))


def over_torch(numbers: Comparison, one: Timed) -> Spread | None:
    """Its time, forward with backward, over that of F.layer_norm at its shape.

    None where the times vary too much to be compared.
    """
    base = _find(numbers, "torch", "layernorm", (one.tokens, one.width))
    return _compared(one.both, base.both)


def _compared(times: Sequence[float], others: Sequence[float]) -> Spread | None:
    steady = all(is_steady(speed_variation(some)) for some in (times, others))
    return ratio(times, others) if steady else None


def pairs(numbers: Comparison, ways: Sequence[str]) -> Iterator[Pair]:
    """RMSNorm against LayerNorm, for these ways at every shape where both were timed."""
    for way in ways:
        for shape in shapes(numbers):
            try:
                layer = _find(numbers, way, "layernorm", shape)
                other = WRITTEN_OUT if way == NAIVE else way
                rms = _find(numbers, other, "rmsnorm", shape)
            except LookupError:
                continue
            both = _compared(rms.both, layer.both)
            forward = _compared(rms.forward, layer.forward)
            yield Pair(way, shape, both, forward)


def _find(numbers: Comparison, way: str, norm: str, shape: tuple[int, int]) -> Timed:
    for one in numbers.times:
        if (one.way, one.norm, (one.tokens, one.width)) == (way, norm, shape):
            return one
    raise LookupError(f"no times of {way} {norm} at {shape}")
