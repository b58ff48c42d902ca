"""The residual stream of a Transformer at initialisation, block by block.

What is measured of a network is behind one function, `streams`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from normlab.apps.experiments.profile import Gathered
from normlab.apps.experiments.record import Profile
from normlab.archive.identity import said
from normlab.config.schema import AttentionKernel
from normlab.config.spec import RunSpec
from normlab.training.build import build_model
from normlab.training.probes import collect_readings, evaluation_mode

# Tokens are drawn evenly from so many, and every one is to be guessed from those before it.
VOCABULARY, BATCH = 64, 4


def profiles(
    specs: Sequence[RunSpec],
    init: str,
    std: float,
    output: Any,
    seeds: Sequence[int],
    each: Callable[[str], None],
) -> list[Profile]:
    """The stream of every network; weights N(0, std²), those that write to it × output."""
    found = []
    for spec in specs:
        kept = Gathered()
        norm, placement = spec.choices["norm"], spec.choices["placement"]
        name = " · ".join(said(norm, placement))
        for seed in seeds:
            each(f"Transformer, {name}, {init}, seed {seed}")
            kept.add(*streams(with_init(spec, std, output), seed))
        found.append(kept.profile(name, norm, placement, init, spec.config.model.width))
    return found


def with_init(spec: RunSpec, std: float, output: Any) -> RunSpec:
    """The same network, drawn otherwise."""
    model = spec.config.model
    init = replace(model.init, std=std, output=output)
    # torch's fused attention gives NaN backwards where logits are huge, as without a norm.
    drawn = replace(model, init=init, attention=AttentionKernel.explicit)
    return replace(spec, config=replace(spec.config, model=drawn))


def streams(spec: RunSpec, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """The stream before the first block and after each, (tokens, width), and the loss's gradients.

    The loss is the cross-entropy of random tokens, in nats.
    """
    model = build_model(replace(spec.config, seed=seed), VOCABULARY)
    kept: list[Tensor] = []

    def keep(prefix: str, site: str, x: Tensor) -> None:
        # Of two streams, the one that is normalised as it goes.
        if prefix == "stream" and not site.endswith("/attention"):
            kept.append(x)

    shape = BATCH, spec.config.model.context + 1
    tokens = torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))
    with evaluation_mode(model), collect_readings(model, {}, keep):
        logits = model.forward(tokens[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    gradients = torch.autograd.grad(loss, kept, allow_unused=True, materialize_grads=True)
    return [one.detach().flatten(0, 1) for one in kept], [one.flatten(0, 1) for one in gradients]
