"""`gradient_vanishing`: signal, information and gradient by depth at initialization.

What a command asks of it, the numbers that it measures, their paragraph and their tables. Torch is
only needed to measure them, see `gradient_vanishing_measurement`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

from normlab.analysis.report_tables import Table
from normlab.apps.experiments.formatting import (
    build_table,
    format_factor,
    format_percent,
    format_short,
)
from normlab.apps.experiments.signal_theory import (
    expected_gradient,
    expected_signal,
    rms_floor,
)
from normlab.archive.versioned_json import FiniteNumber, none_to_nan
from normlab.text import count_noun, join_words

if TYPE_CHECKING:
    # Hydra, which drawing stored numbers does not need.
    from normlab.apps.experiments.arguments import MeasurementArguments

_SAME = 0.1  # relative difference of two standard deviations that count as equal
_MOST_CHANGE = 2  # factor from end to end within which a signal is preserved
_LEAST_SHARE = 1e-24  # below it float64 cannot tell what is left of the input from rounding
# The tutorial that normlab began with: "no norm decays to std 0.016 at layer 8", at this width.
_TUTORIAL_WIDTH, _TUTORIAL_LAYER, _TUTORIAL_STD = 512, 8, 0.016
_TUTORIAL_TOLERANCE = 0.05


class GradientVanishingSettings:
    """Widths, depth, seeds and networks, of a budget in conf/experiment and of the command."""

    ALLOWED_KEYS = ("norm", "norm.", "placement", "model.width", "model.depth", "model.heads")
    # The deep stack has so many times the layers: what is a floor is the same there.
    DEPTH_FACTOR = 10
    INPUTS = 128

    def __init__(self, arguments: "MeasurementArguments") -> None:
        self.widths = arguments.integers("model.width", 512)
        reason = "every layer up to the depth is measured anyway"
        self.depth = arguments.single_integer("model.depth", 8, reason)
        self.deep = self.DEPTH_FACTOR * self.depth
        self.seeds = arguments.integers("seed", 0, minimum=0)
        # The deep stack and other widths take a tenth of the seeds, the Transformers a thirtieth.
        self.deep_seeds = self.seeds[: math.ceil(len(self.seeds) / 10)]
        self.transformer_seeds = self.seeds[: math.ceil(len(self.seeds) / 30)]
        shape = {"model__width": self.widths[0], "model__depth": self.depth, "seed": 0}
        self.specs = arguments.specify_networks(("norm", "placement"), **shape)
        self.norms = {
            spec.choices["norm"]: spec.plain["norm"]
            for spec in arguments.specify_networks(("norm",), placement="pre", **shape)
        }

    @property
    def recorded(self) -> dict[str, Any]:
        """What decides the numbers, as JSON holds it."""
        return {
            "widths": self.widths,
            "depth": self.depth,
            "deep": self.deep,
            "inputs": self.INPUTS,
            "seeds": self.seeds,
            "norms": self.norms,
            # A run's name goes on with its learning rate, which has no meaning here.
            "networks": {spec.name.rpartition("-lr")[0]: spec.id for spec in self.specs},
        }

    @property
    def steps(self) -> int:
        """How often the measurement reports a step."""
        deep = len(self.widths) * len(self.deep_seeds)
        return len(self.seeds) + deep + 2 * len(self.specs) * len(self.transformer_seeds)


@dataclass(frozen=True)
class DepthProfile:
    """Signal and gradient by depth at initialization: index 0 is the input, then layer by layer.

    `rms`, `std` are those of the activations over features, inputs and seeds; `share` is the part
    of their variance that is variance across inputs at fixed weights; `gradient` is the norm of the
    loss's gradient there over that at the last layer; the errors are relative, one standard error
    over the seeds. `weight` and `bias` are the variances of a layer's weights and biases times the
    width, where layers are all alike.
    """

    name: str
    norm: str
    placement: str | None  # None: a stack of Linear and ReLU
    init: str
    width: int
    seeds: int
    rms: tuple[FiniteNumber, ...]
    std: tuple[FiniteNumber, ...]
    share: tuple[FiniteNumber, ...]
    gradient: tuple[FiniteNumber, ...]
    rms_error: tuple[FiniteNumber, ...]
    gradient_error: tuple[FiniteNumber, ...]
    weight: float | None = None
    bias: float | None = None

    @property
    def depth(self) -> int:
        """How many layers, or blocks, there are."""
        return len(self.rms) - 1

    def by_layer(self, quantity: str) -> list[float]:
        """A field with a number a layer, NaN where it is not finite."""
        return list(map(none_to_nan, getattr(self, quantity)))

    def expected_by_layer(self, quantity: str) -> list[float]:
        """What theory says of a stack's rms, std, share or gradient, by layer."""
        weight, bias = self.weight or 0.0, (self.bias or 0.0) / self.width
        normalized = self.norm != "none"
        if quantity == "gradient":
            return expected_gradient(self.depth, weight, bias, normalized)
        layers = expected_signal(self.depth, weight, bias, normalized)
        return [getattr(layer, quantity) for layer in layers]


@dataclass(frozen=True)
class GradientVanishing:
    """Profiles of stacks of Linear and ReLU, and of Transformers' residual streams by block.

    `deep` is the first stack with many times the layers, forward only.
    """

    SETTINGS: ClassVar = GradientVanishingSettings

    stacks: tuple[DepthProfile, ...]
    deep: DepthProfile
    transformers: tuple[DepthProfile, ...]

    def write_sentences(self) -> list[str]:
        """What the numbers show, one paragraph's sentences in order."""
        stack = self.stacks[0]
        by_init = {
            profile.init: profile
            for profile in self.stacks
            if (profile.norm, profile.width, profile.depth) == ("none", stack.width, stack.depth)
        }
        return [
            *_describe_signal(stack, by_init["no biases"], self.deep),
            *_describe_losses(stack),
            _describe_kaiming(by_init["Kaiming"]),
            *_describe_norms([profile for profile in self.stacks if profile.norm != "none"]),
            *_describe_transformers(self.transformers),
        ]

    def build_tables(self) -> tuple[Table, ...]:
        """Of every profile what is at its ends."""
        stacks = _profile_table("Linear and ReLU,", "layer", (*self.stacks, self.deep))
        return stacks, _profile_table("The residual stream", "block", self.transformers)


def theory_deviation(profile: DepthProfile) -> tuple[float, int]:
    """How far theory is from a stack without a norm, and at which layer it is farthest.

    Of RMS and standard deviation, relative to the measurement.
    """
    deviations = [
        (abs(expected / value - 1) if value > 0 else math.inf, layer)
        for quantity in ("rms", "std")
        for layer, (expected, value) in enumerate(
            zip(profile.expected_by_layer(quantity), profile.by_layer(quantity), strict=True)
        )
    ]
    return max(deviations, key=lambda pair: pair[0])


def _describe_signal(stack: DepthProfile, bare: DepthProfile, deep: DepthProfile) -> Iterator[str]:
    """The standard deviation by depth, beside theory and beside the tutorial's number."""
    std, bare_std, deep_std = (profile.by_layer("std")[-1] for profile in (stack, bare, deep))
    deviation, layer = theory_deviation(stack)
    error = stack.by_layer("rms_error")[layer]
    certainty = "unknown" if math.isnan(error) else format_percent(error)
    yield (
        f"In a stack of Linear and ReLU, {stack.width} wide, with PyTorch's initialization the std "
        f"goes from 1 at the input to {format_short(std)} at layer {stack.depth}; theory differs "
        f"most at layer {layer}, by {format_percent(deviation)} "
        f"({count_noun(stack.seeds, 'seed')}, standard error {certainty})."
    )
    change = "does not change" if abs(deep_std / std - 1) < _SAME else "changes"
    yield (
        f"With further depth it {change}: layer {deep.depth} has {format_short(deep_std)}. Without "
        f"biases layer {bare.depth} has {format_short(bare_std)}; the biases hold an RMS of "
        f"1/√(5n) = {format_short(rms_floor(stack.width))} at any depth."
    )
    if stack.width == _TUTORIAL_WIDTH and stack.depth >= _TUTORIAL_LAYER:
        layer_std = stack.by_layer("std")[_TUTORIAL_LAYER]
        verdict = "is measured, and it goes on changing"
        # `not … <`, for a NaN is not below anything.
        if not abs(layer_std / _TUTORIAL_STD - 1) < _TUTORIAL_TOLERANCE:
            verdict = "is not what is measured"
        elif abs(deep_std / layer_std - 1) < _SAME:
            verdict = "is measured, but is no sign of decay"
        yield (
            f"The tutorial's “{_TUTORIAL_STD} at layer {_TUTORIAL_LAYER}” {verdict}: the std is "
            f"{format_short(layer_std)} there and {format_short(deep_std)} at layer {deep.depth}."
        )


def _describe_losses(stack: DepthProfile) -> Iterator[str]:
    """What is lost: information in the forward pass, gradient in the backward pass."""
    share, share_theory = stack.by_layer("share")[-1], stack.expected_by_layer("share")[-1]
    if share > _LEAST_SHARE:
        yield (
            f"{format_short(share)} of the variance at layer {stack.depth} depends on the input "
            f"(theory {format_short(share_theory)}), the rest is the same for every input."
        )
    else:
        yield f"Nothing that float64 could tell of the input is left at layer {stack.depth}."
    gradient = stack.by_layer("gradient")[0]
    factor, factor_theory = gradient ** (1 / stack.depth), math.sqrt((stack.weight or 0.0) / 2)
    yield (
        f"In the backward pass the gradient changes by ×{factor:.3f} a layer (theory "
        f"{factor_theory:.3f}), {format_factor(gradient)} over all {stack.depth}."
    )


def _describe_kaiming(stack: DepthProfile) -> str:
    std = stack.by_layer("std")[1:]
    return (
        f"With Kaiming's weights the std is {min(std):.2f} to {max(std):.2f}, the gradient changes "
        f"by {format_factor(stack.by_layer('gradient')[0])}, and "
        f"{format_short(stack.by_layer('share')[-1])} of the variance depends on the input."
    )


def _describe_norms(stacks: Sequence[DepthProfile]) -> Iterator[str]:
    lists: dict[bool, list[str]] = {True: [], False: []}
    for stack in stacks:
        std, gradient, share = (stack.by_layer(name) for name in ("std", "gradient", "share"))
        factors = std[-1] / std[1], gradient[0]
        preserved = all(1 / _MOST_CHANGE <= factor <= _MOST_CHANGE for factor in factors)
        lists[preserved].append(
            f"{stack.norm} (std {format_short(std[-1])}, gradient {format_factor(gradient[0])}, "
            f"information {format_short(share[-1])})"
        )
    for preserved, names in lists.items():
        if names:
            yield (
                f"Before each ReLU, std and gradient {'stay' if preserved else 'do not stay'} "
                f"within a factor of {_MOST_CHANGE} with {join_words(names)}."
            )


def _describe_transformers(profiles: Sequence[DepthProfile]) -> Iterator[str]:
    """How stream and gradient change from the first block to the last: all, then the worst."""
    if profiles[0].depth < 2:
        return
    (init, first), *further = [
        (init, list(arms)) for init, arms in groupby(profiles, key=lambda profile: profile.init)
    ]
    yield (
        f"In a Transformer with weights of std {init}, the stream changes from block 1 to "
        f"{first[0].depth}, and its gradient in the backward pass, by "
        f"{'; '.join(map(_describe_change, first))}."
    )
    for init, arms in further:
        worst = max(arms, key=lambda arm: max(map(_change_size, _block_changes(arm))))
        yield f"With {init}'s initialization the largest change is {_describe_change(worst)}."


def _describe_change(profile: DepthProfile) -> str:
    stream, gradient = map(format_factor, _block_changes(profile))
    return f"{stream} and {gradient} with {profile.name}"


def _block_changes(profile: DepthProfile) -> tuple[float, float]:
    """Factors of the stream's RMS from block 1 to the last, and of its gradient back."""
    rms = profile.by_layer("rms")
    return rms[-1] / rms[1], profile.by_layer("gradient")[1]


def _change_size(factor: float) -> float:
    """On a logarithmic scale; nothing is farther than a factor that is not finite."""
    return abs(math.log(factor)) if factor > 0 else math.inf


def _profile_table(network: str, unit: str, profiles: Sequence[DepthProfile]) -> Table:
    caption = (
        f"{network} at the last {unit}: RMS, standard deviation, and the share of variance across "
        f"inputs. Gradient: that of the loss at the input over that at the last {unit}."
    )
    rows = [
        (
            *(profile.norm if profile.placement is None else profile.name, profile.init),
            *(profile.width, profile.depth, profile.seeds),
            *(profile.rms[-1], profile.std[-1], profile.share[-1], profile.gradient[0]),
        )
        for profile in profiles
    ]
    numeric = ("width", f"{unit}s", "seeds", "RMS", "std", "information", "gradient")
    return build_table(caption, ("network", "init"), numeric, rows)
