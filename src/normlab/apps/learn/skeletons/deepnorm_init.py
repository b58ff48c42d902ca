"""Exercise deepnorm_init: the start of a DeepNorm model (Wang et al. 2022, arXiv 2203.00555).

DeepNorm computes x ← N(α · x + f(x)), and multiplies some matrices by β when they are initialized.
For a decoder of L blocks without an encoder

    α = (2L)^(1/4),   β = (8L)^(−1/4)

β multiplies the value and output projections of attention and both matrices of the feed-forward
network. The query and key projections are not scaled.

Check with: normlab-learn check outputs/learn/deepnorm_init.py
"""

import torch
from torch import Tensor


def deepnorm_constants(depth: int) -> tuple[float, float]:
    """α and β of a decoder of `depth` blocks."""
    raise NotImplementedError


def scale_weights(weights: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The matrices as DeepNorm begins, in a new dict.

    weights has the keys query, key, value, out (of attention), up and down (of the feed-forward
    network).
    """
    raise NotImplementedError
