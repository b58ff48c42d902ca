"""The paragraphs of the measured experiments: templates that their numbers choose and fill.

`gradient_vanishing` and `layernorm_vs_rmsnorm` also test two claims of the tutorial that normlab
began with: a standard deviation, and a speed.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from normlab.analysis.spread import Spread
from normlab.apps.experiments.formatting import (
    format_percent,
    format_short,
    join_words,
)
from normlab.apps.experiments.record import (
    IMPLEMENTATIONS,
    NAIVE,
    DepthProfile,
    GradientVanishing,
    LayerNormVsRmsNorm,
    TimeRatio,
)
from normlab.apps.experiments.signal_theory import LayerSignal, expected_signal, rms_floor
from normlab.archive.steadiness import NOT_COMPARABLE
from normlab.archive.versioned_json import none_to_nan

_TOLERANCE = 0.05  # within which theory has to be at every layer
_SAME = 0.1  # relative difference of two standard deviations that count as one
_MOST_CHANGE = 2.0  # factor from end to end within which a signal is preserved
_LEAST_SHARE = 1e-24  # below it float64 cannot tell what is left of the input from rounding
_TUTORIAL_WIDTH, _TUTORIAL_LAYER, _TUTORIAL_STD = 512, 8, 0.016
# What the tutorial says of RMSNorm's speed, and what its script prints.
CLAIMED_LOW, CLAIMED_HIGH, _PRINTED = 0.07, 0.64, 67.13
_NORM_NAMES = {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm"}
_BYTES = 4  # of a number in fp32


def describe_gradient_vanishing(numbers: GradientVanishing) -> list[str]:
    """What the numbers show, one paragraph's sentences in order."""
    stack = numbers.stacks[0]
    by_init = {
        profile.init: profile
        for profile in numbers.stacks
        if (profile.norm, profile.width, profile.depth) == ("none", stack.width, stack.depth)
    }
    return [
        _describe_decay(stack),
        _describe_floor(stack, by_init["no biases"], numbers.deep),
        *_test_claimed_std(stack, numbers.deep),
        _describe_information(stack),
        _describe_gradient(stack),
        _describe_kaiming(by_init["Kaiming"]),
        *_describe_norms([profile for profile in numbers.stacks if profile.norm != "none"]),
        *_describe_transformers(numbers.transformers),
    ]


def theory_deviation(profile: DepthProfile) -> tuple[float, int]:
    """How far theory is from a stack without a norm, and at which layer it is farthest.

    Of RMS and standard deviation, relative to the measurement.
    """
    theory = _expect_signal(profile)
    deviations = [
        (abs(getattr(layer, quantity) / value - 1) if value > 0 else math.inf, index)
        for quantity in ("rms", "std")
        for index, (layer, value) in enumerate(zip(theory, profile.by_layer(quantity), strict=True))
    ]
    return max(deviations, key=lambda pair: pair[0])


def _expect_signal(stack: DepthProfile) -> list[LayerSignal]:
    weight, bias = stack.weight or 0.0, (stack.bias or 0.0) / stack.width
    return expected_signal(stack.depth, weight, bias)


def _last_std(profile: DepthProfile) -> str:
    return format_short(profile.by_layer("std")[-1])


def _describe_decay(stack: DepthProfile) -> str:
    deviation, layer = theory_deviation(stack)
    percent, limit = format_percent(deviation), format_percent(_TOLERANCE)
    seeds = "1 seed" if stack.seeds == 1 else f"{stack.seeds} seeds"
    if deviation <= _TOLERANCE:
        theory = f"within {percent} of that at every layer (farthest at layer {layer}; {seeds})"
    elif 2 * stack.by_layer("rms_error")[layer] < deviation:
        theory = f"{percent} off at layer {layer} ({seeds}), more than the {limit} it is good for"
    else:  # also where a single seed has no error
        theory = f"{percent} off at layer {layer}, and {seeds} cannot tell that from chance"
    return (
        f"A stack of Linear and ReLU, {stack.width} wide, with PyTorch's initialisation takes a "
        f"std of 1 to {_last_std(stack)} at layer {stack.depth}; theory is {theory}."
    )


def _describe_floor(stack: DepthProfile, bare: DepthProfile, deep: DepthProfile) -> str:
    std, bare_std, deep_std = (profile.by_layer("std")[-1] for profile in (stack, bare, deep))
    same = abs(deep_std / std - 1) < _SAME
    deep_layer = f"layer {deep.depth} has {_last_std(deep)}"
    without = f"without biases layer {bare.depth} has {_last_std(bare)}"
    floor = format_short(rms_floor(stack.width))
    if same and bare_std < std / 2:
        return (
            f"That is a floor that the biases hold up (RMS 1/√(5n) = {floor}), the same at any "
            f"depth: {deep_layer}; {without}."
        )
    if same:
        return f"It does not change with depth ({deep_layer}), nor without biases."
    if deep_std < std:
        return f"It goes on falling from there: {deep_layer}; {without}."
    return f"Deeper it is larger: {deep_layer} after {_last_std(stack)}; {without}."


def _test_claimed_std(stack: DepthProfile, deep: DepthProfile) -> Iterator[str]:
    """On the tutorial's claim "no norm decays to std 0.016 at layer 8"."""
    if stack.width != _TUTORIAL_WIDTH or stack.depth < _TUTORIAL_LAYER:
        return
    std = stack.by_layer("std")[_TUTORIAL_LAYER]
    if not abs(std / _TUTORIAL_STD - 1) < _TOLERANCE:
        verdict = f"is not what is measured: {format_short(std)}"
    elif abs(deep.by_layer("std")[-1] / std - 1) < _SAME:
        verdict = (
            f"is right as a number and wrong as a sign of decay: it is {format_short(std)} there, "
            f"and {_last_std(deep)} at layer {deep.depth}"
        )
    else:
        verdict = f"is right: it is {format_short(std)} there, and it goes on changing with depth"
    yield f"The tutorial's “{_TUTORIAL_STD} at layer {_TUTORIAL_LAYER}” {verdict}."


def _describe_information(stack: DepthProfile) -> str:
    share, theory = stack.by_layer("share")[-1], _expect_signal(stack)[-1].share
    depends = (
        f"{format_short(share)} of the variance at layer {stack.depth} depends on the input "
        f"(theory {format_short(theory)})"
    )
    if not share > _LEAST_SHARE:
        return f"Nothing that float64 could tell of the input is left at layer {stack.depth}."
    if share < 0.01:
        return f"What is lost is information: {depends}, the rest is the same for every input."
    return f"Information is not lost yet: {depends}."


def _describe_gradient(stack: DepthProfile) -> str:
    total = stack.by_layer("gradient")[0]
    factor, theory = total ** (1 / stack.depth), math.sqrt((stack.weight or 0.0) / 2)
    verb = "falls" if factor < 1 / 1.05 else "grows" if factor > 1.05 else "stays"
    return (
        f"The gradient {verb} by ×{factor:.3f} a layer on its way back (theory {theory:.3f}), "
        f"×{format_short(total)} over all {stack.depth}."
    )


def _describe_kaiming(stack: DepthProfile) -> str:
    std = stack.by_layer("std")[1:]
    steady = max(std) / min(std) < _MOST_CHANGE and _preserves_signal(stack)
    gradient, share = stack.by_layer("gradient")[0], stack.by_layer("share")[-1]
    return (
        f"Kaiming's weights {'hold' if steady else 'do not hold'} both (std {min(std):.2f} to "
        f"{max(std):.2f}, gradient ×{format_short(gradient)}); {format_short(share)} of the "
        f"variance still depends on the input."
    )


def _preserves_signal(stack: DepthProfile) -> bool:
    """Whether std from the first layer on, and the gradient, stay as they are."""
    std, gradient = stack.by_layer("std"), stack.by_layer("gradient")
    factors = (std[-1] / std[1], gradient[0])
    return all(1 / _MOST_CHANGE <= factor <= _MOST_CHANGE for factor in factors)


def _describe_norms(stacks: Sequence[DepthProfile]) -> Iterator[str]:
    parts: dict[bool, list[str]] = {True: [], False: []}
    for stack in stacks:
        gradient = format_short(stack.by_layer("gradient")[0])
        share = format_short(stack.by_layer("share")[-1])
        part = f"{stack.norm} (std {_last_std(stack)}, gradient ×{gradient}, information {share})"
        parts[_preserves_signal(stack)].append(part)
    if parts[True]:
        yield f"Before each ReLU, signal and gradient hold with {join_words(parts[True])}."
    if parts[False]:
        yield f"Before each ReLU, signal and gradient do not hold with {join_words(parts[False])}."


def _describe_transformers(profiles: Sequence[DepthProfile]) -> Iterator[str]:
    """How stream and gradient change from the first block to the last: all, then the worst."""
    if profiles[0].depth < 2:
        return
    (init, first), *others = [
        (init, list(arms)) for init, arms in groupby(profiles, key=lambda profile: profile.init)
    ]
    names_by_change: dict[str, list[str]] = {}
    for profile in first:
        names_by_change.setdefault(_describe_change(profile), []).append(profile.name)
    changes = [f"{change} with {join_words(names)}" for change, names in names_by_change.items()]
    yield (
        f"In a Transformer with weights of std {init}, the stream changes from block 1 to "
        f"{first[0].depth}, and its gradient on the way back, by {'; '.join(changes)}."
    )
    for init, arms in others:
        worst = max(arms, key=lambda profile: max(map(_distance_from_one, _changes(profile))))
        yield (
            f"With {init}'s initialisation no arm is farther from ×1 than {worst.name} "
            f"({_describe_change(worst)})."
        )


def _changes(profile: DepthProfile) -> tuple[float, float]:
    """Factors of the stream's RMS from block 1 to the last, and of its gradient back."""
    rms = profile.by_layer("rms")
    return rms[-1] / rms[1], profile.by_layer("gradient")[1]


def _describe_change(profile: DepthProfile) -> str:
    factors = [
        format_short(factor) if math.isnan(factor) else f"×{format_short(factor)}"
        for factor in _changes(profile)
    ]
    return " and ".join(factors)


def _distance_from_one(factor: float) -> float:
    """On a logarithmic scale; nothing is farther than a factor that is not finite."""
    return abs(math.log(factor)) if factor > 0 else math.inf


def describe_layernorm_vs_rmsnorm(numbers: LayerNormVsRmsNorm) -> list[str]:
    """What the numbers show, one paragraph's sentences in order."""
    ratios = numbers.time_ratios([name for name in IMPLEMENTATIONS if name != NAIVE])
    return [
        *_describe_outputs(numbers),
        *_describe_invariances(numbers),
        _describe_parameters(numbers),
        *_describe_times(ratios),
        *_test_claimed_speed(ratios),
        *_test_printed_speed(ratios, numbers.time_ratios([NAIVE])),
        *(
            f"{IMPLEMENTATIONS[name]}: not timed, {reason}."
            for name, reason in numbers.not_timed.items()
        ),
    ]


def _describe_outputs(numbers: LayerNormVsRmsNorm) -> Iterator[str]:
    for norm, name in _NORM_NAMES.items():
        mean = max(abs(kind.after[norm].mean) for kind in numbers.inputs)
        cosine = min(kind.cosine[norm] for kind in numbers.inputs)
        centre = (
            "takes the mean out of every input"
            if mean < 0.01
            else f"leaves a mean of up to {format_short(mean)}"
        )
        direction = (
            "keeps every token's direction"
            if cosine > 1 - 1e-6
            else f"turns tokens (cosine down to {format_short(cosine)})"
        )
        yield f"{name} {centre} and {direction}."
    same = [kind.input for kind in numbers.inputs if kind.apart < 1e-6]
    different = [
        f"{format_percent(kind.apart)} ({kind.input})"
        for kind in numbers.inputs
        if not kind.apart < 1e-6
    ]
    parts = [f"the same for inputs of {join_words(same)}"] if same else []
    parts += [f"apart by {join_words(different)} of the output"] if different else []
    yield f"Their outputs are {', and '.join(parts)}."


def _describe_invariances(numbers: LayerNormVsRmsNorm) -> Iterator[str]:
    """What neither norm feels, what only one of them does, what both do."""
    results = {
        key: {result.name: result for result in tested}
        for key, tested in numbers.invariances.items()
    }
    invariances: dict[tuple[str, ...], list[str]] = {}
    for name in results["layernorm"]:
        feel = tuple(n for n in _NORM_NAMES if results[f"{n} eps=0"][name].verdict != "yes")
        invariances.setdefault(feel, []).append(name)

    def largest_change(norms: Sequence[str], eps: str, names: Sequence[str]) -> str:
        changes = [results[norm + eps][name].deviation for norm in norms for name in names]
        return format_short(max(map(none_to_nan, changes)))

    for sensitive, names in invariances.items():
        equations = join_words([f"{n} ({results['layernorm'][n].equation})" for n in names])
        if not sensitive:
            yield (
                f"Neither feels {equations}: at eps=0 the output changes by "
                f"{largest_change(list(_NORM_NAMES), ' eps=0', names)} RMS at most, with the "
                f"default eps by {largest_change(list(_NORM_NAMES), '', names)}."
            )
        elif len(sensitive) == 1:
            yield (
                f"{_NORM_NAMES[sensitive[0]]} alone feels {equations}: its output changes by "
                f"{largest_change(sensitive, ' eps=0', names)} RMS."
            )
        else:
            yield f"Both feel {equations}."


def _describe_parameters(numbers: LayerNormVsRmsNorm) -> str:
    counts = [
        f"{_NORM_NAMES[norm]} learns {count:,} numbers ({count * _BYTES:,} bytes)"
        for norm, count in numbers.parameters.items()
    ]
    return f"At width {numbers.width} {join_words(counts)}."


def _describe_times(ratios: Sequence[TimeRatio]) -> Iterator[str]:
    noisy = sum(ratio.both is None for ratio in ratios)
    if noisy:
        yield (
            f"{noisy} of {len(ratios)} comparisons of times are {NOT_COMPARABLE}, and in no "
            f"sentence: the times vary by 10 % or more over the measurement."
        )
    medians: dict[str, list[float]] = {}
    for ratio in ratios:
        if ratio.both:
            medians.setdefault(ratio.implementation, []).append(ratio.both.median)
    parts = []
    for implementation, values in medians.items():
        ends = dict.fromkeys(map(format_short, (min(values), max(values))))
        parts.append(f"{'–'.join(ends)} {IMPLEMENTATIONS[implementation]}")
    if parts:
        yield f"RMSNorm's time over LayerNorm's, forward and backward, is {join_words(parts)}."


def _test_claimed_speed(ratios: Sequence[TimeRatio]) -> Iterator[str]:
    """On the tutorial's claim "7–64 % faster": as much more is done in the same time."""
    steady = [ratio.both for ratio in ratios if ratio.both]
    if not steady:
        return
    faster = [ratio for ratio in steady if ratio.high < 1]
    slower = [ratio for ratio in steady if ratio.low > 1]
    fits = sum(CLAIMED_LOW <= 1 / ratio.median - 1 <= CLAIMED_HIGH for ratio in faster)
    counts = [f"faster in {len(faster)}", f"slower in {len(slower)}"]
    undecided = len(steady) - len(faster) - len(slower)
    if undecided:
        rounds = min(ratio.count for ratio in steady)
        counts.append(f"in {undecided} the quartiles of {rounds} rounds cannot tell")
    verdict = f"fits {fits or 'none'} of them" if fits < len(steady) else "holds for all of them"
    yield (
        f"Of {len(steady)} comparisons like for like RMSNorm is {join_words(counts)}; the "
        f"tutorial's “{100 * CLAIMED_LOW:.0f}–{100 * CLAIMED_HIGH:.0f} % faster” {verdict}."
    )


def _test_printed_speed(ratios: Sequence[TimeRatio], naive: Sequence[TimeRatio]) -> Iterator[str]:
    """On the "6713 % faster" that the tutorial's script prints."""
    printed = 1 + _PRINTED
    best = _largest_speedup(time for ratio in ratios for time in (ratio.forward, ratio.both))
    if not best:
        return
    claim = f"Its script's “{100 * _PRINTED:.0f} % faster” would be a factor of {printed:.0f}"
    if best >= printed / 2:
        yield f"{claim}; like for like ×{format_short(best)} is reached."
        return
    yield f"{claim}; like for like the largest, forward or with backward, is ×{format_short(best)}."
    forward = _largest_speedup(ratio.forward for ratio in naive)
    both = _largest_speedup(ratio.both for ratio in naive)
    if forward and both:
        near = "comes near it" if max(forward, both) >= printed / 4 else "is not so slow either"
        yield (
            f"A LayerNorm written with x.var {near}: the written-out RMSNorm is up to "
            f"×{format_short(forward)} faster than that forward, ×{format_short(both)} with "
            f"backward."
        )


def _largest_speedup(ratios: Iterator[Spread | None]) -> float:
    """By what factor RMSNorm is faster at most, of the ratios that can be compared; 0 of none."""
    return max((1 / ratio.median for ratio in ratios if ratio), default=0.0)


DESCRIPTIONS: dict[str, Any] = {
    "gradient_vanishing": describe_gradient_vanishing,
    "layernorm_vs_rmsnorm": describe_layernorm_vs_rmsnorm,
}
