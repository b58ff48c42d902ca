"""A decoder-only Transformer whose norms stand where the placement says.

Notable: one residual equation for both sublayers (placement.py); learned or rotary positions;
GELU, ReLU or SwiGLU; grouped queries; weights from (seed, name) (initialization.py); no norm is
known by name here.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from normlab.config.expressions import evaluate
from normlab.config.schema import ModelConfig, Positions
from normlab.model.attention import Attention
from normlab.model.feedforward import FeedForward
from normlab.model.initialization import Embedding, Linear, initialize, spread
from normlab.model.placement import Placement, Residual, site


class Block(nn.Module):
    """Attention, then feed-forward, each a residual sublayer."""

    def __init__(self, shape: ModelConfig, placement: Placement, block: int) -> None:
        super().__init__()
        attention, feedforward = placement.blocks[block]
        residual = placement.residual or Residual
        output = output_factor(shape, placement)
        self.attention = residual(Attention(shape, attention, output), attention, shape.width)
        self.feedforward = residual(
            FeedForward(shape, feedforward, output), feedforward, shape.width
        )

    def forward(self, stream: Any) -> Any:
        """The stream before the block → the stream after it."""
        return self.feedforward(self.attention(stream, stream), stream)


def output_factor(shape: ModelConfig, placement: Placement) -> float:
    """Factor of the standard deviation of projections that write to the stream."""
    if placement.output is not None:
        return placement.output
    return evaluate(shape.init.output, L=shape.depth)


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
        self.embedding_norm = site(placement.embedding, shape.width)
        self.blocks = nn.ModuleList(Block(shape, placement, i) for i in range(shape.depth))
        self.residual = placement.residual or Residual
        self.final_norm = site(placement.final, shape.width)
        self.head = (
            None
            if shape.tie
            else Linear(shape.width, vocabulary, False, spread(init, shape.width, vocabulary))
        )
        self.gradient_checkpointing = False
        initialize(self, seed)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, time) int64 → (batch, time, vocabulary) logits; time ≤ context."""
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions.weight[: tokens.shape[1]]
        x = self.embedding_norm(F.dropout(x, self.dropout, self.training))
        stream = self.residual.enter(x)
        for block in self.blocks:
            stream = self._through(block, stream)
        x = self.residual.leave(stream, self.final_norm)
        weight = self.embedding.weight if self.head is None else self.head.weight
        return F.linear(x, weight)

    def _through(self, block: nn.Module, stream: Any) -> Any:
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
            drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            tokens = torch.cat((tokens, drawn), dim=1)
        return tokens


def count_parameters(model: nn.Module) -> int:
    """Number of trainable numbers; a tied matrix counts once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
