"""Measures what LayerNorm and RMSNorm do to a token's numbers, and how long each takes.

Times are fp32 on this CPU, each implementation of one norm beside the same of the other, in turn,
in one process that keeps freed memory, as training does.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.apps.card import invariances
from normlab.apps.card.record import Invariance
from normlab.apps.experiments.layernorm_vs_rmsnorm import (
    LayerNormVsRmsNorm,
    LayerNormVsRmsNormSettings,
    Moments,
    NormalizedInput,
    NormTimes,
)
from normlab.model.gpt import count_parameters
from normlab.norms import LayerNorm, RMSNorm
from normlab.norms.timing import (
    Call,
    build_gradient_call,
    count_calls_per_block,
    median_milliseconds,
)
from normlab.text import one_line

EPS = 1e-5
_NORMS: dict[str, type[nn.Module]] = {"layernorm": LayerNorm, "rmsnorm": RMSNorm}
_SHIFT, _OUTLIER = 2.0, 20.0  # of two kinds of input
_INVARIANCES = ("input scale", "input shift", "weight scale", "weight shift")


def measure(
    settings: LayerNormVsRmsNormSettings, report_step: Callable[[str], None]
) -> LayerNormVsRmsNorm:
    """Measure; `report_step` is called `settings.steps` times."""
    width = settings.width
    report_step("distributions")
    inputs = normalize_inputs(width, settings.TOKENS, settings.seed)
    report_step("invariances")
    norm_invariances = measure_invariances(width)
    times, not_timed = time_norms(settings.shapes, settings.rounds, settings.seed, report_step)
    return LayerNormVsRmsNorm(
        inputs=tuple(inputs),
        invariances=norm_invariances,
        width=width,
        parameters={name: count_parameters(norm(width)) for name, norm in _NORMS.items()},
        times=tuple(times),
        not_timed=not_timed,
    )


@torch.no_grad()
def normalize_inputs(width: int, tokens: int, seed: int) -> list[NormalizedInput]:
    """Each kind of input, (tokens, width), before and after each norm as it starts; float64."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(tokens, width, generator=generator, dtype=torch.float64)
    outlier = normal.clone()
    outlier[:, 0] = _OUTLIER
    kinds = {
        "mean 0": normal - normal.mean(-1, keepdim=True),
        f"mean {_SHIFT:g}": normal + _SHIFT,
        "skewed": normal.exp(),
        f"one feature {_OUTLIER:g}": outlier,
    }
    edges = torch.linspace(-4.0, 6.0, 51, dtype=torch.float64)
    inputs = []
    for kind, x in kinds.items():
        after = {name: norm(width).double()(x) for name, norm in _NORMS.items()}
        difference = (after["layernorm"] - after["rmsnorm"]).square().mean().sqrt()
        inputs.append(
            NormalizedInput(
                input=kind,
                edges=tuple(edges.tolist()),
                before=distribution_moments(x, edges),
                after={name: distribution_moments(y, edges) for name, y in after.items()},
                cosine={
                    name: float(F.cosine_similarity(x, y).median()) for name, y in after.items()
                },
                apart=float(difference / after["layernorm"].square().mean().sqrt()),
            )
        )
    return inputs


def distribution_moments(x: Tensor, edges: Tensor) -> Moments:
    """Of all tokens together; what lies outside the bins is in none of them."""
    counts = torch.histogram(x.flatten(), edges).hist / x.numel()
    rms = x.square().mean().sqrt()
    return Moments(float(x.mean()), float(x.std()), float(rms), tuple(counts.tolist()))


def measure_invariances(width: int) -> dict[str, tuple[Invariance, ...]]:
    """By norm and eps: those of inputs and weights that are scaled or shifted."""
    results = {}
    for name, norm in _NORMS.items():
        for key, module in ((name, norm(width)), (f"{name} eps=0", norm(width, eps=0.0))):
            tested = invariances.measure_invariances(module, width)
            results[key] = tuple(result for result in tested if result.name in _INVARIANCES)
    return results


def time_norms(
    shapes: Sequence[tuple[int, int]],
    rounds: int,
    seed: int,
    report_step: Callable[[str], None],
) -> tuple[list[NormTimes], dict[str, str]]:
    """Each implementation at every (tokens, width), and why an implementation has no times.

    `report_step` is called with a few words before every round, and before the first.
    """
    times, not_timed = [], {}
    for tokens, width in shapes:
        report_step(f"{tokens}×{width}, warming up")
        calls, reason = _build_calls(tokens, width, seed)
        if reason:
            not_timed["compiled"] = reason
        repeats = {key: tuple(map(count_calls_per_block, pair)) for key, pair in calls.items()}
        rows: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in calls}
        for number in range(rounds):
            report_step(f"{tokens}×{width}, round {number + 1} of {rounds}")
            for key, pair in calls.items():
                forward, with_backward = map(median_milliseconds, pair, repeats[key])
                rows[key].append((forward, with_backward))
        for (implementation, norm), row in rows.items():
            forward_times, both_times = zip(*row, strict=True)
            times.append(NormTimes(implementation, norm, tokens, width, forward_times, both_times))
    return times, not_timed


def _build_calls(
    tokens: int, width: int, seed: int
) -> tuple[dict[tuple[str, str], tuple[Call, Call]], str]:
    """Forward, and forward with backward, by implementation and norm; why none is compiled."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, width, generator=generator).requires_grad_()
    output_gradient = torch.randn(tokens, width, generator=generator)
    gain = torch.ones(width, requires_grad=True)
    bias = torch.zeros(width, requires_grad=True)

    def pair(function: Callable[[Tensor], Tensor], *parameters: Tensor) -> tuple[Call, Call]:
        # Forward as training has it, which keeps what the backward pass will need.
        return (lambda: function(x)), build_gradient_call(
            function, [x, *parameters], x, output_gradient
        )

    layer, rms = LayerNorm(width), RMSNorm(width)
    calls = {
        ("fused", "layernorm"): pair(layer, *layer.parameters()),
        ("fused", "rmsnorm"): pair(rms, *rms.parameters()),
        ("torch", "layernorm"): pair(lambda x: F.layer_norm(x, (width,), gain, bias), gain, bias),
        # Without eps it would take that of the dtype, 1.2e-7, and not F.layer_norm's 1e-5.
        ("torch", "rmsnorm"): pair(lambda x: F.rms_norm(x, (width,), gain, EPS), gain),
        ("composite", "layernorm"): pair(lambda x: layer_norm(x, gain, bias), gain, bias),
        ("composite", "rmsnorm"): pair(lambda x: rms_norm(x, gain), gain),
        ("x.var", "layernorm"): pair(lambda x: naive_layer_norm(x, gain, bias), gain, bias),
    }
    try:
        # A function is compiled for a limited number of shapes, unless the compiler starts anew.
        torch.compiler.reset()
        compiled_layer_norm = torch.compile(layer_norm, dynamic=False)
        compiled_rms_norm = torch.compile(rms_norm, dynamic=False)
        compiled = {
            ("compiled", "layernorm"): pair(
                lambda x: compiled_layer_norm(x, gain, bias), gain, bias
            ),
            ("compiled", "rmsnorm"): pair(lambda x: compiled_rms_norm(x, gain), gain),
        }
        # Compiled at the first call: a compiler that is missing fails here, not in torch.compile.
        for _, forward_and_backward in compiled.values():
            forward_and_backward()
    except Exception as error:  # whatever a missing or broken compiler raises
        message = one_line(error, 120)
        return calls, f"torch.compile does not work here ({type(error).__name__}: {message})"
    return calls | compiled, ""


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
