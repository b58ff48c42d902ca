"""Exercise preln_block: a stack of Pre-LN blocks (Xiong et al. 2020, arXiv 2002.04745).

A block has two sublayers, attention and then the feed-forward network. The stream x goes through
each as

    x ← x + f(N(x))

and after the last block a final norm N follows. Every N is a norm of its own. Draw the flow on
paper before you write it: on the way from the input to the output by the additions alone, no norm
may stand before the final one.

Check with: normlab-learn check outputs/learn/preln_block.py
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class PreLNStack(nn.Module):
    """Blocks of x ← x + f(N(x)), then a final norm."""

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
