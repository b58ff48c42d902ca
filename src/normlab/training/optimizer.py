"""AdamW whose first step does not load torch's compiler.

Torch's optimizers tell the compiler, in every call, what of them it must not compile, and load it
to tell it so: a second before the first step. What they wrap is the same method without that.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import AdamW


def _plain(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method that torch has wrapped; another torch may not have."""
    return getattr(method, "__wrapped__", method)


class PlainAdamW(AdamW):
    """`torch.optim.AdamW`, to the bit; only torch.compile of the optimizer itself is not for it."""

    add_param_group = _plain(AdamW.add_param_group)
    zero_grad = _plain(AdamW.zero_grad)
    state_dict = _plain(AdamW.state_dict)
    load_state_dict = _plain(AdamW.load_state_dict)
    step = torch.no_grad()(_plain(AdamW.step))
