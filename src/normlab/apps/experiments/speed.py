"""LayerNorm against RMSNorm, each implementation of one beside the same of the other, in turn.

fp32 on this CPU, in one process that keeps freed memory, as training does.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from normlab.apps.experiments.record import Timed
from normlab.norms import LayerNorm, RMSNorm
from normlab.norms.timing import (
    Call,
    calls_per_block,
    forward_and_backward,
    median_milliseconds,
)

Function = Callable[[Tensor], Tensor]
EPS = 1e-5
FUSED, TORCH, COMPOSITE, NAIVE, COMPILED = "fused", "torch", "composite", "x.var", "compiled"


def times(
    shapes: Sequence[tuple[int, int]], rounds: int, seed: int, each: Callable[[str], None]
) -> tuple[list[Timed], dict[str, str]]:
    """Every implementation at every (tokens, width), and why some way has no times.

    `each` is called with a few words before every round, and before the first.
    """
    found, not_timed = [], {}
    for tokens, width in shapes:
        each(f"{tokens}×{width}, warming up")
        calls, reason = _calls(tokens, width, seed)
        if reason:
            not_timed[COMPILED] = reason
        repeats = {key: tuple(map(calls_per_block, pair)) for key, pair in calls.items()}
        kept: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in calls}
        for number in range(rounds):
            each(f"{tokens}×{width}, round {number + 1} of {rounds}")
            for key, pair in calls.items():
                forward, back = map(median_milliseconds, pair, repeats[key])
                kept[key].append((forward, back))
        for (way, norm), pairs in kept.items():
            forwards, backs = zip(*pairs, strict=True)
            found.append(Timed(way, norm, tokens, width, forwards, backs))
    return found, not_timed


def _calls(
    tokens: int, width: int, seed: int
) -> tuple[dict[tuple[str, str], tuple[Call, Call]], str]:
    """Forward, and forward with backward, by implementation and norm; why none is compiled."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, width, generator=generator).requires_grad_()
    above = torch.randn(tokens, width, generator=generator)
    gain = torch.ones(width, requires_grad=True)
    bias = torch.zeros(width, requires_grad=True)

    def pair(function: Function, *parameters: Tensor) -> tuple[Call, Call]:
        # Forward as training has it, which keeps what the backward pass will need.
        return (lambda: function(x)), forward_and_backward(function, [x, *parameters], x, above)

    layer, rms = LayerNorm(width), RMSNorm(width)
    calls = {
        (FUSED, "layernorm"): pair(layer, *layer.parameters()),
        (FUSED, "rmsnorm"): pair(rms, *rms.parameters()),
        (TORCH, "layernorm"): pair(lambda x: F.layer_norm(x, (width,), gain, bias), gain, bias),
        (TORCH, "rmsnorm"): pair(lambda x: F.rms_norm(x, (width,), gain, EPS), gain),
        (COMPOSITE, "layernorm"): pair(lambda x: layer_norm(x, gain, bias), gain, bias),
        (COMPOSITE, "rmsnorm"): pair(lambda x: rms_norm(x, gain), gain),
        (NAIVE, "layernorm"): pair(lambda x: naive_layer_norm(x, gain, bias), gain, bias),
    }
    compiled: dict[str, tuple[Call, Call]] = {}
    try:
        torch._dynamo.reset()  # a compiled function is made anew for a limited number of shapes
        layer_norm_here = torch.compile(layer_norm, dynamic=False)
        rms_norm_here = torch.compile(rms_norm, dynamic=False)
        compiled["layernorm"] = pair(lambda x: layer_norm_here(x, gain, bias), gain, bias)
        compiled["rmsnorm"] = pair(lambda x: rms_norm_here(x, gain), gain)
        for one in compiled.values():
            one[1]()
    except Exception as error:  # whatever a missing or broken compiler raises
        said = " ".join(str(error).split())[:120]
        return calls, f"torch.compile does not work here ({type(error).__name__}: {said})"
    return calls | {(COMPILED, norm): one for norm, one in compiled.items()}, ""


def layer_norm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """LayerNorm written out: (tokens, width) → (tokens, width)."""
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + EPS) * gain + bias


def naive_layer_norm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """The same as beginners write it, with `x.var`."""
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return gain * (x - mean) / torch.sqrt(variance + EPS) + bias


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """RMSNorm written out: (tokens, width) → (tokens, width)."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * gain
