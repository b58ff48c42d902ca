"""Models of the same shape from packages that a user would pick instead, as they come.

Each function gives a model from tokens (B, T) to logits (B, T, V): causal, without dropout, with a
tied head and learned positions, where the package has them.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.bench.shapes import Shape


def x_transformers(shape: Shape, flash: bool) -> nn.Module:
    """x-transformers' decoder; `flash` is its switch for torch's fused attention."""
    package: Any = importlib.import_module("x_transformers")
    decoder = package.Decoder(
        dim=shape.width,
        depth=shape.depth,
        heads=shape.heads,
        attn_dim_head=shape.width // shape.heads,
        attn_flash=flash,
    )
    model: nn.Module = package.TransformerWrapper(
        num_tokens=shape.vocabulary,
        max_seq_len=shape.context,
        attn_layers=decoder,
        tie_embedding=True,
    )
    return model


def gpt2(shape: Shape, attention: str) -> nn.Module:
    """GPT-2 as transformers has it, with the exact GELU that the others have."""
    package: Any = importlib.import_module("transformers")
    configuration = package.GPT2Config(
        vocab_size=shape.vocabulary,
        n_positions=shape.context,
        n_embd=shape.width,
        n_layer=shape.depth,
        n_head=shape.heads,
        activation_function="gelu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation=attention,
    )
    return _Logits(package.GPT2LMHeadModel(configuration))


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(tokens).logits
        return logits


class TutorialBlock(nn.Module):
    """The block that tutorials build: nn.MultiheadAttention, nn.LayerNorm, two nn.Linear."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, width), (T, T) → (B, T, width)."""
        read = self.norm1(x)
        mixed, _ = self.attention(
            read, read, read, attn_mask=mask, need_weights=False, is_causal=True
        )
        x = x + mixed
        return x + self.ffn(self.norm2(x))  # type: ignore[no-any-return]


class Tutorial(nn.Module):
    """A Pre-LN Transformer of such blocks."""

    mask: Tensor  # (T, T), True for the future

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.ModuleList(
            TutorialBlock(shape.width, shape.heads) for _ in range(shape.depth)
        )
        self.norm = nn.LayerNorm(shape.width)
        for table in (self.embedding, self.positions):
            nn.init.normal_(table.weight, std=0.02)  # a tied head needs small embeddings
        mask = torch.ones(shape.context, shape.context, dtype=torch.bool).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 → (B, T, V) logits."""
        time = tokens.shape[1]
        x = self.embedding(tokens) + self.positions.weight[:time]
        for block in self.blocks:
            x = block(x, self.mask[:time, :time])
        return F.linear(self.norm(x), self.embedding.weight)


Build = Callable[[Shape], nn.Module]

# By the name in tables: the package that has to be there, and the model.
PEERS: dict[str, tuple[str, Build]] = {
    "x-transformers": ("x_transformers", lambda shape: x_transformers(shape, flash=False)),
    "x-transformers, flash": ("x_transformers", lambda shape: x_transformers(shape, flash=True)),
    "GPT-2, sdpa": ("transformers", lambda shape: gpt2(shape, "sdpa")),
    "GPT-2, eager": ("transformers", lambda shape: gpt2(shape, "eager")),
    "nn.MultiheadAttention": ("torch", Tutorial),
}
