"""Attention weights with RMSNorm on the queries and keys of each head."""

import torch
from torch import Tensor


def attention_weights(q: Tensor, k: Tensor, q_gain: Tensor, k_gain: Tensor, eps: float) -> Tensor:
    """The attention weights (batch, heads, time, time); each row adds up to 1."""
    q = q * torch.rsqrt(q.pow(2).mean(-1, keepdim=True) + eps) * q_gain
    k = k * torch.rsqrt(k.pow(2).mean(-1, keepdim=True) + eps) * k_gain
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, float("-inf")).softmax(-1)
