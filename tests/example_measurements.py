"""Measurements made up from theory and from plain numbers, for what reads and draws them."""

from collections.abc import Sequence

from normlab.apps.card.record import Invariance
from normlab.apps.experiments.gradient_vanishing import DepthProfile, GradientVanishing
from normlab.apps.experiments.layernorm_vs_rmsnorm import (
    LayerNormVsRmsNorm,
    Moments,
    NormalizedInput,
    NormTimes,
)
from normlab.apps.experiments.precision import (
    DTYPES,
    EPS,
    MEANS,
    NARROW,
    NORMS,
    WIDE,
    NumberFormat,
    Precision,
    PrecisionCurve,
)
from normlab.apps.experiments.record import NUMBERS, MeasurementRecord, Origin
from normlab.apps.experiments.signal_theory import expected_gradient, expected_signal

ORIGIN = Origin(
    "train.py experiment=…",
    "2026-11-24T10:00:00+00:00",
    12.5,
    {"cpu": "a processor", "threads": 2},
    {"torch": "2.13.0"},
    None,
)
_VARIANCES = {"PyTorch": (1 / 3, 1 / 3), "no biases": (1 / 3, 0.0), "Kaiming": (2.0, 0.0)}


def stack_profile(
    init: str = "PyTorch", norm: str = "none", width: int = 512, depth: int = 8, seeds: int = 60
) -> DepthProfile:
    """A profile that is what theory says."""
    weight, bias = _VARIANCES[init]
    normed = norm != "none"
    layers = expected_signal(depth, weight, bias / width, normed)
    error = (0.005,) * (depth + 1)
    return DepthProfile(
        name={"PyTorch": "no norm", "no biases": "without biases"}.get(init, init),
        norm=norm,
        placement=None,
        init=init,
        width=width,
        seeds=seeds,
        rms=tuple(layer.rms for layer in layers),
        std=tuple(layer.std for layer in layers),
        share=tuple(layer.share for layer in layers),
        gradient=tuple(expected_gradient(depth, weight, bias / width, normed)),
        rms_error=error,
        gradient_error=error,
        weight=weight,
        bias=bias,
    )


def stream_profile(
    norm: str, placement: str, growth: float, init: str = "1/√width", depth: int = 8
) -> DepthProfile:
    """A residual stream that grows by a factor a block, and its gradient as much backwards."""
    up = tuple(growth**block for block in range(depth + 1))
    return DepthProfile(
        name=norm if placement == "any" else f"{norm} · {placement}",
        norm=norm,
        placement=placement,
        init=init,
        width=512,
        seeds=2,
        rms=up,
        std=up,
        share=(0.9,) * (depth + 1),
        gradient=up[::-1],
        rms_error=(0.01,) * (depth + 1),
        gradient_error=(0.01,) * (depth + 1),
    )


def gradient_vanishing(
    norms: Sequence[str] = ("rmsnorm", "layernorm"), depth: int = 8
) -> GradientVanishing:
    bare = [stack_profile(init, depth=depth) for init in _VARIANCES]
    arms = [(norm, place) for norm in norms for place in ("pre", "post")]
    return GradientVanishing(
        stacks=(*bare, *(stack_profile(norm=norm, depth=depth) for norm in norms)),
        deep=stack_profile(depth=10 * depth),
        transformers=tuple(
            stream_profile(norm, place, growth, init, depth)
            for init in ("1/√width", "GPT-2")
            for (norm, place), growth in [
                (("none", "any"), 2.0),
                *((arm, 1.02 + 0.02 * at) for at, arm in enumerate(arms)),
            ]
        ),
    )


def _moments(mean: float, std: float) -> Moments:
    return Moments(mean, std, (mean**2 + std**2) ** 0.5, (0.1, 0.5, 0.4))


def normalized_input(name: str, mean: float, apart: float) -> NormalizedInput:
    after = {"layernorm": _moments(0.0, 1.0), "rmsnorm": _moments(mean / 2, 0.5)}
    cosine = {"layernorm": 1.0 if apart < 1e-6 else 0.45, "rmsnorm": 1.0}
    return NormalizedInput(name, (-4.0, -1.0, 2.0, 5.0), _moments(mean, 1.0), after, cosine, apart)


def norm_times(
    way: str, norm: str, both: float, width: int = 512, forward: float = 0.0
) -> NormTimes:
    """Times that spread by one in a hundred around a value."""
    spread = [0.99, 1.0, 1.01] * 5
    return NormTimes(
        way,
        norm,
        1024,
        width,
        tuple((forward or both / 3) * one for one in spread),
        tuple(both * one for one in spread),
    )


def norm_invariances(norm: str, eps: bool) -> tuple[Invariance, ...]:
    scale = Invariance(
        "weight scale", "N((cW)h) = N(Wh)", "to eps" if eps else "yes", 6e-4 if eps else 1e-15
    )
    blind = norm == "layernorm"
    shift = Invariance(
        "weight shift", "N((W + 1cᵀ)h) = N(Wh)", "yes" if blind else "no", 7e-15 if blind else 5.0
    )
    return scale, shift


def norm_comparison(times: Sequence[NormTimes] = ()) -> LayerNormVsRmsNorm:
    ordinary = [
        norm_times(way, norm, time, width)
        for width in (128, 512)
        for way, layer, rms in (("fused", 1.0, 0.8), ("torch", 1.0, 4.0), ("composite", 6.0, 3.0))
        for norm, time in (("layernorm", layer), ("rmsnorm", rms))
    ]
    return LayerNormVsRmsNorm(
        inputs=(normalized_input("mean 0", 0.0, 1e-17), normalized_input("mean 2", 2.0, 1.05)),
        invariances={
            norm + words: norm_invariances(norm, eps)
            for norm in ("layernorm", "rmsnorm")
            for words, eps in (("", True), (" eps=0", False))
        },
        width=512,
        parameters={"layernorm": 1024, "rmsnorm": 512},
        times=tuple(times or ordinary),
        not_timed={},
    )


SCALES = tuple(10.0**power for power in range(-6, 7))
FORMATS = (
    NumberFormat("fp32", 2.0**-24, 3.4e38, 1.4e-45, 90_000.0),
    NumberFormat("bf16", 2.0**-8, 3.4e38, 9.2e-41, 90_112.0),
    NumberFormat("fp16", 2.0**-11, 65_504.0, 6e-8, None),
)


def precision_curve(
    norm: str = "rmsnorm",
    dtype: str = "fp16",
    statistics: str = NARROW,
    eps: float = EPS[0],
    width: int = 512,
    points: Sequence[float] = SCALES,
) -> PrecisionCurve:
    """A curve that is exact, but for statistics in fp16: wrong from 100 on, and 1e-8 is 0."""
    unit = next(one.unit for one in FORMATS if one.dtype == dtype)
    error: list[float | None] = [unit / 2] * len(points)
    lost: list[float | None] = [0.0] * len(points)
    for at, point in enumerate(points):
        if dtype == "fp16" and point > 1e4:
            error[at] = lost[at] = None
        elif dtype == "fp16" and statistics == NARROW and norm != "dyt":
            if point >= 100:
                error[at] = 1.0
            elif eps == 1e-8 and 0 < point <= 1e-4:
                error[at], lost[at] = None, 1.0
    return PrecisionCurve(norm, width, dtype, statistics, eps, tuple(error), tuple(lost))


def precision(widths: Sequence[int] = (512,)) -> Precision:
    ways = [
        (dtype, way)
        for dtype in DTYPES
        for way in (WIDE, NARROW)
        if (dtype, way) != ("fp32", NARROW)
    ]
    return Precision(
        tokens=64,
        scales=SCALES,
        formats=FORMATS,
        curves=tuple(
            precision_curve(norm, *way, eps, width)
            for width in widths
            for norm in NORMS
            for eps in EPS
            for way in ways
        ),
        mean_curves=tuple(
            precision_curve(norm, *way, points=MEANS) for norm in NORMS for way in ways
        ),
        output_rms={f"{e:g}": tuple(x / (x**2 + e) ** 0.5 for x in SCALES) for e in EPS},
    )


def measurement_record(
    numbers: GradientVanishing | LayerNormVsRmsNorm | Precision,
) -> MeasurementRecord:
    name = next(name for name, kind in NUMBERS.items() if isinstance(numbers, kind))
    return MeasurementRecord(name, {"seeds": [0, 1]}, ORIGIN, numbers)
