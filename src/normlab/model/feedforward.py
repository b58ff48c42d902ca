"""The pointwise network of a block: GELU (GPT-2), ReLU (2017) or SwiGLU (Llama)."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from normlab.config.schema import FeedForwardKind, ModelConfig
from normlab.model.initialization import Linear, spread
from normlab.model.placement import Wiring, site


class FeedForward(nn.Module):
    """W₂ σ(W₁ x), or W₂ (SiLU(W₁ x) ⊙ W₃ x) when gated (2002.05202)."""

    def __init__(self, shape: ModelConfig, wiring: Wiring, output: float):
        super().__init__()
        hidden = hidden_width(shape)
        self.gated = shape.feedforward is FeedForwardKind.swiglu
        self.activation = F.relu if shape.feedforward is FeedForwardKind.relu else F.gelu
        up_std = spread(shape.init, shape.width, hidden) * wiring.init.get("up", 1.0)
        down_std = spread(shape.init, hidden, shape.width) * output * wiring.init.get("down", 1.0)
        self.up = Linear(shape.width, 2 * hidden if self.gated else hidden, shape.bias, up_std)
        self.inner_norm = site(wiring.inner, hidden)
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


def hidden_width(shape: ModelConfig) -> int:
    """`width` · `hidden_ratio`, rounded up to a multiple of hidden_multiple."""
    multiples = shape.width * shape.hidden_ratio / shape.hidden_multiple
    # 100 · 2.2 is 220.00000000000003 in floating point, and means 220.
    return math.ceil(round(multiples, 9)) * shape.hidden_multiple
