"""Measures norms in fp32, bf16 and fp16 against fp64, on a CPU, as they start.

The input is Gaussian, times a scale, and rounded to the format first: what is measured is the
error of the norm alone. A norm is computed twice: by normlab's module, which computes in fp32 and
rounds its output, and by the formula, every operation of which is rounded to the format.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

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
    PrecisionSettings,
)
from normlab.norms import DynamicTanh, LayerNorm, RMSNorm, ScaleNorm

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """RMSNorm, x / √(mean x² + eps): (tokens, width) → the same, in the dtype of x."""
    # Where the mean square overflows, 1/√∞ is 0: the output is zeros, and no test for NaN sees it.
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def layer_norm(x: Tensor, eps: float) -> Tensor:
    """LayerNorm, (x − mean x) / √(var x + eps): (tokens, width) → the same, in the dtype of x."""
    return rms_norm(x - x.mean(-1, keepdim=True), eps)


def scale_norm(x: Tensor, eps: float) -> Tensor:
    """ScaleNorm, √width · x / max(‖x‖, eps): (tokens, width) → the same, in the dtype of x."""
    # In fp16 this sum overflows where the mean of the squares, RMSNorm's, does not yet.
    length = x.square().sum(-1, keepdim=True).sqrt()
    return math.sqrt(x.shape[-1]) * (x / length.clamp(min=eps))


FORMULAS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "rmsnorm": rms_norm,
    "layernorm": layer_norm,
    "scalenorm": scale_norm,
    "dyt": lambda x, eps: torch.tanh(x),  # DyT as it starts; it has no eps
}
# The norms as normlab has them: gains of 1, biases of 0.
MODULES: dict[str, Callable[..., nn.Module]] = {
    "rmsnorm": RMSNorm,
    "layernorm": LayerNorm,
    "scalenorm": ScaleNorm,
    "dyt": lambda width, eps: DynamicTanh(width),
}


def measure(settings: PrecisionSettings, report_step: Callable[[str], None]) -> Precision:
    """Measure; `report_step` is called `settings.steps` times."""
    curves: list[PrecisionCurve] = []
    mean_curves: list[PrecisionCurve] = []
    output_rms: dict[str, tuple[float, ...]] = {}
    for width in settings.widths:
        generator = torch.Generator().manual_seed(settings.seed)
        shape = (settings.tokens, width)
        # One draw: norms, formats and scales differ in nothing else.
        normal = torch.randn(shape, generator=generator, dtype=torch.float64)
        scaled = [scale * normal for scale in settings.scales]
        is_first = not curves
        for norm in NORMS:
            report_step(f"{norm}, width {width}")
            for eps in EPS:
                curves += measure_norm(norm, eps, scaled)
            if is_first:
                mean_curves += measure_norm(norm, EPS[0], [normal + mean for mean in MEANS])
        if is_first:
            for eps in EPS:
                rms = [root_mean_square(rms_norm(x, eps)) for x in scaled]
                output_rms[f"{eps:g}"] = tuple(rms)
    return Precision(
        tokens=settings.tokens,
        scales=tuple(settings.scales),
        formats=tuple(map(describe_format, DTYPES)),
        curves=tuple(curves),
        mean_curves=tuple(mean_curves),
        output_rms=output_rms,
    )


@torch.no_grad()
def measure_norm(norm: str, eps: float, inputs: Sequence[Tensor]) -> list[PrecisionCurve]:
    """A norm in every format, its statistics in fp32 and in the format, over the inputs.

    Each input is (tokens, width) float64.
    """
    width = inputs[0].shape[-1]
    formula, module = FORMULAS[norm], MODULES[norm](width, eps=eps)
    curves = []
    for dtype in DTYPES:
        ways: dict[str, Callable[[Tensor], Tensor]] = {WIDE: module}
        if dtype != "fp32":  # where both are the same
            ways[NARROW] = lambda x: formula(x, eps)
        for statistics, function in ways.items():
            points = []
            for exact_input in inputs:
                x = exact_input.to(TORCH_DTYPES[dtype])
                points.append(compare_outputs(x, function(x), formula(x.double(), eps)))
            errors, lost = zip(*points, strict=True)
            curves.append(PrecisionCurve(norm, width, dtype, statistics, eps, errors, lost))
    return curves


def compare_outputs(x: Tensor, y: Tensor, exact: Tensor) -> tuple[float | None, float | None]:
    """Error of y over the RMS of `exact`, where y is finite, and the share that is not.

    All (tokens, width). None where there is no error to speak of: see `PrecisionCurve`.
    """
    if not x.isfinite().all():
        return None, None
    finite = y.isfinite()
    lost = 1 - float(finite.double().mean())
    if not finite.any():
        return None, lost
    return root_mean_square((y.double() - exact)[finite]) / root_mean_square(exact), lost


def root_mean_square(x: Tensor) -> float:
    """Over all of x, any shape."""
    return float(x.square().mean().sqrt())


def describe_format(dtype: str) -> NumberFormat:
    """The limits of a format, from torch, and 300² in it."""
    limits = torch.finfo(TORCH_DTYPES[dtype])
    square = float(torch.tensor(300.0, dtype=TORCH_DTYPES[dtype]).square())
    return NumberFormat(
        dtype=dtype,
        unit=limits.eps / 2,
        largest=limits.max,
        # The smallest subnormal number, which torch.finfo does not have.
        smallest=limits.smallest_normal * limits.eps,
        square=square if math.isfinite(square) else None,
    )
