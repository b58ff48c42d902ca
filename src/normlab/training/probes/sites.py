"""The places in a model where something is measured, by name, in the order of depth."""

from collections.abc import Iterator
from typing import cast

from torch import nn

from normlab.model.gpt import GPT
from normlab.model.placement import Residual

# Attributes that hold a norm, or the identity, in the model and in a residual sublayer.
_ENDS = {"embedding_norm": "embedding", "final_norm": "final"}
_SLOTS = ("input", "output", "stream")
_INNER = {"q_norm": "q", "k_norm": "k", "v_norm": "v", "inner_norm": "inner"}


def blocks(model: GPT) -> Iterator[tuple[str, nn.Module]]:
    """Every block: the first is `block_01`."""
    for number, block in enumerate(model.blocks, 1):
        yield f"block_{number:02d}", block


def residuals(model: GPT) -> Iterator[tuple[str, Residual]]:
    """Every residual sublayer, as `block_01/attention` and `block_01/feedforward`."""
    for place, block in blocks(model):
        for name in ("attention", "feedforward"):
            yield f"{place}/{name}", cast(Residual, getattr(block, name))


def norms(model: GPT) -> Iterator[tuple[str, nn.Module]]:
    """Every norm: `embedding`, `block_01/attention/input`, `…/q`, …, `final`."""
    for attribute, site in _ENDS.items():
        if site == "final":
            for place, residual in residuals(model):
                yield from _around(place, residual)
        if not isinstance(norm := getattr(model, attribute), nn.Identity):
            yield site, norm


def _around(place: str, residual: Residual) -> Iterator[tuple[str, nn.Module]]:
    slots: list[tuple[str, nn.Module, str]] = [(slot, residual, slot) for slot in _SLOTS]
    slots[1:1] = [(slot, residual.sublayer, name) for name, slot in _INNER.items()]
    for slot, owner, attribute in slots:
        norm = getattr(owner, attribute, None)
        if isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity):
            yield f"{place}/{slot}", norm


def weights(model: GPT) -> dict[str, list[nn.Parameter]]:
    """The trained weights of each sublayer, of the embeddings, and of a head of its own."""
    ends = [model.embedding, *([] if model.positions is None else [model.positions])]
    found = {"embedding": [p for end in ends for p in end.parameters()]}
    for site, residual in residuals(model):
        found[site] = list(residual.sublayer.parameters())
    if model.head is not None:
        found["head"] = list(model.head.parameters())
    return {
        site: kept for site, some in found.items() if (kept := [p for p in some if p.requires_grad])
    }
