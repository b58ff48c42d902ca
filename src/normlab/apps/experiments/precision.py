"""`precision`: norms in fp32, bf16 and fp16, by the scale of their input and by eps.

What a command asks of it, the numbers that it measures, their paragraph and their tables. Torch is
only needed to measure them, see `precision_measurement`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from normlab.analysis.arms import format_value
from normlab.analysis.report_tables import Cell, Table
from normlab.apps.experiments.formatting import build_table, format_short
from normlab.archive.versioned_json import none_to_nan
from normlab.text import join_words

if TYPE_CHECKING:
    # Hydra, which drawing stored numbers does not need.
    from normlab.apps.experiments.arguments import MeasurementArguments

NORM_NAMES = {
    "rmsnorm": "RMSNorm",
    "layernorm": "LayerNorm",
    "scalenorm": "ScaleNorm",
    "dyt": "DyT",
}
NORMS = tuple(NORM_NAMES)
DTYPES = ("fp32", "bf16", "fp16")
# The first is the default of normlab's norms; the last is 0 in fp16, whose smallest number is 6e-8.
EPS = (1e-5, 1e-6, 1e-8)
# The statistics are those of the norm as normlab has it, or computed in the dtype of the input.
WIDE, NARROW = "fp32", "input"
# Means of inputs whose standard deviation is 1.
MEANS = (0.0, 1.0, 4.0, 16.0, 64.0, 256.0)
# An output is exact to rounding where its error is at most so many units of rounding, and wrong
# where the error is more than this share of the output or a number is not finite.
_ROUNDINGS, _WRONG = 4, 0.1


class PrecisionSettings:
    """Width, tokens and scales, of a budget in conf/experiment and of the command."""

    ALLOWED_KEYS = ("model.width",)
    # Tokens, and scales of the input in a factor of ten.
    SIZES: ClassVar = {"quick": (64, 4), "standard": (128, 8), "full": (256, 16)}
    DECADES = (-6, 6)  # of the smallest scale and of the largest

    def __init__(self, arguments: "MeasurementArguments") -> None:
        self.widths = arguments.integers("model.width", 512, minimum=2)
        self.seed = arguments.single_integer("seed", 0, "one draw of inputs is enough", minimum=0)
        self.tokens, steps = self.SIZES[str(arguments.master.hydra.runtime.choices.budget)]
        low, high = (steps * power for power in self.DECADES)
        self.scales = [10 ** (index / steps) for index in range(low, high + 1)]

    @property
    def recorded(self) -> dict[str, Any]:
        """What decides the numbers, as JSON holds it."""
        return {
            "widths": self.widths,
            "tokens": self.tokens,
            "scales": self.scales,
            "eps": list(EPS),
            "seeds": [self.seed],
        }

    @property
    def steps(self) -> int:
        """How often the measurement reports a step."""
        return len(self.widths) * len(NORMS)


@dataclass(frozen=True)
class NumberFormat:
    """A floating-point format: its unit of rounding, largest and smallest numbers, and 300²."""

    dtype: str
    unit: float  # half the distance from 1 to the next number: the error of one rounding
    largest: float
    smallest: float  # that is not 0
    square: float | None  # of 300; None: not finite


@dataclass(frozen=True)
class PrecisionCurve:
    """One norm in one format, over the scale of its input or its mean.

    Attributes:
        statistics: WIDE or NARROW.
        error: at every point, the RMS of the difference to the norm in fp64 of the same rounded
            input, over the RMS of that; of the outputs that are finite. None where none is, or
            where the input itself is not finite in the format.
        lost: share of outputs that are not finite; None where the input is not.
    """

    norm: str
    width: int
    dtype: str
    statistics: str
    eps: float
    error: tuple[float | None, ...]
    lost: tuple[float | None, ...]

    @property
    def name(self) -> str:
        """`fp16, statistics in fp16`."""
        return f"{self.dtype}, statistics in {WIDE if self.statistics == WIDE else self.dtype}"


@dataclass(frozen=True)
class Precision:
    """What the formats do to norms. The first width is the one that is drawn.

    Attributes:
        curves: over `scales`, for inputs of mean 0.
        mean_curves: over MEANS, for inputs of standard deviation 1, at the first eps and width.
        output_rms: that of RMSNorm in fp64 over `scales`, by eps as a text.
    """

    SETTINGS: ClassVar = PrecisionSettings

    tokens: int
    scales: tuple[float, ...]
    formats: tuple[NumberFormat, ...]
    curves: tuple[PrecisionCurve, ...]
    mean_curves: tuple[PrecisionCurve, ...]
    output_rms: dict[str, tuple[float, ...]]

    @property
    def width(self) -> int:
        """The first one."""
        return self.curves[0].width

    def find_curves(self, **fields: Any) -> list[PrecisionCurve]:
        """Those with these values, at the first width unless it is among them."""
        fields = {"width": self.width, **fields}
        return [c for c in self.curves if all(getattr(c, k) == v for k, v in fields.items())]

    def is_exact(self, curve: PrecisionCurve) -> list[bool]:
        """Whether the output is exact to rounding, at every point."""
        limit = _ROUNDINGS * next(f.unit for f in self.formats if f.dtype == curve.dtype)
        return [
            lost == 0 and error is not None and error <= limit
            for error, lost in zip(curve.error, curve.lost, strict=True)
        ]

    def exact_range(self, curve: PrecisionCurve) -> tuple[float, float] | None:
        """The smallest and the largest scale around 1 between which all are exact to rounding."""
        good = self.is_exact(curve)
        start = min(range(len(good)), key=lambda at: abs(math.log(self.scales[at])))
        if not good[start]:
            return None
        first, last = start, start
        while first > 0 and good[first - 1]:
            first -= 1
        while last < len(good) - 1 and good[last + 1]:
            last += 1
        return self.scales[first], self.scales[last]

    def wrong_scales(self, curve: PrecisionCurve) -> tuple[list[float], list[float]]:
        """The scales below 1 and from 1 on at which the output is wrong."""
        wrong = [
            scale
            for scale, error, lost in zip(self.scales, curve.error, curve.lost, strict=True)
            if lost is not None and (lost > 0 or none_to_nan(error) > _WRONG)
        ]
        return [s for s in wrong if s < 1], [s for s in wrong if s >= 1]

    def write_sentences(self) -> list[str]:
        """What the numbers show, one paragraph's sentences in order."""
        return [
            _describe_formats(self.formats),
            *_describe_wide_statistics(self),
            *_describe_narrow_statistics(self),
            *_describe_widths(self),
            *_describe_means(self),
            *_describe_small_eps(self),
            *_describe_eps(self),
        ]

    def build_tables(self) -> tuple[Table, ...]:
        """The formats, and every curve in a row."""
        return _format_table(self.formats), _curve_table(self)


def _describe_formats(formats: Sequence[NumberFormat]) -> str:
    squares = [
        f"{'infinite' if f.square is None else f'{f.square:,.0f}'} in {f.dtype} (largest number "
        f"{format_short(f.largest)}, unit of rounding {format_short(f.unit)})"
        for f in formats
    ]
    return f"300² is {join_words(squares)}."


def _describe_wide_statistics(numbers: Precision) -> Iterator[str]:
    """How far normlab's own norms, which compute in fp32, are from fp64 at any scale and eps."""
    units = {f.dtype: f.unit for f in numbers.formats}
    largest, inexact = [], []
    for dtype in DTYPES:
        curves = numbers.find_curves(dtype=dtype, statistics=WIDE)
        errors = [none_to_nan(e) for c in curves for e, lost in zip(c.error, c.lost, strict=True)
                  if lost is not None]  # fmt: skip
        # max() may pass over a NaN.
        error = math.nan if any(map(math.isnan, errors)) else max(errors)
        largest.append(f"{format_short(error)} in {dtype}")
        inexact += [dtype] * (not error <= _ROUNDINGS * units[dtype])
    verdict = "exact to rounding in all"
    if inexact:
        verdict = f"not exact to rounding everywhere in {join_words(inexact)}"
    yield (
        f"With statistics in fp32 (normlab's norms), inputs of scale {_span(numbers.scales)} and "
        f"any of the eps, the largest error is {join_words(largest)}: {verdict} (at most "
        f"{_ROUNDINGS} units)."
    )


def _describe_narrow_statistics(numbers: Precision) -> Iterator[str]:
    """Where each norm is exact, and where wrong, with all of it in the format of its input."""
    for dtype in DTYPES[1:]:
        ranges: dict[str, list[str]] = {}
        for norm in NORMS:
            for curve in numbers.find_curves(norm=norm, dtype=dtype, statistics=NARROW, eps=EPS[0]):
                ranges.setdefault(_describe_curve(numbers, curve), []).append(NORM_NAMES[norm])
        words = [f"{join_words(norms)} {description}" for description, norms in ranges.items()]
        yield f"With statistics in {dtype} and eps={format_value(EPS[0])}: {'; '.join(words)}."


def _describe_curve(numbers: Precision, curve: PrecisionCurve) -> str:
    exact, (_, wrong) = numbers.exact_range(curve), numbers.wrong_scales(curve)
    # Without the scales at which the format cannot hold the input itself.
    measured = [s for s, lost in zip(numbers.scales, curve.lost, strict=True) if lost is not None]
    if exact is None:
        description = "not exact to rounding at scale 1"
    elif exact == (measured[0], measured[-1]):
        description = "exact to rounding at every scale"
    else:
        description = f"exact to rounding from {_span(exact)}"
    if wrong:
        how = _describe_wrong(numbers, curve, wrong[-1])
        description += f", wrong from {format_short(wrong[0])} on ({how})"
    return description


def _describe_wrong(numbers: Precision, curve: PrecisionCurve, scale: float) -> str:
    """How wrong the output is at a scale: what is lost, or else the error."""
    index = numbers.scales.index(scale)
    error, lost = none_to_nan(curve.error[index]), none_to_nan(curve.lost[index])
    how = f"{_percent(lost)} of the outputs not finite"
    if not lost:
        how = f"every output finite, the error {_percent(error)}"
    return f"{how} at {format_short(scale)}"


def _describe_means(numbers: Precision) -> Iterator[str]:
    """What the input's mean costs with statistics in half precision, against those in fp32."""
    for dtype in DTYPES[1:]:
        words = []
        for norm in NORMS:
            wide, narrow = (
                next(
                    curve
                    for curve in numbers.mean_curves
                    if (curve.norm, curve.dtype, curve.statistics) == (norm, dtype, statistics)
                )
                for statistics in (WIDE, NARROW)
            )
            inexact = [at for at, exact in enumerate(numbers.is_exact(narrow)) if not exact]
            if not inexact:
                words.append(f"{NORM_NAMES[norm]} exact to rounding at every mean")
                continue
            last = inexact[-1]
            errors = [_percent(none_to_nan(curve.error[last])) for curve in (narrow, wide)]
            words.append(
                f"{NORM_NAMES[norm]} not from mean {MEANS[inexact[0]]:g} on (error {errors[0]} at "
                f"{MEANS[last]:g}; {errors[1]} with statistics in fp32)"
            )
        yield (
            f"With statistics in {dtype}, a standard deviation of 1 and means from {MEANS[0]:g} to "
            f"{MEANS[-1]:g}: {'; '.join(words)}."
        )


def _describe_widths(numbers: Precision) -> Iterator[str]:
    """At which scale fp16 overflows, where several widths were measured."""
    widths = sorted({curve.width for curve in numbers.curves})
    if len(widths) < 2:
        return
    for norm in NORMS:
        starts = []
        for width in widths:
            (curve,) = numbers.find_curves(
                norm=norm, width=width, dtype="fp16", statistics=NARROW, eps=EPS[0]
            )
            _, wrong = numbers.wrong_scales(curve)
            if wrong:
                starts.append(f"{format_short(wrong[0])} at width {width}")
        if starts:
            yield f"{NORM_NAMES[norm]} with statistics in fp16 is wrong from {join_words(starts)}."


def _describe_small_eps(numbers: Precision) -> Iterator[str]:
    """What an eps does that a format cannot hold, by norm, for inputs that are small."""
    for eps in EPS:
        wrong = []
        for curve in numbers.find_curves(statistics=NARROW, eps=eps):
            small, _ = numbers.wrong_scales(curve)
            if small:
                wrong.append(
                    f"{NORM_NAMES[curve.norm]} in {curve.dtype} is wrong up to scale "
                    f"{format_short(small[-1])} ({_describe_wrong(numbers, curve, small[0])})"
                )
        if wrong:
            yield (
                f"With eps={format_value(eps)} and statistics in the input's format, "
                f"{join_words(wrong)}."
            )


def _describe_eps(numbers: Precision) -> Iterator[str]:
    """Below which scale eps, and not the input, decides RMSNorm's output, in exact arithmetic."""
    limits = []
    for eps, output in numbers.output_rms.items():
        scales = [s for s, rms in zip(numbers.scales, output, strict=True) if rms < math.sqrt(0.5)]
        if scales:
            limits.append(
                f"{format_short(scales[-1])} for eps={format_value(float(eps))} (√eps is "
                f"{format_short(math.sqrt(float(eps)))})"
            )
    if limits:
        yield (
            f"Without any rounding, eps is larger than the mean square, and RMSNorm's output has "
            f"an RMS below √½, up to these scales of the grid: {join_words(limits)}."
        )


def _percent(share: float) -> str:
    """Three figures or two, also of a small share."""
    return f"{format_short(100 * share)} %"


def _span(values: Sequence[float]) -> str:
    return f"{format_short(values[0])} to {format_short(values[-1])}"


def _format_table(formats: Sequence[NumberFormat]) -> Table:
    rows = [
        (f.dtype, f.unit, f.largest, math.sqrt(f.largest), f.smallest,
         Cell("infinite", math.inf) if f.square is None else f.square)
        for f in formats
    ]  # fmt: skip
    numeric = ("unit of rounding", "largest", "its root", "smallest", "300²")
    caption = "A number above the root of the largest has no square."
    return build_table(caption, ("format",), numeric, rows)


def _curve_table(numbers: Precision) -> Table:
    rows = []
    for curve in numbers.curves:
        exact, (below, above) = numbers.exact_range(curve), numbers.wrong_scales(curve)
        index = numbers.scales.index(min(numbers.scales, key=lambda scale: abs(math.log(scale))))
        rows.append(
            (
                curve.norm,
                curve.name,
                curve.width,
                Cell(format_value(curve.eps), curve.eps),
                none_to_nan(curve.error[index]),
                *(exact or (math.nan, math.nan)),
                Cell(format_short(below[-1]), below[-1]) if below else Cell("–", math.nan),
                Cell(format_short(above[0]), above[0]) if above else Cell("–", math.nan),
            )
        )
    caption = (
        f"Error over the output's RMS, and the scales of the input between which the output is "
        f"exact to rounding ({_ROUNDINGS} units) or wrong (more than {_percent(_WRONG)}, or "
        f"not finite)."
    )
    numeric = (
        *("width", "eps", "error at scale 1", "exact from", "exact to"),
        *("wrong up to", "wrong from"),
    )
    return build_table(caption, ("norm", "format"), numeric, rows)
