"""Linear and ReLU, layer on layer, at initialisation: what arrives, forwards and backwards.

One draw of PyTorch's own weights a seed serves every variant, so two differ in what is said and in
nothing else. In float64: what is left of the input deep down is less than fp32 can tell from none.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.apps.experiments.profile import Gathered
from normlab.apps.experiments.record import Profile
from normlab.norms import norm_factory

Layers = list[nn.Linear]
Build = Callable[[int], nn.Module]
# nn.Linear draws weights of variance 1/3n; the 2/n of 1502.01852 are the same, so much larger.
_KAIMING = math.sqrt(6)


@dataclass(frozen=True)
class Variant:
    """A stack: how it is initialised, and the norm before each ReLU."""

    name: str
    norm: str
    init: str  # "PyTorch", "no biases" or "Kaiming"
    build: Build | None = None

    def forward(self, layers: Layers, norms: Sequence[nn.Module], x: Tensor) -> Iterator[Tensor]:
        """The input (inputs, width), then the activations after each ReLU."""
        yield x
        scale = _KAIMING if self.init == "Kaiming" else 1.0
        for layer, norm in zip(layers, norms, strict=True):
            bias = layer.bias if self.init == "PyTorch" else None
            x = norm(F.linear(x, scale * layer.weight, bias)).relu()
            yield x

    def variances(self, width: int) -> tuple[float, float]:
        """n·Var W and n·Var B."""
        return {
            "PyTorch": (1 / 3, 1 / 3),
            "no biases": (1 / 3, 0.0),
            "Kaiming": (2.0, 0.0),
        }[self.init]


PLAIN = Variant("no norm", "none", "PyTorch")
BARE = (
    PLAIN,
    Variant("without biases", "none", "no biases"),
    Variant("Kaiming", "none", "Kaiming"),
)


def profiles(
    variants: Sequence[Variant],
    width: int,
    depth: int,
    seeds: Sequence[int],
    inputs: int,
    each: Callable[[str], None],
    backward: bool = True,
) -> list[Profile]:
    """Every variant over the same weights and inputs; `each` is told of every seed."""
    gathered = [Gathered() for _ in variants]
    for seed in seeds:
        each(f"stack of {depth} layers, width {width}, seed {seed}")
        layers, x, above = _drawn(width, depth, seed, inputs)
        for variant, kept in zip(variants, gathered, strict=True):
            kept.add(*_measured(variant, layers, x, above if backward else None))
    return [
        kept.profile(
            variant.name,
            variant.norm,
            None,
            variant.init,
            width,
            dict(zip(("weight", "bias"), variant.variances(width), strict=True)),
        )
        for variant, kept in zip(variants, gathered, strict=True)
    ]


def norms_variants(norms: dict[str, dict[str, object]]) -> list[Variant]:
    """PyTorch's initialisation with each of these norms, by name and configuration."""
    return [Variant(name, name, "PyTorch", norm_factory(config)) for name, config in norms.items()]


def _drawn(width: int, depth: int, seed: int, inputs: int) -> tuple[Layers, Tensor, Tensor]:
    """Layers as PyTorch makes them, inputs from N(0, 1), and a gradient from above, N(0, 1)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(width, width, dtype=torch.float64) for _ in range(depth)]
        x, above = torch.randn(2, inputs, width, dtype=torch.float64)
    for layer in layers:
        layer.requires_grad_(False)
    return layers, x, above


def _measured(
    variant: Variant, layers: Layers, x: Tensor, above: Tensor | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Activations (inputs, width) at every layer, and the loss's gradients there."""
    norms = [variant.build(x.shape[1]).double() if variant.build else nn.Identity() for _ in layers]
    with torch.set_grad_enabled(above is not None):
        start = x.clone().requires_grad_(above is not None)
        activations = list(variant.forward(layers, norms, start))
        gradients: list[Tensor] = []
        if above is not None:
            gradients = list(torch.autograd.grad(activations[-1], activations, above))
    return [one.detach() for one in activations], gradients
