"""Exercise qk_norm: attention weights with QK-norm (Henry et al. 2020, arXiv 2010.04245).

Queries and keys are normalized before their product, so the size of the logits is bounded by the
gains. Here, as in several models of today, by RMSNorm over the features of each head:

    weights = softmax( N(q) N(k)ᵀ / √D ),   N(z) = z / √(mean(z²) + ε) · gain

D is the number of features of a head. The model is causal: a token attends to itself and to
earlier tokens only.

Check with: normlab-learn check outputs/learn/qk_norm.py
"""

import torch
from torch import Tensor


def attention_weights(q: Tensor, k: Tensor, q_gain: Tensor, k_gain: Tensor, eps: float) -> Tensor:
    """The attention weights (batch, heads, time, time); each row adds up to 1.

    q and k are (batch, heads, time, D), the gains (D,), the same for all heads.
    """
    raise NotImplementedError
