"""What a formula norm may say, and of what kind its result is. Knows no torch.

    y = expression(x, width, index, parameters, constants)

A value is one number, one number a feature (a parameter, its index), one a token (a reduction of
x), or one a feature of each token (x, and what a norm must give).
"""

import keyword
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Flag
from typing import Any, NamedTuple

from normlab.config.expressions import (
    ARITHMETIC,
    CONDITIONS,
    Call,
    ExpressionError,
    Name,
    Number,
    Scope,
    Sort,
    Tree,
    evaluate_call,
    evaluate_expression,
    fold_tree,
    parse_expression,
    point_at,
)
from normlab.config.messages import errors_about, value_error
from normlab.errors import ConfigError
from normlab.text import one_line, suggest_closest

MAX_CHARACTERS = 500
MAX_DEPTH = 40
_LARGEST = 3.4e38  # a parameter is kept in single precision

REDUCTIONS = ("mean", "sum", "max", "min", "var", "std", "rms")
# Functions of single features, on numbers: what is constant is computed when the formula is read.
ELEMENTWISE: dict[str, Callable[..., float]] = {
    "abs": abs,
    "sqrt": math.sqrt,
    "rsqrt": lambda a: 1 / math.sqrt(a),
    "exp": math.exp,
    "log": math.log,
    "log1p": math.log1p,
    "expm1": math.expm1,
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
    "erf": math.erf,
    # By tanh and by exp(-|a|), for exp overflows from 710 on.
    "sigmoid": lambda a: (1 + math.tanh(a / 2)) / 2,
    "relu": lambda a: max(a, 0.0),
    "softplus": lambda a: max(a, 0.0) + math.log1p(math.exp(-abs(a))),
    "silu": lambda a: a * (1 + math.tanh(a / 2)) / 2,
    "gelu": lambda a: a * (1 + math.erf(a / math.sqrt(2))) / 2,
    "square": lambda a: a * a,
    "sign": lambda a: float((a > 0) - (a < 0)),
    "detach": lambda a: a,
}
BINARY: dict[str, Callable[..., float]] = {"minimum": min, "maximum": max}
_OPERATIONS = {**ARITHMETIC, **CONDITIONS, **ELEMENTWISE, **BINARY}
_FUNCTIONS: dict[str, tuple[Sort, ...]] = {
    **dict.fromkeys((*REDUCTIONS, *ELEMENTWISE), ("number",)),
    **dict.fromkeys(BINARY, ("number", "number")),
    "where": ("condition", "number", "number"),
}
_PREDEFINED = ("x", "width", "index")


class Kind(Flag):
    """Along what a value varies."""

    # Bits, so that a call varies along the union of what its arguments vary along.
    NUMBER = 0
    FEATURE = 1
    TOKEN = 2
    FULL = 3


_KIND_WORDS = {
    Kind.NUMBER: "one number",
    Kind.FEATURE: "one number a feature, the same for every token",
    Kind.TOKEN: "one number a token",
}


class FormulaSource(NamedTuple):
    """A formula as text and numbers, hashable: what compiled kernels are cached by.

    Attributes:
        parameters: by name, `feature` or `scalar`.
        period: how many tokens share a parameter of features, one after another.
    """

    expression: str
    width: int
    parameters: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, float | str], ...] = ()
    period: int = 1


@dataclass(frozen=True)
class Parameter:
    """What a learnable parameter starts as, and whether there is one per feature or one in all."""

    init: float
    per: str

    @property
    def kind(self) -> Kind:
        """Along what it varies."""
        return Kind.FEATURE if self.per == "feature" else Kind.NUMBER


@dataclass(frozen=True)
class ParsedFormula:
    """The tree of a formula over x and its parameters, constants put in."""

    tree: Tree
    parameters: Mapping[str, Parameter]


_TARGETS = ("normlab.norms.Formula", "normlab.norms.formula.Formula")
_ARGUMENTS = ("expression", "parameters", "constants")


def is_formula(norm: Any) -> bool:
    """Whether this is the config of a formula norm."""
    return isinstance(norm, Mapping) and norm.get("_target_") in _TARGETS


def check_formula(key: str, config: Mapping[str, Any], width: int) -> None:
    """Refuse the config of a formula norm that cannot be built at this width.

    Raises:
        ConfigError: in one sentence that starts with a key under `key`; about the expression, two
            lines follow that point into it.
    """
    for name in config:
        if name not in (*_ARGUMENTS, "_target_", "_partial_"):
            raise ConfigError(
                f"{key}.{name} is not a key of a formula; "
                f"{suggest_closest(str(name), _ARGUMENTS)}it has {', '.join(_ARGUMENTS)}."
            )
    with errors_about(f"{key}."):
        parse_formula(width, *(config.get(name) for name in _ARGUMENTS))


def parse_formula(width: int, expression: Any, parameters: Any, constants: Any) -> ParsedFormula:
    """Understand a formula at this width.

    Raises:
        ConfigError: in a sentence that starts with the key that is wrong.
    """
    if not isinstance(expression, str):
        raise ConfigError(
            f"expression={expression} is not a formula; write a text, as 'gain * x / rms(x)'."
        )
    numbers = {
        name: _evaluate_with_width(f"constants.{name}", value, width)
        for name, value in _check_names("constants", constants, _PREDEFINED).items()
    }
    names = _check_names("parameters", parameters, (*_PREDEFINED, *numbers))
    learned = {
        name: _parse_parameter(f"parameters.{name}", value, width) for name, value in names.items()
    }
    numbers["width"] = float(width)
    scope = Scope(["x", "index", *learned, *numbers], _FUNCTIONS, MAX_CHARACTERS, MAX_DEPTH)
    try:
        tree = _fold_constants(parse_expression(expression, scope), numbers)
        _check_result(tree, learned)
    except ExpressionError as error:
        raise ConfigError(
            f"expression: {error.reason}; {error.allowed}.\n"
            f"{point_at(one_line(expression), error.at)}"
        ) from error
    return ParsedFormula(tree, learned)


def _check_names(key: str, mapping: Any, reserved: tuple[str, ...]) -> Mapping[str, Any]:
    """The mapping, when every name in it may stand in an expression."""
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise value_error(key, mapping, "a mapping of names")
    for name in mapping:
        is_word = isinstance(name, str) and name.isascii() and name.isidentifier()
        if not is_word or keyword.iskeyword(name):
            raise ConfigError(
                f"{key}.{name} is not a name; one is a word of plain letters, digits and _ that "
                f"is no keyword of Python's."
            )
        if name in reserved or name in _FUNCTIONS:
            what = "a function" if name in _FUNCTIONS else "there already"
            raise ConfigError(f"{key}.{name} is not allowed: {name} is {what}; take another name.")
    return mapping


def _parse_parameter(key: str, value: Any, width: int) -> Parameter:
    if not isinstance(value, Mapping) or "init" not in value or not set(value) <= {"init", "per"}:
        text = dict(value) if isinstance(value, Mapping) else value
        raise ConfigError(
            f"{key}={text} is not a parameter; one is "
            f"{{init: number or expression in width, per: feature or scalar}}."
        )
    per = value.get("per", "feature")
    if per not in (kinds := ("feature", "scalar")):
        raise value_error(f"{key}.per", per, " or ".join(kinds), kinds)
    init = _evaluate_with_width(f"{key}.init", value["init"], width)
    if abs(init) > _LARGEST:
        raise ConfigError(f"{key}.init={init} is too large; it must be at most {_LARGEST}.")
    return Parameter(init, per)


def _evaluate_with_width(key: str, value: Any, width: int) -> float:
    with errors_about(f"{key}: "):
        return evaluate_expression(value, width=width)


def _fold_constants(tree: Tree, numbers: Mapping[str, float]) -> Tree:
    """The same tree with what is constant computed."""

    def fold_leaf(part: Number | Name) -> Tree:
        if isinstance(part, Name) and part.name in numbers:
            return Number(numbers[part.name], part.at)
        return part

    def fold_call(part: Call, arguments: list[Tree]) -> Tree:
        # Only the branch that is taken stays: a parameter in the other would get no gradient.
        if part.function == "where" and isinstance(arguments[0], Number):
            return arguments[1 if arguments[0].value else 2]
        # Reductions are not in _OPERATIONS: one of a number is a mistake that _check_result finds.
        values = [argument.value for argument in arguments if isinstance(argument, Number)]
        if len(values) == len(arguments) and part.function in _OPERATIONS:
            return Number(evaluate_call(part, values, _OPERATIONS), part.at)
        return Call(part.function, tuple(arguments), part.at)

    return fold_tree(tree, fold_leaf, fold_call)


@dataclass(frozen=True)
class _Inferred:
    """Of a value: its kind, and the parameters that a gradient reaches through it."""

    kind: Kind
    learns: frozenset[str] = frozenset()


def _check_result(tree: Tree, parameters: Mapping[str, Parameter]) -> None:
    """Refuse a result that is not one number a feature of each token, or leaves one unlearned."""

    def infer_leaf(part: Number | Name) -> _Inferred:
        if isinstance(part, Number):
            return _Inferred(Kind.NUMBER)
        if part.name in ("x", "index"):
            return _Inferred(Kind.FULL if part.name == "x" else Kind.FEATURE)
        return _Inferred(parameters[part.name].kind, frozenset({part.name}))

    result = fold_tree(tree, infer_leaf, _infer_call)
    if result.kind is not Kind.FULL:
        raise ExpressionError(
            f"it gives {_KIND_WORDS[result.kind]}",
            "it must give one a feature of each token",
            tree.at,
        )
    for name in parameters:
        if name not in result.learns:
            raise ConfigError(
                f"parameters.{name} would get no gradient; the expression must use it, and not "
                f"only in detach, sign or a condition."
            )


def _infer_call(call: Call, arguments: list[_Inferred]) -> _Inferred:
    kind, learns = Kind.NUMBER, frozenset[str]()
    for argument in arguments:
        kind, learns = kind | argument.kind, learns | argument.learns
    if call.function in REDUCTIONS:
        if not kind & Kind.FEATURE:
            raise ExpressionError(
                f"{call.function} reduces over the features, and this is {_KIND_WORDS[kind]}",
                "it needs a value for each feature",
                call.arguments[0].at,
            )
        kind &= ~Kind.FEATURE
    if call.function in ("detach", "sign", *CONDITIONS):
        learns = frozenset()
    return _Inferred(kind, learns)
