"""What the numbers of `gradient_vanishing` show, in sentences that follow from them."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from normlab.apps.experiments import theory
from normlab.apps.experiments.numbers import joined, percent, plain, short
from normlab.apps.experiments.record import Profile, Vanishing

# Theory is of use where it is this near at every layer.
NEAR = 0.05
# Beyond these factors from end to end a signal is not held.
_HELD = 2.0
_ALIKE = 0.1
# Below it float64 cannot tell what is left of the input from rounding.
_LEAST_SHARE = 1e-24
_TUTORIAL_WIDTH, _TUTORIAL_LAYER, _TUTORIAL_STD = 512, 8, 0.016


def sentences(numbers: Vanishing) -> list[str]:
    """One paragraph's sentences, in order."""
    stack = numbers.stacks[0]
    inits = {one.init: one for one in numbers.stacks if one.norm == "none" and _alike(one, stack)}
    normed = [one for one in numbers.stacks if one.norm != "none"]
    return [
        _decay(stack),
        _floor(stack, inits["no biases"], numbers.deep),
        *_tutorial(stack, numbers.deep),
        _information(stack),
        _gradient(stack),
        _kaiming(inits["Kaiming"]),
        *_norms(normed),
        *_transformers(numbers.transformers),
    ]


def deviation(profile: Profile) -> tuple[float, int]:
    """How far theory is from a stack without a norm, at the layer where it is farthest.

    Of RMS and standard deviation, relative to what was measured.
    """
    weight, bias = plain(profile.weight), plain(profile.bias) / profile.width
    worst, where = 0.0, 0
    for at, layer in enumerate(theory.signal(profile.depth, weight, bias)):
        for expected, measured in ((layer.rms, profile.rms[at]), (layer.std, profile.std[at])):
            value = plain(measured)
            apart = abs(expected / value - 1) if value > 0 else math.inf
            if apart > worst:
                worst, where = apart, at
    return worst, where


def _alike(one: Profile, other: Profile) -> bool:
    return one.width == other.width and one.depth == other.depth


def _decay(stack: Profile) -> str:
    apart, layer = deviation(stack)
    start = (
        f"A stack of Linear and ReLU, {stack.width} wide, with PyTorch's initialisation takes a "
        f"std of 1 to {short(plain(stack.std[-1]))} at layer {stack.depth}"
    )
    seeds = "1 seed" if stack.seeds == 1 else f"{stack.seeds} seeds"
    if apart <= NEAR:
        return (
            f"{start}; theory is within {percent(apart)} of that at every layer (farthest at layer "
            f"{layer}; {seeds})."
        )
    error = plain(stack.rms_error[layer])
    if not 2 * error < apart:
        return (
            f"{start}; theory is {percent(apart)} off at layer {layer}, and {seeds} cannot tell "
            f"that from chance."
        )
    return (
        f"{start}; theory is {percent(apart)} off at layer {layer} ({seeds}), more than the "
        f"{percent(NEAR)} that it is good for."
    )


def _is_floor(stack: Profile, deep: Profile) -> bool:
    return abs(plain(deep.std[-1]) / plain(stack.std[-1]) - 1) < _ALIKE


def _floor(stack: Profile, bare: Profile, deep: Profile) -> str:
    last, far = short(plain(stack.std[-1])), short(plain(deep.std[-1]))
    without = f"without biases layer {bare.depth} has {short(plain(bare.std[-1]))}"
    rms = short(theory.floor(stack.width))
    if _is_floor(stack, deep):
        if plain(bare.std[-1]) < plain(stack.std[-1]) / 2:
            return (
                f"That is a floor that the biases hold up (RMS 1/√(5n) = {rms}), the same at any "
                f"depth: layer {deep.depth} has {far}; {without}."
            )
        return f"It does not change with depth (layer {deep.depth} has {far}), nor without biases."
    if plain(deep.std[-1]) < plain(stack.std[-1]):
        return f"It goes on falling from there: layer {deep.depth} has {far}; {without}."
    return f"Deeper it is larger: layer {deep.depth} has {far} after {last}; {without}."


def _tutorial(stack: Profile, deep: Profile) -> Iterator[str]:
    """On its claim "no norm decays to std 0.016 at layer 8"."""
    if stack.width != _TUTORIAL_WIDTH or stack.depth < _TUTORIAL_LAYER:
        return
    value = plain(stack.std[_TUTORIAL_LAYER])
    claim = f"The tutorial's “{_TUTORIAL_STD} at layer {_TUTORIAL_LAYER}”"
    if not abs(value / _TUTORIAL_STD - 1) < NEAR:
        yield f"{claim} is not what is measured: {short(value)}."
    elif abs(plain(deep.std[-1]) / value - 1) < _ALIKE:
        yield (
            f"{claim} is right as a number and wrong as a sign of decay: it is {short(value)} "
            f"there, and {short(plain(deep.std[-1]))} at layer {deep.depth}."
        )
    else:
        yield f"{claim} is right: it is {short(value)} there, and it goes on changing with depth."


def _information(stack: Profile) -> str:
    share = plain(stack.share[-1])
    bias = plain(stack.bias) / stack.width
    expected = theory.signal(stack.depth, plain(stack.weight), bias)[-1].share
    if not share > _LEAST_SHARE:
        return f"Nothing that float64 could tell of the input is left at layer {stack.depth}."
    of = (
        f"{short(share)} of the variance at layer {stack.depth} depends on the input (theory "
        f"{short(expected)})"
    )
    if share < 0.01:
        return f"What is lost is information: {of}, the rest is the same for every input."
    return f"Information is not lost yet: {of}."


def _gradient(stack: Profile) -> str:
    whole = plain(stack.gradient[0])
    factor, expected = whole ** (1 / stack.depth), math.sqrt(plain(stack.weight) / 2)
    verb = "falls" if factor < 1 / 1.05 else "grows" if factor > 1.05 else "stays"
    return (
        f"The gradient {verb} by ×{factor:.3f} a layer on its way back (theory {expected:.3f}), "
        f"×{short(whole)} over all {stack.depth}."
    )


def _kaiming(stack: Profile) -> str:
    values = [plain(value) for value in stack.std[1:]]
    ends = f"{min(values):.2f} to {max(values):.2f}"
    held = max(values) / min(values) < _HELD and _held(stack)
    return (
        f"Kaiming's weights {'hold' if held else 'do not hold'} both (std {ends}, gradient "
        f"×{short(plain(stack.gradient[0]))}); {short(plain(stack.share[-1]))} of the variance "
        f"still depends on the input."
    )


def _held(stack: Profile) -> bool:
    """Whether std from the first layer on, and the gradient, stay as they are."""
    first = plain(stack.std[1])
    factors = plain(stack.std[-1]) / first, plain(stack.gradient[0])
    return all(1 / _HELD <= factor <= _HELD for factor in factors)


def _norms(stacks: Sequence[Profile]) -> Iterator[str]:
    for held, group in groupby(sorted(stacks, key=_held, reverse=True), key=_held):
        parts = [
            f"{one.norm} (std {short(plain(one.std[-1]))}, gradient "
            f"×{short(plain(one.gradient[0]))}, information {short(plain(one.share[-1]))})"
            for one in group
        ]
        several = len(parts) > 1
        verb = (
            ("hold" if several else "holds") if held else f"{'do' if several else 'does'} not hold"
        )
        yield f"Before each ReLU, {joined(parts)} {verb} signal and gradient."


def _transformers(profiles: Sequence[Profile]) -> Iterator[str]:
    """Per initialisation: how stream and gradient change from the first block to the last."""
    for at, (init, group) in enumerate(groupby(profiles, key=lambda one: one.init)):
        arms = list(group)
        if arms[0].depth < 2:
            return
        if at == 0:
            named: dict[str, list[str]] = {}
            for one in arms:
                factors = f"{_times(_growth(one))} and {_times(_steepening(one))}"
                named.setdefault(factors, []).append(one.name)
            parts = [f"{factors} with {joined(names)}" for factors, names in named.items()]
            yield (
                f"In a Transformer with weights of std {init}, the stream changes from block 1 to "
                f"{arms[0].depth}, and its gradient on the way back, by {'; '.join(parts)}."
            )
        else:
            worst = max(arms, key=lambda one: _size(_growth(one), _steepening(one)))
            yield (
                f"With {init}'s initialisation no arm is farther from ×1 than {worst.name} "
                f"({_times(_growth(worst))} and {_times(_steepening(worst))})."
            )


def _growth(one: Profile) -> float:
    return plain(one.rms[-1]) / plain(one.rms[1])


def _steepening(one: Profile) -> float:
    return plain(one.gradient[1])


def _times(factor: float) -> str:
    return short(factor) if math.isnan(factor) else f"×{short(factor)}"


def _size(*factors: float) -> float:
    """How far the farthest of some factors is from 1; none is farther than one not finite."""
    return max(abs(math.log(factor)) if factor > 0 else math.inf for factor in factors)
