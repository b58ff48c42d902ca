"""Half precision is widened before a norm computes.

Not for the statistic, which torch takes in fp32 anyway: on a CPU the gain's gradient would be added
up over all tokens in bf16, by LayerNorm's kernel alone, and two norms would be compared by their
rounding.
"""

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """Half precision as fp32, anything else as it is; any shape."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
