"""What the numbers of `layernorm_vs_rmsnorm` show, in sentences that follow from them."""

from collections.abc import Iterable, Iterator, Sequence

from normlab.analysis.spread import Spread
from normlab.apps.experiments.numbers import joined, percent, plain, short
from normlab.apps.experiments.record import Comparison
from normlab.apps.experiments.times import NAIVE, WAYS, Pair, pairs
from normlab.archive.steadiness import NOT_COMPARABLE

# What the tutorial says of RMSNorm's speed, and what its script prints.
CLAIMED_LOW, CLAIMED_HIGH, PRINTED = 0.07, 0.64, 67.13
_SAME, _NO_MEAN, _KEPT = 1e-6, 0.01, 1 - 1e-6
_BYTES = 4  # of a number in fp32
_NAMES = {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm"}


def sentences(numbers: Comparison) -> list[str]:
    """One paragraph's sentences, in order."""
    like = list(pairs(numbers, [way for way in WAYS if way != NAIVE]))
    return [
        *_distribution(numbers),
        *_invariances(numbers),
        _parameters(numbers),
        *_not_comparable(like),
        *_like_for_like(like),
        *_claim(like),
        *_printed(like, list(pairs(numbers, [NAIVE]))),
        *(f"{WAYS[way]}: not timed, {why}." for way, why in numbers.not_timed.items()),
    ]


def _distribution(numbers: Comparison) -> Iterator[str]:
    for norm, name in _NAMES.items():
        means = [abs(one.after[norm].mean) for one in numbers.inputs]
        lowest = min(one.cosine[norm] for one in numbers.inputs)
        mean = (
            "takes the mean out of every input"
            if max(means) < _NO_MEAN
            else f"leaves a mean of up to {short(max(means))}"
        )
        direction = (
            "keeps every token's direction"
            if lowest > _KEPT
            else f"turns tokens (cosine down to {short(lowest)})"
        )
        yield f"{name} {mean} and {direction}."
    same = [one.input for one in numbers.inputs if one.apart < _SAME]
    others = [f"{percent(one.apart)} ({one.input})" for one in numbers.inputs if one.apart >= _SAME]
    parts = [f"the same for inputs of {joined(same)}"] if same else []
    parts += [f"apart by {joined(others)} of the output"] if others else []
    yield f"Their outputs are {', and '.join(parts)}."


def _invariances(numbers: Comparison) -> Iterator[str]:
    """What neither norm feels, what one of them does not, what both do."""
    groups: dict[tuple[str, ...], list[str]] = {}
    tried = {
        key: {one.name: one for one in several} for key, several in numbers.invariances.items()
    }
    for name in tried["layernorm"]:
        blind = tuple(norm for norm in _NAMES if tried[f"{norm} eps=0"][name].verdict == "yes")
        groups.setdefault(blind, []).append(name)

    def largest(keys: Sequence[str], names: Sequence[str]) -> str:
        return short(max(plain(tried[key][name].deviation) for key in keys for name in names))

    for blind, names in groups.items():
        what = joined([f"{name} ({tried['layernorm'][name].equation})" for name in names])
        feel = [norm for norm in _NAMES if norm not in blind]
        exact = largest([f"{norm} eps=0" for norm in feel or _NAMES], names)
        if not feel:
            yield (
                f"Neither feels {what}: at eps=0 the output changes by {exact} RMS at most, with "
                f"the default eps by {largest(list(_NAMES), names)}."
            )
        elif blind:
            yield f"{_NAMES[feel[0]]} alone feels {what}: its output changes by {exact} RMS."
        else:
            yield f"Both feel {what}."


def _parameters(numbers: Comparison) -> str:
    said = [
        f"{_NAMES[norm]} learns {count:,} numbers ({count * _BYTES:,} bytes)"
        for norm, count in numbers.parameters.items()
    ]
    return f"At width {numbers.width} {joined(said)}."


def _not_comparable(like: Sequence[Pair]) -> Iterator[str]:
    noisy = sum(one.both is None for one in like)
    if noisy:
        yield (
            f"{noisy} of {len(like)} comparisons of times are {NOT_COMPARABLE}, and in no "
            f"sentence: the times vary by 10 % or more over the measurement."
        )


def _like_for_like(like: Sequence[Pair]) -> Iterator[str]:
    said = []
    steady = [one for one in like if one.both]
    for way in dict.fromkeys(one.way for one in steady):
        values = [one.both.median for one in steady if one.both and one.way == way]
        span = short(min(values))
        if short(max(values)) != span:
            span += f"–{short(max(values))}"
        said.append(f"{span} {WAYS[way]}")
    if said:
        yield f"RMSNorm's time over LayerNorm's, forward and backward, is {joined(said)}."


def _claim(pairs_: Sequence[Pair]) -> Iterator[str]:
    like = [one.both for one in pairs_ if one.both]
    if not like:
        return
    faster = [one for one in like if one.high < 1]
    slower = [one for one in like if one.low > 1]
    open_ = len(like) - len(faster) - len(slower)
    within = [one for one in faster if CLAIMED_LOW <= _gain(one) <= CLAIMED_HIGH]
    rounds = min(one.count for one in like)
    said = [f"faster in {len(faster)}", f"slower in {len(slower)}"]
    said += [f"in {open_} the quartiles of {rounds} rounds cannot tell"] if open_ else []
    verdict = (
        "holds for all of them"
        if len(within) == len(like)
        else f"fits {len(within)} of them"
        if within
        else "fits none of them"
    )
    yield (
        f"Of {len(like)} comparisons like for like RMSNorm is {joined(said)}; the tutorial's "
        f"“{100 * CLAIMED_LOW:.0f}–{100 * CLAIMED_HIGH:.0f} % faster” {verdict}."
    )


def _gain(one: Spread) -> float:
    """How much more is done in the same time: 0.07 is 7 % faster."""
    return 1 / one.median - 1


def _most(ratios: Iterable[Spread | None]) -> float:
    """By what factor RMSNorm is faster at most, of the ratios that can be compared; 0 of none."""
    return max((1 / one.median for one in ratios if one), default=0.0)


def _printed(like: Sequence[Pair], naive: Sequence[Pair]) -> Iterator[str]:
    factor = 1 + PRINTED
    best = _most(ratio for one in like for ratio in (one.both, one.forward))
    if not best:
        return
    claim = f"Its script's “{100 * PRINTED:.0f} % faster” would be a factor of {factor:.0f}"
    if best >= factor / 2:
        yield f"{claim}; like for like ×{short(best)} is reached."
        return
    yield f"{claim}; like for like the largest, forward or with backward, is ×{short(best)}."
    forward, both = _most(one.forward for one in naive), _most(one.both for one in naive)
    if forward and both:
        near = "comes near it" if max(forward, both) >= factor / 4 else "is not so slow either"
        yield (
            f"A LayerNorm written with x.var {near}: the written-out RMSNorm is up to "
            f"×{short(forward)} faster than that forward, ×{short(both)} with backward."
        )
