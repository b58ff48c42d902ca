"""Exercise find_the_leak: a test that tells whether a function lets a token see a later one.

A language model is trained to predict the next token. If a norm takes statistics over time, a token
sees the tokens that it has to predict, and the loss becomes better than it can be. Write the test
that finds such a leak. You may call the function as often as you like; you cannot read its code.

Earlier tokens may be used: that is no leak. The answer for LayerNorm is False.

Check with: normlab-learn check outputs/learn/find_the_leak.py
"""

from collections.abc import Callable

import torch
from torch import Tensor


def sees_future(function: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether the output of any token depends on a later token of its sequence.

    x is an input (batch, time, width), and function(x) has the same shape.
    """
    raise NotImplementedError
