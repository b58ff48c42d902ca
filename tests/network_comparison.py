"""Two networks held to each other: what they give, and how it changes with the same tensors.

An oracle is called with our parameters under its own names, so that the gradients of both are
taken with respect to the same tensors, whatever layout the oracle keeps them in.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close


def perturb_parameters(module: nn.Module, by: float = 0.3) -> nn.Module:
    """The module with every parameter moved away from its start, where errors hide."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator).to(parameter)
    return module


def call_with_weights(oracle: nn.Module, weights: dict[str, Tensor], *inputs: Any) -> Any:
    """What the oracle gives with these weights; every one of its parameters has to be among them.

    Biases may be missing where an oracle always has them: they are 0.
    """
    own = dict(oracle.named_parameters())
    zeros = {n: torch.zeros_like(p) for n, p in own.items() if n.endswith("bias")}
    state = {**dict(oracle.named_buffers()), **zeros, **weights}
    return functional_call(oracle, state, inputs, strict=True)


def assert_same_function(
    ours: Tensor, theirs: Tensor, wanted: Sequence[Tensor], tolerance: float
) -> None:
    """Outputs and gradients in `wanted` agree, each relative to its own largest number."""
    generator = torch.Generator().manual_seed(2)
    weighting = torch.randn(ours.shape, generator=generator).to(ours)
    mine, other = (torch.autograd.grad((y * weighting).sum(), wanted) for y in (ours, theirs))
    for a, b in zip((ours, *mine), (theirs, *other), strict=True):
        assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.detach().abs().max()))
