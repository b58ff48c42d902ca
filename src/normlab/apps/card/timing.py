"""Time against LayerNorm's. Both are timed in every round, so what slows one slows the other."""

import copy
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from normlab.apps.card.inputs import standard
from normlab.apps.card.record import Ratio, Speed
from normlab.archive.steadiness import speed_variation
from normlab.norms import LayerNorm

BATCH, TOKENS = 8, 256
_FEWEST, _MOST = 7, 60
_WARM_UP = 2


def speed(norm: nn.Module, width: int, threads: int, seconds: float) -> Speed:
    """Forward, and forward with backward, in fp32 on this CPU with so many threads.

    It takes about so many seconds, unless seven rounds need more or sixty less.
    """
    x = standard(BATCH, TOKENS, width, seed=14).float().requires_grad_()
    weights = standard(BATCH, TOKENS, width, seed=15).float()
    norm, reference = copy.deepcopy(norm), LayerNorm(width)
    rounds: list[tuple[float, float, float, float]] = []
    with _threads(threads):
        began = time.perf_counter()
        while len(rounds) < _FEWEST + _WARM_UP or (
            len(rounds) < _MOST and time.perf_counter() - began < seconds
        ):
            base = _forward(reference, x), _both(reference, x, weights)
            rounds.append((*base, _forward(norm, x), _both(norm, x, weights)))
    kept = rounds[_WARM_UP:]
    forward, both = (statistics.median(one[at] for one in kept) * 1000 for at in (0, 1))
    return Speed(
        shape=tuple(x.shape),
        threads=threads,
        rounds=len(kept),
        layernorm_milliseconds=(forward, both),
        forward=_ratio([(one[2], one[0]) for one in kept]),
        both=_ratio([(one[3], one[1]) for one in kept]),
    )


def _forward(norm: nn.Module, x: Tensor) -> float:
    began = time.perf_counter()
    norm(x)
    return time.perf_counter() - began


def _both(norm: nn.Module, x: Tensor, weights: Tensor) -> float:
    began = time.perf_counter()
    torch.autograd.grad(norm(x), [x, *norm.parameters()], weights, allow_unused=True)
    return time.perf_counter() - began


def _ratio(times: list[tuple[float, float]]) -> Ratio:
    """Of the times of the norm and of the reference, by round."""
    low, median, high = statistics.quantiles([norm / base for norm, base in times], n=4)
    return Ratio(median, low, high, max(map(speed_variation, zip(*times, strict=True))))


@contextmanager
def _threads(wanted: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)
