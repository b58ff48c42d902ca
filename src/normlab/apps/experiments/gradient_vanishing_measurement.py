"""Measures signal, information and gradient by depth at initialization.

Notable:
- Stacks of Linear and ReLU. One draw of PyTorch's own weights a seed serves every variant, so that
  two differ in what their names say and in nothing else. In float64: what is left of the input deep
  down is less than fp32 can tell from nothing.
- The residual stream of Transformers, block by block, by norm, placement and initialization.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.apps.experiments.gradient_vanishing import (
    DepthProfile,
    GradientVanishing,
    GradientVanishingSettings,
)
from normlab.archive.record import arm_name_parts
from normlab.archive.versioned_json import finite_or_none
from normlab.config.run_spec import RunSpec
from normlab.config.schema import AttentionKernel
from normlab.norms import norm_factory
from normlab.training.build import build_model, check_networks
from normlab.training.probes import collect_readings, evaluation_mode

ReportStep = Callable[[str], None]  # takes a few words about the step that begins

# n·Var W and n·Var B of a layer: nn.Linear draws both with variance 1/3n; the weights of
# 1502.01852 have 2/n.
_VARIANCES = {"PyTorch": (1 / 3, 1 / 3), "no biases": (1 / 3, 0.0), "Kaiming": (2.0, 0.0)}
# Tokens are drawn evenly from so many, and each is to be guessed from those before it.
_VOCABULARY, _BATCH = 64, 4


@dataclass(frozen=True)
class StackVariant:
    """A stack: how it is initialized, and the norm before each ReLU."""

    name: str
    norm: str
    init: str  # a key of _VARIANCES
    build_norm: Callable[[int], nn.Module] | None = None


PLAIN_STACK = StackVariant("no norm", "none", "PyTorch")
STACKS_WITHOUT_NORM = (
    PLAIN_STACK,
    StackVariant("without biases", "none", "no biases"),
    StackVariant("Kaiming", "none", "Kaiming"),
)


def measure(settings: GradientVanishingSettings, report_step: ReportStep) -> GradientVanishing:
    """Measure; `report_step` is called `settings.steps` times.

    Raises:
        ConfigError: a norm cannot be built, or cannot stand in a causal model.
    """
    check_networks(settings.specs)
    variants = [*STACKS_WITHOUT_NORM]
    for name, config in settings.norms.items():
        if name != "none":
            variants.append(StackVariant(name, name, "PyTorch", norm_factory(config)))
    width, *other_widths = settings.widths
    depth, seeds, inputs = settings.depth, settings.seeds, settings.INPUTS
    stacks = profile_stacks(variants, width, depth, seeds, inputs, report_step)
    plain, seeds = [PLAIN_STACK], settings.deep_seeds
    for other in other_widths:
        stacks += profile_stacks(plain, other, depth, seeds, inputs, report_step)
    (deep,) = profile_stacks(
        plain, width, settings.deep, seeds, inputs, report_step, backward=False
    )
    seeds = settings.transformer_seeds
    transformers = [
        *profile_streams(settings.specs, "1/√width", width**-0.5, 1.0, seeds, report_step),
        # Its 1/√(2L) keeps the stream's variance from growing with L.
        *profile_streams(settings.specs, "GPT-2", 0.02, "1/sqrt(2*L)", seeds, report_step),
    ]
    return GradientVanishing(tuple(stacks), deep, tuple(transformers))


def profile_stacks(
    variants: Sequence[StackVariant],
    width: int,
    depth: int,
    seeds: Sequence[int],
    inputs: int,
    report_step: ReportStep,
    backward: bool = True,
) -> list[DepthProfile]:
    """A profile of each variant, over the same weights and inputs; a step a seed."""
    seed_moments: list[list[Tensor]] = [[] for _ in variants]
    for seed in seeds:
        report_step(f"stack of {depth} layers, width {width}, seed {seed}")
        layers, x, output_gradient = draw_stack(width, depth, seed, inputs)
        for variant, moments in zip(variants, seed_moments, strict=True):
            result = run_stack(variant, layers, x, output_gradient if backward else None)
            moments.append(layer_moments(*result))
    profiles = []
    for variant, moments in zip(variants, seed_moments, strict=True):
        names = variant.name, variant.norm, None, variant.init
        weight, bias = _VARIANCES[variant.init]
        averages = average_seeds(moments)
        profiles.append(DepthProfile(*names, width, weight=weight, bias=bias, **averages))
    return profiles


def draw_stack(
    width: int, depth: int, seed: int, inputs: int
) -> tuple[list[nn.Linear], Tensor, Tensor]:
    """Layers as PyTorch makes them, inputs and a gradient of the output, both from N(0, 1)."""
    # Without `devices` it would save and restore the state of every GPU too.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(width, width, dtype=torch.float64) for _ in range(depth)]
        x, output_gradient = torch.randn(2, inputs, width, dtype=torch.float64)
    for layer in layers:
        # Only the gradients of activations are looked at.
        layer.requires_grad_(False)
    return layers, x, output_gradient


def run_stack(
    variant: StackVariant, layers: Sequence[nn.Linear], x: Tensor, output_gradient: Tensor | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Activations (inputs, width) at the input and after each ReLU, and the loss's gradients there.

    Without a gradient of the output there are none.
    """
    build_norm = variant.build_norm or (lambda width: nn.Identity())
    # Kaiming's weights are PyTorch's draw times √6, so that all variants share one draw.
    scale = math.sqrt(_VARIANCES[variant.init][0] / _VARIANCES["PyTorch"][0])
    with torch.set_grad_enabled(output_gradient is not None):
        x = x.clone().requires_grad_(output_gradient is not None)
        activations = [x]
        for layer in layers:
            bias = layer.bias if variant.init == "PyTorch" else None
            norm = build_norm(layer.out_features).double()
            x = norm(F.linear(x, scale * layer.weight, bias)).relu()
            activations.append(x)
        gradients: Sequence[Tensor] = []
        if output_gradient is not None:
            gradients = torch.autograd.grad(x, activations, output_gradient)
    return [activation.detach() for activation in activations], list(gradients)


def profile_streams(
    specs: Sequence[RunSpec],
    init: str,
    std: float,
    output: Any,
    seeds: Sequence[int],
    report_step: ReportStep,
) -> list[DepthProfile]:
    """The stream of each network; weights N(0, std²), those that write to it × `output`."""
    profiles = []
    for spec in specs:
        norm, placement = spec.choices["norm"], spec.choices["placement"]
        name = " · ".join(arm_name_parts(norm, placement))
        moments = []
        for seed in seeds:
            report_step(f"Transformer, {name}, {init}, seed {seed}")
            moments.append(layer_moments(*run_stream(spec, std, output, seed)))
        names = name, norm, placement, init
        profiles.append(DepthProfile(*names, spec.config.model.width, **average_seeds(moments)))
    return profiles


def run_stream(
    spec: RunSpec, std: float, output: Any, seed: int
) -> tuple[list[Tensor], list[Tensor]]:
    """The stream before the first block and after each, (tokens, width), and the loss's gradients.

    The loss is the cross-entropy of random tokens, in nats.
    """
    init = replace(spec.config.model.init, std=std, output=output)
    # torch's fused attention gives NaN backwards where logits are huge, as without a norm.
    model_config = replace(spec.config.model, init=init, attention=AttentionKernel.explicit)
    model = build_model(replace(spec.config, model=model_config, seed=seed), _VOCABULARY)
    stream: list[Tensor] = []

    def append_stream(prefix: str, site: str, x: Tensor) -> None:
        # Of two streams, the one that is normalized as it goes.
        if prefix == "stream" and not site.endswith("/attention"):
            stream.append(x)

    # One token more than the context: the targets are those that follow.
    shape = _BATCH, model_config.context + 1
    tokens = torch.randint(_VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))
    with evaluation_mode(model), collect_readings(model, {}, append_stream):
        logits = model.forward(tokens[:, :-1])
    # (batch, context, vocabulary) → (batch · context, vocabulary)
    loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    gradients = torch.autograd.grad(loss, stream, allow_unused=True, materialize_grads=True)
    return (
        [x.detach().flatten(0, 1) for x in stream],
        [gradient.flatten(0, 1) for gradient in gradients],
    )


def layer_moments(activations: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Four numbers a layer, (layers, 4), of (inputs, width) activations and gradients of a seed.

    They are the mean, the mean square, the variance across inputs, and the gradient's squared norm
    over that at the last layer, NaN without gradients.
    """
    squares = [float(gradient.double().square().sum()) for gradient in gradients]
    squares = squares or [math.nan] * len(activations)
    last = squares[-1] or math.nan
    rows = []
    for activation, square in zip(activations, squares, strict=True):
        x = activation.double()
        moments = float(x.mean()), float(x.square().mean()), float(x.var(0).mean())
        rows.append((*moments, square / last))
    return torch.tensor(rows, dtype=torch.float64)


def average_seeds(moments: Sequence[Tensor]) -> dict[str, Any]:
    """The fields of a DepthProfile that are means over seeds, by `layer_moments` of each."""
    rows = torch.stack(list(moments))  # (seeds, layers, 4)
    mean, square, across, gradient = rows.mean(0).unbind(-1)
    variance = square - mean.square()
    # Of a root, half the relative error of what is under it; of a single seed, unknown.
    error = torch.full_like(rows[0], math.nan)
    if len(rows) > 1:
        error = rows.std(0) / rows.mean(0) / math.sqrt(len(rows)) / 2
    columns = {
        "rms": square.sqrt(),
        "std": variance.sqrt(),
        "share": across / variance,
        "gradient": gradient.sqrt(),
        "rms_error": error[:, 1],
        "gradient_error": error[:, 3],
    }
    averages = {
        name: tuple(map(finite_or_none, column.tolist())) for name, column in columns.items()
    }
    return {"seeds": len(rows), **averages}
