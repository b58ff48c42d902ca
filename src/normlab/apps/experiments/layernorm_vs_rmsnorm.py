"""`layernorm_vs_rmsnorm`: what both norms do to a token's numbers, and how long each takes.

What a command asks of it, the numbers that it measures, their paragraph and their tables. Torch is
only needed to measure them, see `layernorm_vs_rmsnorm_measurement`.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from normlab.analysis.report_tables import Cell, Table
from normlab.analysis.statistics import Spread, quartile_spread, ratio_spread
from normlab.apps.card.record import Invariance
from normlab.apps.experiments.formatting import (
    build_table,
    format_factor,
    format_percent,
    format_short,
)
from normlab.archive.steadiness import NOT_COMPARABLE, is_steady, speed_variation
from normlab.archive.versioned_json import none_to_nan
from normlab.text import join_words

if TYPE_CHECKING:
    # Hydra, which drawing stored numbers does not need.
    from normlab.apps.experiments.arguments import MeasurementArguments

# The implementations that are timed, in the order of figure and sentences, and what they are.
IMPLEMENTATIONS = {
    "fused": "in normlab's kernels",
    "torch": "in torch's functions",
    "compiled": "with torch.compile",
    "composite": "written out",
    "x.var": "with x.var",
}
# LayerNorm with x.var has no RMSNorm counterpart; it is compared with this implementation's
# RMSNorm.
NAIVE, WRITTEN_OUT = "x.var", "composite"
# The share of LayerNorm's time that RMSNorm saves in whole models, as its paper says (1910.07467).
# The tutorial that normlab began with makes "7–64 % faster" of it, and its script prints "6713 %".
CLAIMED_SAVING = 0.07, 0.64
_PRINTED = 67.13
_NORM_NAMES = {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm"}
_BYTES = 4  # of a number in fp32


class LayerNormVsRmsNormSettings:
    """Shapes, rounds and seed, of a budget in conf/experiment and of the command."""

    ALLOWED_KEYS = ("model.width",)
    ROUNDS: ClassVar = {"quick": 15, "standard": 60, "full": 300}
    TOKENS = 1024

    def __init__(self, arguments: "MeasurementArguments") -> None:
        widths = arguments.integers("model.width", 512, minimum=2)
        self.shapes = [(self.TOKENS, width) for width in widths]
        # 512 at every budget of conf/experiment.
        self.width = widths[-1] if len(widths) < 3 else widths[1]
        self.seed = arguments.single_integer("seed", 0, "one draw of inputs is timed", minimum=0)
        self.rounds = self.ROUNDS[str(arguments.master.hydra.runtime.choices.budget)]
        self.threads = arguments.threads

    @property
    def recorded(self) -> dict[str, Any]:
        """What decides the numbers, as JSON holds it."""
        return {
            "rounds": self.rounds,
            "shapes": [list(shape) for shape in self.shapes],
            "width": self.width,
            "seeds": [self.seed],
            "threads": self.threads,
        }

    @property
    def steps(self) -> int:
        """How often the measurement reports a step."""
        return 2 + len(self.shapes) * (1 + self.rounds)


@dataclass(frozen=True)
class Moments:
    """Mean, standard deviation and RMS of a distribution, and the share of it in each bin."""

    mean: float
    std: float
    rms: float
    shares: tuple[float, ...]


@dataclass(frozen=True)
class NormalizedInput:
    """One kind of input and what comes out of each norm.

    `edges` are those of the bins. `cosine` is the median over tokens between input and output, and
    `apart` the RMS of the difference between both outputs over that of LayerNorm's.
    """

    input: str
    edges: tuple[float, ...]
    before: Moments
    after: dict[str, Moments]
    cosine: dict[str, float]
    apart: float


@dataclass(frozen=True)
class NormTimes:
    """Milliseconds of one implementation on fp32 (tokens, width), a value for every round."""

    way: str  # a key of IMPLEMENTATIONS
    norm: str
    tokens: int
    width: int
    forward: tuple[float, ...]
    both: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(tokens, width)."""
        return self.tokens, self.width


@dataclass(frozen=True)
class TimeRatio:
    """RMSNorm's time over LayerNorm's: with backward, and forward alone; None if not steady."""

    implementation: str
    shape: tuple[int, int]
    both: Spread | None
    forward: Spread | None


@dataclass(frozen=True)
class LayerNormVsRmsNorm:
    """What LayerNorm and RMSNorm do, side by side.

    `invariances` are by norm at its default eps and at none, `parameters` by norm at `width`,
    `not_timed` says of an implementation why it has no times.
    """

    SETTINGS: ClassVar = LayerNormVsRmsNormSettings

    inputs: tuple[NormalizedInput, ...]
    invariances: dict[str, tuple[Invariance, ...]]
    width: int
    parameters: dict[str, int]
    times: tuple[NormTimes, ...]
    not_timed: dict[str, str]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(tokens, width) of all times, in their order."""
        return list(dict.fromkeys(times.shape for times in self.times))

    def ratio_to_torch(self, times: NormTimes) -> Spread | None:
        """Time with backward over that of F.layer_norm at its shape; None if not steady."""
        reference = next(
            other
            for other in self.times
            if (other.way, other.norm, other.shape) == ("torch", "layernorm", times.shape)
        )
        return _steady_ratio(times.both, reference.both)

    def time_ratios(self, implementations: Iterable[str]) -> list[TimeRatio]:
        """RMSNorm against LayerNorm, for each implementation and shape with times of both."""
        times = {(t.way, t.norm, t.shape): t for t in self.times}
        ratios = []
        for implementation in implementations:
            rms_implementation = WRITTEN_OUT if implementation == NAIVE else implementation
            for shape in self.shapes:
                layer = times.get((implementation, "layernorm", shape))
                rms = times.get((rms_implementation, "rmsnorm", shape))
                if layer and rms:
                    both = _steady_ratio(rms.both, layer.both)
                    forward = _steady_ratio(rms.forward, layer.forward)
                    ratios.append(TimeRatio(implementation, shape, both, forward))
        return ratios

    def write_sentences(self) -> list[str]:
        """What the numbers show, one paragraph's sentences in order."""
        ratios = self.time_ratios(name for name in IMPLEMENTATIONS if name != NAIVE)
        parameters = [
            f"{_NORM_NAMES[norm]} learns {count:,} numbers ({count * _BYTES:,} bytes)"
            for norm, count in self.parameters.items()
        ]
        return [
            *_describe_outputs(self.inputs),
            *_describe_invariances(self.invariances),
            f"At width {self.width} {join_words(parameters)}.",
            *_describe_times(ratios),
            *_test_claimed_speed([ratio.both for ratio in ratios if ratio.both]),
            *_test_printed_speed(ratios, self.time_ratios([NAIVE])),
            *(
                f"{IMPLEMENTATIONS[name]}: not timed, {reason}."
                for name, reason in self.not_timed.items()
            ),
        ]

    def build_tables(self) -> tuple[Table, ...]:
        """Medians of the times, distributions, invariances."""
        return _time_table(self), _distribution_table(self.inputs), _invariance_table(self)


def _steady_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread | None:
    if is_steady(speed_variation(numerators)) and is_steady(speed_variation(denominators)):
        return ratio_spread(numerators, denominators)
    return None


def _describe_outputs(inputs: Sequence[NormalizedInput]) -> Iterator[str]:
    for norm, name in _NORM_NAMES.items():
        mean = max(abs(kind.after[norm].mean) for kind in inputs)
        cosine = min(kind.cosine[norm] for kind in inputs)
        yield (
            f"{name}'s output has a mean of at most {format_short(mean)}, and a cosine with its "
            f"input of at least {format_short(cosine)}."
        )
    differences = [f"{format_percent(kind.apart)} ({kind.input})" for kind in inputs]
    yield f"Their outputs differ by {join_words(differences)}."


def _describe_invariances(invariances: dict[str, tuple[Invariance, ...]]) -> Iterator[str]:
    """The changes that neither output depends on, that only one does, that both do."""
    results = {key: {i.name: i for i in tested} for key, tested in invariances.items()}
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in results["layernorm"]:
        # At eps=0 an equation holds to rounding or not at all.
        norms = [n for n in _NORM_NAMES if results[f"{n} eps=0"][name].verdict != "yes"]
        groups.setdefault(tuple(norms), []).append(name)
    for dependent, names in groups.items():
        norms = list(dependent or _NORM_NAMES)
        exact, default = (
            max(none_to_nan(results[norm + eps][k].deviation) for norm in norms for k in names)
            for eps in (" eps=0", "")
        )
        subject = f"The output of {_NORM_NAMES[norms[0]]} alone depends"
        if len(norms) > 1:
            subject = "Both outputs depend" if dependent else "Neither output depends"
        changes = join_words([f"{name} ({results['layernorm'][name].equation})" for name in names])
        yield (
            f"{subject} on {changes}: it changes by at most {format_short(exact)} RMS at eps=0, by "
            f"{format_short(default)} with the default eps."
        )


def _describe_times(ratios: Sequence[TimeRatio]) -> Iterator[str]:
    noisy = sum(time_ratio.both is None for time_ratio in ratios)
    if noisy:
        yield (
            f"{noisy} of {len(ratios)} comparisons of times are {NOT_COMPARABLE}, and in no "
            f"sentence: the times vary by 10 % or more over the measurement."
        )
    medians: dict[str, list[float]] = {}
    for time_ratio in ratios:
        if time_ratio.both:
            medians.setdefault(time_ratio.implementation, []).append(time_ratio.both.median)
    ranges = []
    for implementation, values in medians.items():
        ends = dict.fromkeys(map(format_short, (min(values), max(values))))
        ranges.append(f"{'–'.join(ends)} {IMPLEMENTATIONS[implementation]}")
    if ranges:
        yield f"RMSNorm's time over LayerNorm's, forward and backward, is {join_words(ranges)}."


def _test_claimed_speed(ratios: Sequence[Spread]) -> Iterator[str]:
    """On the tutorial's claim "7–64 % faster", which is the paper's 7–64 % less time."""
    if not ratios:
        return
    faster = [ratio for ratio in ratios if ratio.high < 1]
    slower = sum(ratio.low > 1 for ratio in ratios)
    low, high = CLAIMED_SAVING
    fits = sum(low <= 1 - ratio.median <= high for ratio in faster)
    yield (
        f"Of {len(ratios)} comparisons within one implementation RMSNorm is faster in "
        f"{len(faster)} and slower in {slower}; in {len(ratios) - len(faster) - slower} the "
        f"quartiles of {min(ratio.count for ratio in ratios)} rounds cannot tell. In {fits} it "
        f"takes {100 * low:.0f}–{100 * high:.0f} % less time, the range that the RMSNorm paper "
        "measured in whole models."
    )


def _test_printed_speed(ratios: Sequence[TimeRatio], naive: Sequence[TimeRatio]) -> Iterator[str]:
    """On the "6713 % faster" that the tutorial's script prints."""
    largest = _largest_speedup(time for ratio in ratios for time in (ratio.forward, ratio.both))
    if largest:
        yield (
            f"The tutorial's script prints “{100 * _PRINTED:.0f} % faster”, which is a factor of "
            f"{1 + _PRINTED:.0f}; within one implementation the largest, forward or with "
            f"backward, is {format_factor(largest)}."
        )
    forward = _largest_speedup(ratio.forward for ratio in naive)
    both = _largest_speedup(ratio.both for ratio in naive)
    if largest and forward and both:
        yield (
            f"Over a LayerNorm written with x.var the written-out RMSNorm is up to "
            f"{format_factor(forward)} faster forward, {format_factor(both)} with backward."
        )


def _largest_speedup(ratios: Iterable[Spread | None]) -> float:
    """By what factor RMSNorm is faster at most, of the ratios that can be compared; 0 of none."""
    return max((1 / ratio.median for ratio in ratios if ratio), default=0.0)


def _time_table(numbers: LayerNormVsRmsNorm) -> Table:
    rows = []
    for times in numbers.times:
        ratio = numbers.ratio_to_torch(times)
        medians = quartile_spread(times.forward).median, quartile_spread(times.both).median
        cells = [Cell(f"{median:.3f}", median) for median in medians]
        cells.append(Cell(str(ratio), ratio.median) if ratio else Cell(NOT_COMPARABLE, math.nan))
        rows.append((times.norm, times.way, *times.shape, *cells))
    caption = "fp32, median over rounds; ratios inside a round (quartiles)."
    numeric = ("tokens", "width", "forward, ms", "with backward, ms", "over F.layer_norm")
    return build_table(caption, ("norm", "made"), numeric, rows)


def _distribution_table(inputs: Sequence[NormalizedInput]) -> Table:
    rows = []
    for kind in inputs:
        outputs = [("as it comes", kind.before, 1.0)]
        outputs += [(norm, after, kind.cosine[norm]) for norm, after in kind.after.items()]
        for name, moments, cosine in outputs:
            rows.append((kind.input, name, moments.mean, moments.std, moments.rms, cosine))
    caption = "What each does to a distribution; the cosine is the median over tokens."
    numeric = ("mean", "std", "RMS", "cosine with input")
    return build_table(caption, ("input", "norm"), numeric, rows)


def _invariance_table(numbers: LayerNormVsRmsNorm) -> Table:
    rows = [
        (norm, result.name, result.equation, result.verdict, result.deviation)
        for norm, results in numbers.invariances.items()
        for result in results
    ]
    texts = ("norm", "invariance", "equation", "holds")
    caption = "Largest change of the output, over its RMS."
    return build_table(caption, texts, ("fails by, RMS",), rows)
