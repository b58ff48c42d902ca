"""What the house's expressions are: trees of numbers, names and calls, and what is done with them.

What a tree means is said by a `fold` over it: a number, a kind, a function of tensors.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

COLUMNS = 80


@dataclass(frozen=True)
class Span:
    """Where something stands in an expression, as in a slice."""

    start: int
    end: int


@dataclass(frozen=True)
class Number:
    """A number, or a condition whose truth is known. Trees are equal wherever they stand."""

    value: float
    at: Span = field(compare=False)


@dataclass(frozen=True)
class Name:
    """Something that gets its value from outside."""

    name: str
    at: Span = field(compare=False)


@dataclass(frozen=True)
class Call:
    """A function or an operator, `+` or `negative` or `sqrt`, of smaller trees."""

    function: str
    arguments: tuple["Tree", ...]
    at: Span = field(compare=False)


Tree = Number | Name | Call


class ExpressionError(Exception):
    """What is wrong with an expression, what is allowed there, and where it stands."""

    def __init__(self, reason: str, allowed: str, at: Span) -> None:
        super().__init__(reason)
        self.reason, self.allowed, self.at = reason, allowed, at


# What an operator gives for numbers and for conditions.
ARITHMETIC: dict[str, Callable[..., float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
    "negative": operator.neg,
}
CONDITIONS: dict[str, Callable[..., bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "and": operator.and_,
    "or": operator.or_,
    "not": operator.not_,
}


def fold(tree: Tree, leaf: Callable[[Number | Name], T], call: Callable[[Call, list[T]], T]) -> T:
    """The meaning of a tree, from the meaning of its leaves and of a call of meanings."""
    if isinstance(tree, Call):
        return call(tree, [fold(argument, leaf, call) for argument in tree.arguments])
    return leaf(tree)


def compute(
    call: Call, values: Sequence[float], functions: Mapping[str, Callable[..., float]]
) -> float:
    """The finite number that one call gives.

    Raises:
        ExpressionError: it gives none.
    """
    try:
        value = functions[call.function](*values)
        if isinstance(value, complex):
            raise ValueError("a root of a negative number")
        if not math.isfinite(value):
            raise OverflowError(f"the value is {value}")
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise ExpressionError(f"it has no value: {error}", "it must be finite", call.at) from error
    return value


def pointed(text: str, at: Span) -> str:
    """Two lines: the expression, or a window of it, and a caret under what stands at `at`."""
    first = max(0, min(at.start - COLUMNS // 3, len(text) - COLUMNS))
    window = "".join(c if c.isprintable() else "?" for c in text[first : first + COLUMNS])
    left = "…" if first else ""
    right = "…" if first + COLUMNS < len(text) else ""
    indent = " " * (at.start - first + len(left))
    tail = "~" * (min(at.end, first + COLUMNS) - at.start - 1)
    return f"  {left}{window}{right}\n  {indent}^{tail}"
