"""A decoder-only Transformer whose norms stand where the placement says.

Notable: one residual equation for both sublayers (placement.py); learned or rotary positions;
grouped queries; norms on q, k and v; GELU, ReLU or SwiGLU; weights from (seed, name)
(initialization.py); no norm is known by name here.

Shapes: B batch, T time, H query heads, K key and value heads, D features a head.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from normlab.config.expressions import evaluate_expression
from normlab.config.schema import AttentionKernel, FeedForwardKind, ModelConfig, Positions
from normlab.model.initialization import Embedding, Linear, initialize_weights, projection_std
from normlab.model.placement import Placement, Residual, Wiring, build_scale, build_site

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
        reads = [projection_std(shape.init, shape.width, rows) for rows in self.sizes]
        # query_key=0 is Xiong et al.'s start (2002.04745): attention averages over the past.
        factors = [shape.init.query_key, shape.init.query_key, wiring.init.get("value", 1.0)]
        stds = [
            (n, std * factor) for n, std, factor in zip(self.sizes, reads, factors, strict=True)
        ]
        self.qkv = Linear(shape.width, inner + 2 * kv, shape.bias, stds)
        self.per_head = wiring.head_norm == "head"
        self.q_norm = build_site(wiring.q, self.head_width if self.per_head else inner)
        self.k_norm = build_site(wiring.k, self.head_width if self.per_head else kv)
        self.v_norm = build_site(wiring.v, self.head_width if self.per_head else kv)
        self.head_scale = build_scale(wiring.heads, head=(self.heads,))
        self.inner_norm = build_site(wiring.inner, inner)
        out_std = (
            projection_std(shape.init, inner, shape.width) * output * wiring.init.get("out", 1.0)
        )
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
        # Not in checkpoints: it follows from the configuration, as the tables of Rotary do.
        self.register_buffer("past", past, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) → (B, T, width)."""
        batch, time, _ = x.shape
        heads = self._compute_attention(*self.project_heads(x))
        # (B, T, D, H), then the heads side by side: (B, T, H·D).
        mixed = self.head_scale(heads.permute(1, 2, 3, 0))
        mixed = mixed.transpose(-2, -1).reshape(batch, time, -1)
        return F.dropout(self.out(self.inner_norm(mixed)), self.dropout, self.training)

    def project_heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, width) → q (H, B, T, D), k and v (K, B, T, D), normalized and rotated."""
        q, k, v = self._split_heads(self.qkv(x))
        # Rotary tables are fp32, and a norm's output may be: the products take one dtype.
        v = self._apply_head_norm(v, self.v_norm).to(v.dtype)
        q = self.rotary(self._apply_head_norm(q, self.q_norm)).to(v.dtype)
        k = self.rotary(self._apply_head_norm(k, self.k_norm)).to(v.dtype)
        return q, k, v

    def _split_heads(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """(B, T, (H + 2K)·D) → (H, B, T, D), (K, B, T, D), (K, B, T, D)."""
        if not self.per_head:
            # Over all heads together, as in OLMo 2 (2501.00656).
            q, k, v = torch.split(qkv, self.sizes, dim=-1)
            parts = self.q_norm(q), self.k_norm(k), self.v_norm(v)
            qkv = torch.cat([part.to(v.dtype) for part in parts], dim=-1)
        # Heads first: one copy for all three, which are then contiguous parts of it.
        heads = qkv.view(*qkv.shape[:2], -1, self.head_width).permute(2, 0, 1, 3).contiguous()
        return torch.split(heads, [self.heads, self.kv_heads, self.kv_heads])

    def _apply_head_norm(self, heads: Tensor, norm: nn.Module) -> Tensor:
        """The same shape, (…, D), normalized in each head, or else before."""
        normed: Tensor = norm(heads) if self.per_head else heads
        return normed

    def _compute_attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(H, B, T, D), (K, B, T, D), (K, B, T, D) → (H, B, T, D)."""
        dropout = self.dropout if self.training else 0.0
        if not self._is_explicit(q):
            grouped = self.heads != self.kv_heads
            q, k, v = (heads.transpose(0, 1) for heads in (q, k, v))  # (B, H or K, T, D)
            mixed = F.scaled_dot_product_attention(
                q, k, v, dropout_p=dropout, is_causal=True, enable_gqa=grouped
            )
            return mixed.transpose(0, 1)
        if self.heads != self.kv_heads:
            k = k.repeat_interleave(self.heads // self.kv_heads, dim=0)
            v = v.repeat_interleave(self.heads // self.kv_heads, dim=0)
        time = q.shape[-2]
        q, k, values = (heads.flatten(0, 1) for heads in (q, k, v))  # (H·B, T, D)
        past = self.past[:time, :time].to(q.dtype)  # 0 and -inf are exact in any dtype
        # One pass over the scores instead of three: scale, mask and product together.
        scores = torch.baddbmm(past, q, k.transpose(-2, -1), alpha=1 / math.sqrt(self.head_width))
        weights = F.softmax(scores, dim=-1).to(values.dtype)
        return (F.dropout(weights, dropout, self.training) @ values).view(v.shape)

    def _is_explicit(self, q: Tensor) -> bool:
        if self.kernel is AttentionKernel.auto:
            half = q.dtype in (torch.bfloat16, torch.float16)
            return half and q.device.type == "cpu" and q.shape[-2] <= EXPLICIT_CONTEXT
        return self.kernel is AttentionKernel.explicit


class Rotary(nn.Module):
    """Rotates pairs (i, i + D/2) of a head by an angle that grows with position (2104.09864)."""

    cos: Tensor  # (context, D/2)
    sin: Tensor

    def __init__(self, width: int, context: int, base: float) -> None:
        super().__init__()
        frequency = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        angle = torch.outer(torch.arange(context, dtype=torch.float64), frequency)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, T, D) → (…, T, D)."""
        time = x.shape[-2]
        cos, sin = self.cos[:time], self.sin[:time]
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class FeedForward(nn.Module):
    """W₂ σ(W₁ x), or W₂ (SiLU(W₁ x) ⊙ W₃ x) when gated (2002.05202)."""

    def __init__(self, shape: ModelConfig, wiring: Wiring, output: float):
        super().__init__()
        hidden = shape.hidden_width
        self.gated = shape.feedforward is FeedForwardKind.swiglu
        self.activation = F.relu if shape.feedforward is FeedForwardKind.relu else F.gelu
        up_std = projection_std(shape.init, shape.width, hidden) * wiring.init.get("up", 1.0)
        down_std = (
            projection_std(shape.init, hidden, shape.width) * output * wiring.init.get("down", 1.0)
        )
        self.up = Linear(shape.width, 2 * hidden if self.gated else hidden, shape.bias, up_std)
        self.inner_norm = build_site(wiring.inner, hidden)
        self.down = Linear(hidden, shape.width, shape.bias, down_std)
        self.dropout = shape.dropout

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width)."""
        if self.gated:
            gate, value = self.up(x).chunk(2, dim=-1)
            hidden = F.silu(gate) * value
        else:
            hidden = self.activation(self.up(x))
        return F.dropout(self.down(self.inner_norm(hidden)), self.dropout, self.training)


class Block(nn.Module):
    """Attention, then feed-forward, or the other way round; each a residual sublayer."""

    def __init__(self, shape: ModelConfig, placement: Placement, block: int) -> None:
        super().__init__()
        attention, feedforward = placement.blocks[block]
        residual = placement.residual or Residual
        output = output_factor(shape, placement)
        self.attention = residual(Attention(shape, attention, output), attention, shape.width)
        self.feedforward = residual(
            FeedForward(shape, feedforward, output), feedforward, shape.width
        )
        self.order = placement.order

    def forward(self, stream: Any) -> Any:
        """The stream before the block → the stream after it."""
        entered = stream
        for sublayer in self.order:
            stream = getattr(self, sublayer)(stream, entered)
        return stream


def output_factor(shape: ModelConfig, placement: Placement) -> float:
    """Factor of the standard deviation of projections that write to the stream."""
    if placement.output is not None:
        return placement.output
    return evaluate_expression(shape.init.output, L=shape.depth)


class GPT(nn.Module):
    """Tokens to the logits of the next token."""

    def __init__(self, shape: ModelConfig, placement: Placement, vocabulary: int, seed: int):
        super().__init__()
        init = shape.init
        std = init.std if init.embedding is None else init.embedding
        self.dropout = shape.dropout
        self.embedding = Embedding(vocabulary, shape.width, std)
        self.positions = (
            Embedding(shape.context, shape.width, std)
            if shape.positions is Positions.learned
            else None
        )
        # A scalar: weight decay, which falls on matrices only, leaves it alone.
        self.embedding_scale = (
            None
            if init.embedding_scale is None
            else nn.Parameter(torch.tensor(float(init.embedding_scale)))
        )
        self.embedding_norm = build_site(placement.embedding, shape.width)
        self.blocks = nn.ModuleList(Block(shape, placement, i) for i in range(shape.depth))
        self.residual = placement.residual or Residual
        self.final_norm = build_site(placement.final, shape.width)
        self.head = (
            None
            if shape.tie
            else Linear(
                shape.width, vocabulary, False, projection_std(init, shape.width, vocabulary)
            )
        )
        self.gradient_checkpointing = False
        initialize_weights(self, seed)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, time) int64 → (batch, time, vocabulary) logits; time ≤ context."""
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions.weight[: tokens.shape[1]]
        if self.embedding_scale is not None:
            x = x * self.embedding_scale
        x = self.embedding_norm(F.dropout(x, self.dropout, self.training))
        stream = self.residual.enter(x)
        for block in self.blocks:
            stream = self._run_block(block, stream)
        x = self.residual.leave(stream, self.final_norm)
        weight = self.embedding.weight if self.head is None else self.head.weight
        return F.linear(x, weight)

    def _run_block(self, block: nn.Module, stream: Any) -> Any:
        if self.gradient_checkpointing and self.training:
            return checkpoint(block, stream, use_reentrant=False)  # 1604.06174
        return block(stream)

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        length: int,
        context: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Continue (batch, time) by `length` sampled tokens → (batch, time + length)."""
        for _ in range(length):
            logits = self(tokens[:, -context:])[:, -1].float() / temperature
            if top_k is not None:
                least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
                logits = logits.masked_fill(logits < least, -torch.inf)
            sample = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            tokens = torch.cat((tokens, sample), dim=1)
        return tokens


def count_parameters(model: nn.Module) -> int:
    """Number of trainable numbers; a tied matrix counts once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
