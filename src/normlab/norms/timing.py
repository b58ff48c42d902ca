"""How long a norm takes: the median call of a block of calls, forward or with backward.

What is compared is timed in turn, a block each, so that what slows one slows the others.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

Call = Callable[[], object]

# A block is so many calls, in about so long, and its time that of the median call: what interrupts
# one of them is not the norm's.
_BLOCK_SECONDS = 0.006
_FEWEST_CALLS, _MOST_CALLS = 3, 51


def build_gradient_call(
    function: Callable[[Tensor], Tensor], leaves: list[Tensor], x: Tensor, above: Tensor
) -> Call:
    """Forward, and the gradients of `leaves` from `above`, the gradient of the output."""

    def call_gradient() -> None:
        # A norm that leaves x as it is, or casts it, has to be given a gradient it can take.
        y = function(x)
        torch.autograd.grad(y, leaves, above.to(y.dtype), allow_unused=True)

    return call_gradient


def count_calls_per_block(call: Call) -> int:
    """How often a block repeats the call; it has been called before."""
    call()
    seconds = median_milliseconds(call, 1) / 1000
    return max(_FEWEST_CALLS, min(_MOST_CALLS, round(_BLOCK_SECONDS / seconds)))


def median_milliseconds(call: Call, calls: int) -> float:
    """The median over so many calls."""
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)
