"""Exercise postln_block: a stack of Post-LN blocks (Vaswani et al. 2017, arXiv 1706.03762).

A block has two sublayers, attention and then the feed-forward network. The stream x goes through
each as

    x ← N(x + f(x))

The last sublayer ends with a norm already, so there is no final norm. Every N is a norm of its own.

Check with: normlab-learn check outputs/learn/postln_block.py
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class PostLNStack(nn.Module):
    """Blocks of x ← N(x + f(x))."""

    def __init__(
        self,
        width: int,
        blocks: Sequence[tuple[nn.Module, nn.Module]],
        build_norm: Callable[[int], nn.Module],
    ) -> None:
        """Blocks are (attention, feed-forward network); build_norm(width) gives a new norm."""
        super().__init__()
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) → (batch, time, width)."""
        raise NotImplementedError
