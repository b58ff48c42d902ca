"""What LayerNorm and RMSNorm do to the numbers of a token: shape, direction, invariances."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.apps.card.invariances import invariances
from normlab.apps.card.record import Invariance
from normlab.apps.experiments.record import Moments, Shown
from normlab.model.gpt import count_parameters
from normlab.norms import LayerNorm, RMSNorm

NORMS: dict[str, type[nn.Module]] = {"layernorm": LayerNorm, "rmsnorm": RMSNorm}
SHIFT, OUTLIER = 2.0, 20.0
_LOW, _HIGH, _BINS = -4.0, 6.0, 50


def shown(width: int, tokens: int, seed: int) -> list[Shown]:
    """Each kind of input, (tokens, width), before and after each norm as it starts; float64."""
    x = torch.randn(
        tokens, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    outlier = x.clone()
    outlier[:, 0] = OUTLIER
    kinds = {
        "mean 0": x - x.mean(-1, keepdim=True),
        f"mean {SHIFT:g}": x + SHIFT,
        "skewed": x.exp(),
        f"one feature {OUTLIER:g}": outlier,
    }
    return [_shown(name, kind) for name, kind in kinds.items()]


@torch.no_grad()
def _shown(name: str, x: Tensor) -> Shown:
    after = {norm: kind(x.shape[-1]).double()(x) for norm, kind in NORMS.items()}
    difference = (after["layernorm"] - after["rmsnorm"]).square().mean().sqrt()
    edges = torch.linspace(_LOW, _HIGH, _BINS + 1, dtype=torch.float64)
    return Shown(
        input=name,
        edges=tuple(edges.tolist()),
        before=_moments(x, edges),
        after={norm: _moments(y, edges) for norm, y in after.items()},
        cosine={norm: float(F.cosine_similarity(x, y).median()) for norm, y in after.items()},
        apart=float(difference / after["layernorm"].square().mean().sqrt()),
    )


def _moments(x: Tensor, edges: Tensor) -> Moments:
    """Of all tokens together; what lies outside the bins is in none of them."""
    counts = torch.histogram(x.flatten(), edges).hist / x.numel()
    rms = x.square().mean().sqrt()
    return Moments(float(x.mean()), float(x.std()), float(rms), tuple(counts.tolist()))


def invariances_of(width: int) -> dict[str, tuple[Invariance, ...]]:
    """By norm and eps: those of inputs and weights that are scaled or shifted."""
    wanted = ("input scale", "input shift", "weight scale", "weight shift")
    found = {}
    for norm, kind in NORMS.items():
        for words, module in (("", kind(width)), (" eps=0", kind(width, eps=0.0))):
            tried = invariances(module, width)
            found[norm + words] = tuple(one for one in tried if one.name in wanted)
    return found


def parameters(width: int) -> dict[str, int]:
    """How many numbers each learns."""
    return {norm: count_parameters(kind(width)) for norm, kind in NORMS.items()}
