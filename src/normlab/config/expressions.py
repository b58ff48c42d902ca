"""Numbers and conditions of depth, as in the papers: `(2*L)**0.25`, `1/sqrt(l)`, `l <= L/4`."""

import math
from collections.abc import Callable

from normlab.config.grammar import Scope, Sort, parse
from normlab.config.tree import ARITHMETIC, CONDITIONS, ExpressionError, Name, Number, compute, fold
from normlab.errors import ConfigError

# Far from Python's own limit.
MOST_CHARACTERS = 200
DEEPEST = 100

_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "sqrt": math.sqrt,
    "log": math.log,
    "exp": math.exp,
    "floor": math.floor,
}
_MEANING = {**ARITHMETIC, **CONDITIONS, **_FUNCTIONS}


def evaluate(expression: float | str, **names: float) -> float:
    """The value of a number or of an expression over `names`.

    Raises:
        ConfigError: the text is not such an expression, or it has no finite value.
    """
    try:
        if isinstance(expression, str):
            return float(_value(expression, "number", names))
        if isinstance(expression, bool) or not isinstance(expression, int | float):
            raise TypeError(f"it is of type {type(expression).__name__}")
        value = float(expression)
    except (ExpressionError, TypeError, OverflowError) as error:
        raise ConfigError(
            f"{_shown(expression)} is not a number that can be computed ({error}); "
            f"write a number, or an expression with + - * / ** and {_allowed(names)}."
        ) from error
    if not math.isfinite(value):
        raise ConfigError(f"{expression!r} has the value {value}; it must be finite.")
    return value


def holds(expression: str, **names: float) -> bool:
    """Whether a condition over `names` is true, as `l == 1 or l > L/2`.

    Every part of it is computed, also behind an `or` that is already true.

    Raises:
        ConfigError: the text is not a condition, or a part of it has no finite value.
    """
    try:
        if not isinstance(expression, str):
            raise TypeError(f"it is of type {type(expression).__name__}")
        return bool(_value(expression, "condition", names))
    except (ExpressionError, TypeError) as error:
        raise ConfigError(
            f"{_shown(expression)} is not a condition that can be decided ({error}); compare "
            f"with < <= > >= == !=, join with and, or, not, and use {_allowed(names)}."
        ) from error


def _value(text: str, sort: Sort, names: dict[str, float]) -> float:
    functions: dict[str, tuple[Sort, ...]] = dict.fromkeys(_FUNCTIONS, ("number",))
    scope = Scope(list(names), functions, MOST_CHARACTERS, DEEPEST)

    def leaf(part: Number | Name) -> float:
        return part.value if isinstance(part, Number) else float(names[part.name])

    return fold(
        parse(text, scope, sort), leaf, lambda call, values: compute(call, values, _MEANING)
    )


def _shown(expression: object) -> str:
    return repr(str(expression)[:60])


def _allowed(names: dict[str, float]) -> str:
    return ", ".join([*names, *_FUNCTIONS])
