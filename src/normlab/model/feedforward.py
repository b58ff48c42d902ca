"""The pointwise network of a block: GELU (GPT-2) or SwiGLU (Llama)."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from normlab.config.schema import FeedForwardKind, ModelConfig
from normlab.model.initialization import Linear
from normlab.model.placement import Placement, site


class FeedForward(nn.Module):
    """W₂ σ(W₁ x), or W₂ (SiLU(W₁ x) ⊙ W₃ x) when gated (2002.05202)."""

    def __init__(self, shape: ModelConfig, placement: Placement, std: float, out_std: float):
        super().__init__()
        hidden = hidden_width(shape)
        self.gated = shape.feedforward is FeedForwardKind.swiglu
        self.up = Linear(shape.width, 2 * hidden if self.gated else hidden, shape.bias, std)
        self.inner_norm = site(placement.inner, hidden)
        self.down = Linear(hidden, shape.width, shape.bias, out_std)
        self.dropout = shape.dropout

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width)."""
        if self.gated:
            gate, value = self.up(x).chunk(2, dim=-1)
            hidden = F.silu(gate) * value
        else:
            hidden = F.gelu(self.up(x))
        return F.dropout(self.down(self.inner_norm(hidden)), self.dropout, self.training)


def hidden_width(shape: ModelConfig) -> int:
    """`width` · `hidden_ratio`, rounded up to a multiple of hidden_multiple."""
    multiples = shape.width * shape.hidden_ratio / shape.hidden_multiple
    # 100 · 2.2 is 220.00000000000003 in floating point, and means 220.
    return math.ceil(round(multiples, 9)) * shape.hidden_multiple
