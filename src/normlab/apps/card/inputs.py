"""What a norm is shown, and how it is called so that one measurement cannot change the next."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]

# Sequences and tokens of most measurements.
BATCH, TOKENS = 4, 16


def standard(*shape: int, seed: int = 0) -> Tensor:
    """Independent N(0, 1) in float64, the same for every norm."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ordinary(width: int) -> dict[str, Tensor]:
    """Inputs that occur in a Transformer, of shape (batch, tokens, width), float64."""
    x = standard(BATCH, TOKENS, width)
    outlier = x.clone()
    outlier[..., 0] = 1000.0  # one feature that a trained model blows up in every token
    hot = torch.arange(BATCH * TOKENS).reshape(BATCH, TOKENS, 1) % width
    return {
        "N(0,1)": x,
        "N(0,1)·100": 100 * x,
        "N(0,1)·0.01": 0.01 * x,
        "N(0,1)+5": x + 5,
        "outlier": outlier,
        "one-hot": torch.zeros_like(x).scatter_(-1, hot, 1.0),
    }


def frozen(norm: nn.Module) -> Function:
    """The norm as a function: each call gets a copy, so a running statistic stays as it was."""
    return lambda x: copy.deepcopy(norm)(x)


def widened(norm: nn.Module) -> nn.Module:
    """A copy of the norm in float64."""
    return copy.deepcopy(norm).double()


def moved(norm: nn.Module) -> nn.Module:
    """The norm in float64 with every parameter moved off its start, as training would.

    What holds only for zeros and ones must not pass for a property of the norm.
    """
    other = widened(norm)
    with torch.no_grad():
        for index, parameter in enumerate(other.parameters()):
            parameter.add_(0.2 * standard(*parameter.shape, seed=1000 + index))
    return other
