"""Causal self-attention: grouped queries, rotary positions, norms on q and k, all optional.

Shapes: B batch, T time, H query heads, K key and value heads, D features a head.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.config.schema import AttentionKernel, ModelConfig, Positions
from normlab.model.initialization import Linear, spread
from normlab.model.placement import Wiring, scaled, site

# Measured on a CPU (docs/log.md): in half precision the explicit product is four times faster than
# SDPA at a context of 64, even at 512 and slower at 1024; in fp32 SDPA is never slower.
EXPLICIT_CONTEXT = 512


class Attention(nn.Module):
    """softmax(q·kᵀ/√D) v over the past, then a projection back to the width (1706.03762)."""

    past: Tensor  # (T, T), T the longest explicit context: 0 for the past, -inf for the future

    def __init__(self, shape: ModelConfig, wiring: Wiring, output: float):
        super().__init__()
        self.heads = shape.heads
        self.kv_heads = shape.kv_heads or shape.heads
        self.head_width = shape.width // shape.heads
        inner = self.heads * self.head_width
        kv = self.kv_heads * self.head_width
        self.sizes = [inner, kv, kv]
        reads = [spread(shape.init, shape.width, rows) for rows in self.sizes]
        factors = [shape.init.query_key, shape.init.query_key, wiring.init.get("value", 1.0)]
        stds = [(n, std * by) for n, std, by in zip(self.sizes, reads, factors, strict=True)]
        self.qkv = Linear(shape.width, inner + 2 * kv, shape.bias, stds)
        self.per_head = wiring.head_norm == "head"
        self.q_norm = site(wiring.q, self.head_width if self.per_head else inner)
        self.k_norm = site(wiring.k, self.head_width if self.per_head else kv)
        self.v_norm = site(wiring.v, self.head_width if self.per_head else kv)
        self.head_scale = scaled(wiring.heads, head=(self.heads, 1))
        self.inner_norm = site(wiring.inner, inner)
        out_std = spread(shape.init, inner, shape.width) * output * wiring.init.get("out", 1.0)
        self.out = Linear(inner, shape.width, shape.bias, out_std)
        self.rotary = (
            Rotary(self.head_width, shape.context, shape.rotary_base)
            if shape.positions is Positions.rotary
            else nn.Identity()
        )
        self.dropout = shape.dropout
        self.kernel = shape.attention
        explicit = self.kernel is AttentionKernel.explicit
        longest = shape.context if explicit else min(shape.context, EXPLICIT_CONTEXT)
        past = torch.full((longest, longest), -torch.inf).triu(1)
        self.register_buffer("past", past, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) → (B, T, width)."""
        batch, time, _ = x.shape
        mixed = self.head_scale(self._attend(*self.project(x)).permute(1, 2, 0, 3))
        mixed = mixed.reshape(batch, time, -1)
        return F.dropout(self.out(self.inner_norm(mixed)), self.dropout, self.training)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, width) → q (H, B, T, D), k and v (K, B, T, D), normalised and turned."""
        q, k, v = self._heads(self.qkv(x))
        v = self._normed(v, self.v_norm).to(v.dtype)
        q = self.rotary(self._normed(q, self.q_norm)).to(v.dtype)
        k = self.rotary(self._normed(k, self.k_norm)).to(v.dtype)
        return q, k, v

    def _heads(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """(B, T, (H + 2K)·D) → (H, B, T, D), (K, B, T, D), (K, B, T, D)."""
        if not self.per_head:
            q, k, v = torch.split(qkv, self.sizes, dim=-1)
            parts = self.q_norm(q), self.k_norm(k), self.v_norm(v)
            qkv = torch.cat([part.to(v.dtype) for part in parts], dim=-1)
        # Heads first: one copy for all three, which are then contiguous parts of it.
        heads = qkv.view(*qkv.shape[:2], -1, self.head_width).permute(2, 0, 1, 3).contiguous()
        return torch.split(heads, [self.heads, self.kv_heads, self.kv_heads])

    def _normed(self, heads: Tensor, norm: nn.Module) -> Tensor:
        """The same shape, (…, D), normalised in each head, or else before."""
        normed: Tensor = norm(heads) if self.per_head else heads
        return normed

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(H, B, T, D), (K, B, T, D), (K, B, T, D) → (H, B, T, D)."""
        dropout = self.dropout if self.training else 0.0
        if not self._explicit(q):
            grouped = self.heads != self.kv_heads
            q, k, v = (heads.transpose(0, 1) for heads in (q, k, v))
            mixed = F.scaled_dot_product_attention(
                q, k, v, dropout_p=dropout, is_causal=True, enable_gqa=grouped
            )
            return mixed.transpose(0, 1)
        if self.heads != self.kv_heads:
            k = k.repeat_interleave(self.heads // self.kv_heads, dim=0)
            v = v.repeat_interleave(self.heads // self.kv_heads, dim=0)
        time = q.shape[-2]
        q, k, values = (heads.flatten(0, 1) for heads in (q, k, v))
        past = self.past[:time, :time].to(q.dtype)  # 0 and -inf are exact in any dtype
        # One pass over the scores instead of three: scale, mask and product together.
        scores = torch.baddbmm(past, q, k.transpose(-2, -1), alpha=1 / math.sqrt(self.head_width))
        weights = F.softmax(scores, dim=-1).to(values.dtype)
        return (F.dropout(weights, dropout, self.training) @ values).view(v.shape)

    def _explicit(self, q: Tensor) -> bool:
        if self.kernel is AttentionKernel.auto:
            half = q.dtype in (torch.bfloat16, torch.float16)
            return half and q.device.type == "cpu" and q.shape[-2] <= EXPLICIT_CONTEXT
        return self.kernel is AttentionKernel.explicit


class Rotary(nn.Module):
    """Turns the pairs (i, i + D/2) of a head by an angle that grows with position (2104.09864)."""

    cos: Tensor  # (context, D/2)
    sin: Tensor

    def __init__(self, width: int, context: int, base: float) -> None:
        super().__init__()
        frequency = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        angle = torch.outer(torch.arange(context, dtype=torch.float64), frequency)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, T, D) → (B, H, T, D)."""
        time = x.shape[-2]
        cos, sin = self.cos[:time], self.sin[:time]
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
