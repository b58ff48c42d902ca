"""What is measured of weights: their gradients, their updates, and a norm's own parameters."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from normlab.archive import tags
from normlab.model.gpt import GPT
from normlab.training.probes import sites
from normlab.training.probes.activations import Readings

Weights = dict[str, list[Tensor]]  # by site

# The usual names of a norm's gain.
_SAME = {"weight": "gain", "gamma": "gain", "g": "gain"}


def gradient_norms(model: GPT) -> Readings:
    """The length of the gradient that each site's weights hold now."""
    gradients = {
        site: [p.grad for p in some if p.grad is not None]
        for site, some in sites.weights(model).items()
    }
    return {(tags.PARAMETER_GRADIENT, site): x for site, x in _lengths(gradients).items()}


def copied(model: GPT) -> Weights:
    """A copy of each site's weights."""
    return {site: [p.detach().clone() for p in some] for site, some in sites.weights(model).items()}


@torch.no_grad()
def update_ratios(model: GPT, before: Weights) -> Readings:
    """The length of what was added to each site's weights since `before`, over their length."""
    moved = {
        site: torch._foreach_sub(list(some), before[site])
        for site, some in sites.weights(model).items()
    }
    own, change = _lengths(before), _lengths(moved)
    return {(tags.UPDATE_RATIO, site): change[site] / own[site] for site in own}


@torch.no_grad()
def norm_parameters(model: GPT) -> tuple[Readings, dict[tuple[str, str], Tensor]]:
    """Of every norm's parameters mean and spread, or the value of a single number; and the several.

    The second is by (`gain_distribution`, site), for histograms.
    """
    readings: Readings = {}
    several: dict[tuple[str, str], Tensor] = {}
    for site, norm in sites.norms(model):
        for own, parameter in norm.named_parameters():
            name, values = _SAME.get(own, own).replace(".", "_"), parameter.detach().float().clone()
            if values.numel() == 1:
                readings[name, site] = values.squeeze()
                continue
            readings[f"{name}_mean", site] = values.mean()
            readings[f"{name}_std", site] = values.std(correction=0)
            several[f"{name}_distribution", site] = values
    return readings, several


def _lengths(by_site: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    """√Σx² over the tensors of each site, in one call for all."""
    every = [x for some in by_site.values() for x in some]
    if not every:
        return {}
    squares = torch.stack(torch._foreach_norm(every)).float().square()
    parts = torch.split(squares, [len(some) for some in by_site.values()])
    return {
        site: part.sum().sqrt() for site, part in zip(by_site, parts, strict=True) if part.numel()
    }
