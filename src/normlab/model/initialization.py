"""Every random weight of the model is drawn here, from (seed, parameter name) alone.

So two models that differ in a norm or a placement start from the same matrices.

| parameter                                | drawn from                              |
|------------------------------------------|-----------------------------------------|
| embeddings, positions, projections       | N(0, std²)                              |
| projections that write to the stream     | N(0, (std · output)²), GPT-2: 1/√(2L)   |
| those that a placement scales (DeepNorm) | N(0, (std · its factor)²), same draw    |
| biases                                   | 0                                       |
| with `scheme: xavier`, projections       | √(2 / (fan in + fan out)) for std       |
| gains and biases of norms                | not drawn here: the norm sets them     |
"""

import hashlib
import math

import torch
from torch import nn

from normlab.config.schema import InitConfig, InitScheme


def projection_std(init: InitConfig, fan_in: int, fan_out: int) -> float:
    """The standard deviation of a projection of this shape (xavier: Glorot and Bengio, 2010)."""
    if init.scheme is InitScheme.xavier:
        return math.sqrt(2 / (fan_in + fan_out))
    return init.std


class Linear(nn.Linear):
    """A projection that is drawn by `initialize_weights` with its own standard deviation.

    `std` is one number, or (rows, number) for each part of the output where parts differ.
    """

    def __init__(
        self, fan_in: int, fan_out: int, bias: bool, std: float | list[tuple[int, float]]
    ) -> None:
        self.std = [(fan_out, std)] if isinstance(std, int | float) else std
        super().__init__(fan_in, fan_out, bias=bias)

    def reset_parameters(self) -> None:
        """Nothing yet: `initialize_weights` knows the seed and the name."""


class Embedding(nn.Embedding):
    """A table of vectors that is drawn by `initialize_weights` with its own standard deviation."""

    def __init__(self, rows: int, width: int, std: float) -> None:
        self.std = [(rows, std)]
        super().__init__(rows, width)

    def reset_parameters(self) -> None:
        """Nothing yet: `initialize_weights` knows the seed and the name."""


@torch.no_grad()
def initialize_weights(model: nn.Module, seed: int) -> None:
    """Draw all projections and embeddings of `model`; leave every other parameter as it is."""
    for name, module in model.named_modules():
        if not isinstance(module, Linear | Embedding):
            continue
        weight = module.weight
        # Not hash(), which Python salts anew in every process.
        digest = hashlib.blake2b(f"{seed}/{name}.weight".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))
        weight.copy_(torch.randn(weight.shape, generator=generator))
        # Scaled after the draw: models that differ in a standard deviation share the draw.
        parts = torch.split(weight, [rows for rows, _ in module.std])
        for part, (_, std) in zip(parts, module.std, strict=True):
            part *= std
        if isinstance(module, Linear) and module.bias is not None:
            module.bias.zero_()
