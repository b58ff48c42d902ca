"""The numbers behind the figures of experiments that train nothing, as tables."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from normlab.analysis.arms import SEPARATOR
from normlab.analysis.cells import Cell, Column, Table
from normlab.analysis.spread import spread
from normlab.apps.card.record import Number
from normlab.apps.experiments.numbers import plain, short
from normlab.apps.experiments.record import Comparison, Measured, Profile, Timed, Vanishing
from normlab.apps.experiments.times import over_torch
from normlab.archive.record import arm_name_parts
from normlab.archive.steadiness import NOT_COMPARABLE


def tables(found: Measured) -> tuple[Table, ...]:
    """Its numbers: of a profile by depth what is at its ends, of times their medians."""
    of: dict[str, Callable[[Any], tuple[Table, ...]]] = {
        "gradient_vanishing": _vanishing,
        "layernorm_vs_rmsnorm": _comparison,
    }
    return of[found.name](found.numbers)


def _number(value: Number) -> Cell:
    return Cell(short(plain(value)), plain(value))


def _vanishing(numbers: Vanishing) -> tuple[Table, ...]:
    stacks, blocks = (*numbers.stacks, numbers.deep), numbers.transformers
    ends = "at the last {}: RMS, standard deviation, and the share of variance across inputs."
    back = "Gradient: that of the loss at the input over that at the last {}."
    words = "Linear and ReLU, " + ends.format("layer") + " " + back.format("layer")
    streams = "The residual stream " + ends.format("block") + " " + back.format("block")
    return (
        Table(words, _profile_columns("layers"), tuple(map(_profile, stacks))),
        Table(streams, _profile_columns("blocks"), tuple(map(_profile, blocks))),
    )


def _profile_columns(depth: str) -> tuple[Column, ...]:
    numeric = ("width", depth, "seeds", "RMS", "std", "information", "gradient")
    return Column("network"), Column("init"), *(Column(one, numeric=True) for one in numeric)


def _profile(one: Profile) -> tuple[Cell, ...]:
    return (
        Cell(
            one.norm
            if one.placement is None
            else SEPARATOR.join(arm_name_parts(one.norm, one.placement))
        ),
        Cell(one.init),
        *(Cell(str(count), count) for count in (one.width, one.depth, one.seeds)),
        _number(one.rms[-1]),
        _number(one.std[-1]),
        _number(one.share[-1]),
        _number(one.gradient[0]),
    )


def _comparison(numbers: Comparison) -> tuple[Table, ...]:
    return _times(numbers), _distributions(numbers), _invariances(numbers)


def _times(numbers: Comparison) -> Table:
    heads = ("tokens", "width", "forward, ms", "with backward, ms", "over F.layer_norm")
    columns = (Column("norm"), Column("made"), *(Column(one, numeric=True) for one in heads))
    rows = tuple(_timed(numbers, one) for one in numbers.times)
    return Table("fp32, median over rounds; ratios inside a round (quartiles).", columns, rows)


def _timed(numbers: Comparison, one: Timed) -> tuple[Cell, ...]:
    over = over_torch(numbers, one)
    medians = (spread(one.forward).median, spread(one.both).median)
    return (
        Cell(one.norm),
        Cell(one.way),
        *(Cell(str(count), count) for count in (one.tokens, one.width)),
        *(Cell(f"{median:.3f}", median) for median in medians),
        Cell(str(over), over.median) if over else Cell(NOT_COMPARABLE, math.nan),
    )


def _distributions(numbers: Comparison) -> Table:
    heads = ("mean", "std", "RMS", "cosine with input")
    columns = (Column("input"), Column("norm"), *(Column(one, numeric=True) for one in heads))
    rows: list[Sequence[Cell]] = []
    for shown in numbers.inputs:
        before = map(_number, (shown.before.mean, shown.before.std, shown.before.rms))
        rows.append((Cell(shown.input), Cell("as it comes"), *before, _number(1.0)))
        for norm, after in shown.after.items():
            moments = map(_number, (after.mean, after.std, after.rms))
            rows.append((Cell(shown.input), Cell(norm), *moments, _number(shown.cosine[norm])))
    caption = "What each does to a distribution; the cosine is the median over tokens."
    return Table(caption, columns, tuple(map(tuple, rows)))


def _invariances(numbers: Comparison) -> Table:
    columns = (
        Column("norm"),
        Column("invariance"),
        Column("equation"),
        Column("holds"),
        Column("fails by, RMS", numeric=True),
    )
    rows = tuple(
        (
            Cell(norm),
            Cell(one.name),
            Cell(one.equation),
            Cell(one.verdict),
            _number(one.deviation),
        )
        for norm, several in numbers.invariances.items()
        for one in several
    )
    return Table("Largest change of the output, over its RMS.", columns, rows)
