"""The model sizes that are timed, and models of these sizes from the packages a user might pick.

A peer goes from tokens (B, T) to logits (B, T, V): causal, without dropout, with a tied head and
learned positions where the package has them.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MatrixProduct(NamedTuple):
    """`repeats` times (batch, rows, inner) @ (batch, inner, columns)."""

    repeats: int
    batch: int
    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        """Forward and backward, which is two more products of the same size."""
        # Multiply and add for each row, inner index and column, in three products of the same size.
        return 6 * self.repeats * self.batch * self.rows * self.inner * self.columns


@dataclass(frozen=True)
class Shape:
    """A decoder-only Transformer with a feed-forward network four times as wide, and its batch."""

    name: str
    depth: int
    heads: int
    width: int
    context: int
    batch: int
    vocabulary: int = 65
    steps: int = 1  # in a block

    @property
    def tokens(self) -> int:
        """Of a batch."""
        return self.batch * self.context

    @property
    def overrides(self) -> list[str]:
        """This size in normlab's configuration, with tokens that cost nothing to draw."""
        return [
            *("model=nanogpt", "trainer.device=cpu", "data=synthetic", "data.source=random"),
            *(f"model.{key}={getattr(self, key)}" for key in ("depth", "heads", "width")),
            f"model.context={self.context}",
            f"data.vocabulary={self.vocabulary}",
            f"data.batch_size={self.batch}",
            "data.validation_windows=16",
        ]

    def list_products(self) -> list[MatrixProduct]:
        """The matrix products of a step forward; attention over the full square."""
        attention, head = self.batch * self.heads, self.width // self.heads
        return [
            # Queries, keys and values; scores; weights by values; the output projection.
            MatrixProduct(self.depth, 1, self.tokens, self.width, 3 * self.width),
            MatrixProduct(self.depth, attention, self.context, head, self.context),
            MatrixProduct(self.depth, attention, self.context, self.context, head),
            MatrixProduct(self.depth, 1, self.tokens, self.width, self.width),
            # The feed-forward network's two matrices, and the head.
            MatrixProduct(self.depth, 1, self.tokens, self.width, 4 * self.width),
            MatrixProduct(self.depth, 1, self.tokens, 4 * self.width, self.width),
            MatrixProduct(1, 1, self.tokens, self.width, self.vocabulary),
        ]


NANO = Shape("nano", depth=4, heads=4, width=128, context=64, batch=12, steps=20)
RECIPE = Shape("recipe", depth=6, heads=6, width=384, context=256, batch=16)
# For tests: everything can be tried in seconds.
TINY = Shape("tiny", depth=2, heads=2, width=32, context=16, batch=4, steps=4)
SHAPES = {shape.name: shape for shape in (NANO, RECIPE, TINY)}


def build_x_transformers(shape: Shape, flash: bool) -> nn.Module:
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


class GPT2Logits(nn.Module):
    """GPT-2 of transformers, with the exact GELU that the other models have."""

    def __init__(self, shape: Shape, attention: str) -> None:
        super().__init__()
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
        self.model = package.GPT2LMHeadModel(configuration)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 → (B, T, V) logits."""
        logits: Tensor = self.model(tokens).logits
        return logits


class TutorialGPT(nn.Module):
    """The Pre-LN Transformer that tutorials build from torch's own modules."""

    mask: Tensor  # (T, T), True for the future

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width)
        for table in (self.embedding, self.positions):
            nn.init.normal_(table.weight, std=0.02)  # a tied head needs small embeddings
        # torch's layer of MultiheadAttention, LayerNorm and Linear; norm_first is Pre-LN.
        layer = nn.TransformerEncoderLayer(
            shape.width,
            shape.heads,
            dim_feedforward=4 * shape.width,
            dropout=0.0,
            activation=F.gelu,
            batch_first=True,
            norm_first=True,
        )
        # With norm_first torch has no use for nested tensors, and warns where they are allowed.
        self.blocks = nn.TransformerEncoder(
            layer, shape.depth, nn.LayerNorm(shape.width), enable_nested_tensor=False
        )
        mask = torch.ones(shape.context, shape.context, dtype=torch.bool).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 → (B, T, V) logits."""
        time = tokens.shape[1]
        x = self.embedding(tokens) + self.positions.weight[:time]
        # torch's is_causal is a hint, and asks for the mask as well.
        x = self.blocks(x, mask=self.mask[:time, :time], is_causal=True)
        return F.linear(x, self.embedding.weight)


# By the name in tables: the package it needs, and the model.
PEERS: dict[str, tuple[str, Callable[[Shape], nn.Module]]] = {
    "x-transformers": ("x_transformers", lambda shape: build_x_transformers(shape, flash=False)),
    "x-transformers, flash": (
        "x_transformers",
        lambda shape: build_x_transformers(shape, flash=True),
    ),
    "GPT-2, sdpa": ("transformers", lambda shape: GPT2Logits(shape, "sdpa")),
    "GPT-2, eager": ("transformers", lambda shape: GPT2Logits(shape, "eager")),
    "nn.MultiheadAttention": ("torch", TutorialGPT),
}


def is_installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    return find_spec(package) is not None
