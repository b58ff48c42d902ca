"""Every token changed in turn, by a lot; the outputs before it must stay as they are."""

from collections.abc import Callable

from torch import Tensor


def sees_future(function: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether the output of any token depends on a later token of its sequence."""
    before = function(x)
    for token in range(1, x.shape[1]):
        changed = x.clone()
        changed[0, token] = -100 * changed[0, token] + 3
        difference = function(changed)[0, :token] - before[0, :token]
        if difference.abs().max() > 1e-6:
            return True
    return False
