"""The same quantities of a model that is not trained: one batch forwards and back."""

import torch
import torch.nn.functional as F
from torch import Tensor

from normlab.data import IGNORED
from normlab.model.gpt import GPT
from normlab.training.probes.activations import (
    Key,
    Readings,
    length,
    listening,
    plain,
    undisturbed,
)
from normlab.training.probes.parameters import gradient_norms, norm_parameters

Batch = tuple[Tensor, Tensor]  # tokens and targets, (B, T) int64


def at_initialization(model: GPT, batch: Batch) -> dict[Key, float]:
    """Everything that can be measured without an update, and the loss as (`loss`, `model`).

    Gradients are those of the mean loss of the batch, in nats per token. Dropout is off; weights,
    gradients and random numbers are left as they were.
    """
    tokens, targets = batch
    held = {name: p.grad for name, p in model.named_parameters()}
    readings: Readings = {}
    kept: list[tuple[Key, Tensor]] = []

    def keep(prefix: str, site: str, x: Tensor) -> None:
        x.retain_grad()
        kept.append(((f"{prefix}_gradient", site), x))

    model.zero_grad(set_to_none=True)
    try:
        with undisturbed(model), torch.enable_grad(), listening(model, readings, keep):
            loss = _loss(model.forward(tokens), targets)
            torch.autograd.backward(loss)
        for key, x in kept:
            if x.grad is not None:  # of a stream that nothing reads after
                readings[key] = length(x.grad)
        readings |= {**gradient_norms(model), **norm_parameters(model)[0]}
        readings["loss", "model"] = loss.detach()
    finally:
        for name, parameter in model.named_parameters():
            parameter.grad = held[name]
    return plain(readings)


@torch.no_grad()
def output_change(model: GPT, tokens: Tensor, delta: float, seed: int = 0) -> float:
    """Mean ‖Δlogits‖² of a token when every weight matrix moves by delta · its RMS · N(0, 1).

    The perturbation of 2004.08249, whose output change grows with depth: O(L) for post,
    O(log L) for pre. Tokens are (B, T). The model is left as it was.
    """
    generator = torch.Generator().manual_seed(seed)
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    before = [p.clone() for p in matrices]
    with undisturbed(model):
        still = model.forward(tokens)
        try:
            for p in matrices:
                noise = torch.randn(p.shape, generator=generator).to(p)
                p.add_(delta * p.square().mean().sqrt() * noise)
            moved = model.forward(tokens)
        finally:
            for p, old in zip(matrices, before, strict=True):
                p.copy_(old)
    return float((moved - still).square().sum(-1).mean())


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="mean"
    )
