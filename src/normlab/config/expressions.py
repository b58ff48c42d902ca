"""Numbers that depend on depth, written as in the papers: `(2*L)**0.25`, `1/sqrt(l)`.

A strict whitelist stands between the text and Python: names, numbers, + − × ÷ **, sqrt, log, exp.
"""

import ast
import math
import operator
from collections.abc import Callable

from normlab.errors import ConfigError

# An expression nests no deeper than it is long: this keeps it far from Python's own limit.
MOST_CHARACTERS = 200

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "sqrt": math.sqrt,
    "log": math.log,
    "exp": math.exp,
}


def evaluate(expression: float | str, **names: float) -> float:
    """The value of a number or of an expression over `names`.

    Raises:
        ConfigError: the text is not such an expression, or it has no finite value.
    """
    try:
        value = _number(expression) if not isinstance(expression, str) else _text(expression, names)
    except (SyntaxError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        allowed = ", ".join([*names, *_FUNCTIONS])
        raise ConfigError(
            f"{str(expression)[:60]!r} is not a number that can be computed ({error}); "
            f"write a number, or an expression with + - * / ** and {allowed}."
        ) from error
    if not math.isfinite(value):
        raise ConfigError(f"{expression!r} has the value {value}; it must be finite.")
    return value


def _number(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"it is of type {type(value).__name__}")
    return float(value)


def _text(text: str, names: dict[str, float]) -> float:
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it is longer than {MOST_CHARACTERS} characters")
    return _value(ast.parse(text.strip(), mode="eval").body, names)


def _value(node: ast.expr, names: dict[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.Name(id=name) if name in names:
            return float(names[name])
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand, names)
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
            value = _BINARY[type(op)](_value(left, names), _value(right, names))
            if isinstance(value, complex):
                raise ValueError("a root of a negative number")
            return value
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](_value(argument, names))
    raise ValueError(f"{ast.unparse(node)!r} is not allowed")


def holds(expression, **names):  # TEMPORARY
    return bool(eval(expression, {}, names))
