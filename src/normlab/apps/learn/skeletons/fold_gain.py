"""Exercise fold_gain: a trained norm's gain and bias, folded into the matrix that follows.

A norm gives gain · n + bias, where n is the normalized token; a linear layer with the matrix W
follows. Find W′ and b′ such that for every n

    W (gain · n + bias) = W′ n + b′

Then the norm needs no parameters any more, and the model computes the same.

Check with: normlab-learn check outputs/learn/fold_gain.py
"""

import torch
from torch import Tensor


def fold_gain(gain: Tensor, bias: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The new weight (rows, width) and the new bias (rows,).

    gain and bias are (width,); weight is (rows, width), as in torch.nn.functional.linear.
    """
    raise NotImplementedError
