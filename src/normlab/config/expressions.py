"""The expression language of configurations: text to a tree, and the number a tree stands for.

It says depths and scales as the papers do, `(2*L)**0.25` or `l <= L/4`, and the formula of a norm
(`formula.py`, where a tree is computed on tensors). Python's parser reads the text and a whitelist
lets the pieces through; nothing is ever run as Python. Errors carry the position, for a caret.
"""

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, TypeVar

from normlab.errors import ConfigError
from normlab.text import one_line, suggest_closest

T = TypeVar("T")
Sort = Literal["number", "condition"]

CARET_COLUMNS = 80
# Of expressions over depth; far from Python's own limits.
MAX_CHARACTERS = 200
MAX_DEPTH = 100


@dataclass(frozen=True)
class Span:
    """Where something stands in an expression, as in a slice."""

    start: int
    end: int


@dataclass(frozen=True)
class Number:
    """A number, or a condition already decided. Trees are equal wherever they stand in a text."""

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


@dataclass(frozen=True)
class Scope:
    """What an expression may contain, and how much; of each function its arguments' sorts."""

    names: Sequence[str]
    functions: Mapping[str, tuple[Sort, ...]]
    max_characters: int = MAX_CHARACTERS
    max_depth: int = MAX_DEPTH


class ExpressionError(Exception):
    """What is wrong with an expression, what is allowed there, and where."""

    def __init__(self, reason: str, allowed: str, at: Span) -> None:
        super().__init__(reason)
        self.reason, self.allowed, self.at = reason, allowed, at


ARITHMETIC: dict[str, Callable[..., float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
    "negative": operator.neg,
}
# `and_` and `or_` take values, so that both sides are computed: a mistake in one is always found.
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
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "sqrt": math.sqrt,
    "log": math.log,
    "exp": math.exp,
    "floor": math.floor,
}
_OPERATIONS = {**ARITHMETIC, **CONDITIONS, **_FUNCTIONS}


def evaluate_expression(expression: float | str, **names: float) -> float:
    """The value of a number or of an expression over `names`.

    Raises:
        ConfigError: the text is not such an expression, or it has no finite value.
    """
    try:
        if isinstance(expression, str):
            return float(_evaluate_text(expression, "number", names))
        if isinstance(expression, bool) or not isinstance(expression, int | float):
            raise TypeError(f"it is of type {type(expression).__name__}")
        value = float(expression)
    except (ExpressionError, TypeError, OverflowError) as error:
        raise ConfigError(
            f"{str(expression)[:60]!r} is not a number that can be computed ({error}); write a "
            f"number, or an expression with + - * / ** and {', '.join([*names, *_FUNCTIONS])}."
        ) from error
    if not math.isfinite(value):
        raise ConfigError(f"{expression!r} has the value {value}; it must be finite.")
    return value


def evaluate_condition(expression: str, **names: float) -> bool:
    """Whether a condition over `names` is true, as `l == 1 or l > L/2`.

    Every part of it is computed, also behind an `or` that is already true.

    Raises:
        ConfigError: the text is not a condition, or a part of it has no finite value.
    """
    try:
        if not isinstance(expression, str):
            raise TypeError(f"it is of type {type(expression).__name__}")
        return bool(_evaluate_text(expression, "condition", names))
    except (ExpressionError, TypeError) as error:
        raise ConfigError(
            f"{str(expression)[:60]!r} is not a condition that can be decided ({error}); compare "
            f"with < <= > >= == !=, join with and, or, not, and use "
            f"{', '.join([*names, *_FUNCTIONS])}."
        ) from error


def _evaluate_text(text: str, sort: Sort, names: Mapping[str, float]) -> float:
    scope = Scope(list(names), dict.fromkeys(_FUNCTIONS, ("number",)))
    return fold_tree(
        parse_expression(text, scope, sort),
        lambda leaf: leaf.value if isinstance(leaf, Number) else float(names[leaf.name]),
        lambda call, values: evaluate_call(call, values, _OPERATIONS),
    )


def fold_tree(
    tree: Tree, leaf: Callable[[Number | Name], T], call: Callable[[Call, list[T]], T]
) -> T:
    """The meaning of a tree, from the meaning of its leaves and of a call of meanings."""
    if isinstance(tree, Call):
        return call(tree, [fold_tree(argument, leaf, call) for argument in tree.arguments])
    return leaf(tree)


def evaluate_call(
    call: Call, values: Sequence[float], functions: Mapping[str, Callable[..., float]]
) -> float:
    """The number that one call gives.

    Raises:
        ExpressionError: it gives none, or one that is not finite.
    """
    try:
        value = functions[call.function](*values)
        # Python's power of a negative number and a fraction is complex.
        if isinstance(value, complex):
            raise ValueError("a root of a negative number")
        if not math.isfinite(value):
            raise OverflowError(f"the value is {value}")
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise ExpressionError(f"it has no value: {error}", "it must be finite", call.at) from error
    return value


def point_at(text: str, at: Span) -> str:
    """Two lines: the expression, or a window of it, and a caret under what stands at `at`."""
    first = max(0, min(at.start - CARET_COLUMNS // 3, len(text) - CARET_COLUMNS))
    last = first + CARET_COLUMNS
    window = "".join(c if c.isprintable() else "?" for c in text[first:last])
    left, right = "…" if first else "", "…" if last < len(text) else ""
    indent = " " * (at.start - first + len(left))
    tail = "~" * (min(at.end, last) - at.start - 1)
    return f"  {left}{window}{right}\n  {indent}^{tail}"


def parse_expression(text: str, scope: Scope, sort: Sort = "number") -> Tree:
    """The tree of an expression; line breaks are spaces.

    Raises:
        ExpressionError: it is not an expression of this sort in this scope.
    """
    text = one_line(text)
    _check_characters(text, scope.max_characters)
    try:
        # Python warns of `1if 2else 3`; the user gets our error, and no warning beside it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        # Python gives offset 0 for what ends too early.
        start = min(error.offset - 1, len(text)) if error.offset else len(text)
        at = Span(start, max((error.end_offset or 0) - 1, start + 1))
        message = error.msg.partition(". ")[0]
        raise ExpressionError(f"it cannot be read: {message}", f"{_ALLOWED} allowed", at) from error
    # Python's parser raises one or the other, by what is nested: signs or powers.
    except (RecursionError, MemoryError) as error:
        raise _too_deep_error(scope.max_depth, Span(0, len(text))) from error
    return _TreeReader(text, scope).read_tree(body, sort, 1)


def _check_characters(text: str, most: int) -> None:
    if not text:
        raise ExpressionError("it is empty", "it must say what to compute", Span(0, 0))
    if len(text) > most:
        raise ExpressionError(
            f"it has {len(text)} characters", f"at most {most} are allowed", Span(most, len(text))
        )
    # A comment would swallow the lines after it, and Python reads some signs as other letters.
    strange = re.search(r"[^ -~]|#", text)
    if strange:
        raise ExpressionError(
            f"{strange[0]!r} has no meaning here",
            "names are of plain letters, and signs are + - * / ** < <= > >= == !=",
            Span(*strange.span()),
        )


def _too_deep_error(depth: int, at: Span) -> ExpressionError:
    return ExpressionError(
        "it has too many operations in one another or in a row", f"at most {depth} are allowed", at
    )


_SIGNS: dict[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.And: "and",
    ast.Or: "or",
}
_FORBIDDEN: dict[type[ast.AST], str] = {
    ast.Attribute: "an attribute",
    ast.Subscript: "an index",
    ast.Lambda: "a lambda",
    ast.IfExp: "an if … else",
    ast.NamedExpr: "an assignment",
    ast.JoinedStr: "a text",
    ast.Starred: "a starred argument",
    **dict.fromkeys((ast.List, ast.Tuple, ast.Set, ast.Dict), "a list"),
    **dict.fromkeys((ast.ListComp, ast.SetComp, ast.DictComp), "a comprehension"),
    ast.GeneratorExp: "a comprehension",
}
_ALLOWED = "only numbers, names, operators and calls of functions are"


class _TreeReader:
    """Lets a syntax tree of Python's through the whitelist of a scope."""

    def __init__(self, text: str, scope: Scope) -> None:
        self.text, self.scope = text, scope

    def read_tree(self, node: ast.expr, sort: Sort, depth: int) -> Tree:
        at = _span_of(node)
        if depth > self.scope.max_depth:
            raise _too_deep_error(self.scope.max_depth, at)
        tree = self._read_node(node, depth + 1)
        is_condition = isinstance(tree, Call) and tree.function in CONDITIONS
        if sort == "number" and is_condition:
            raise ExpressionError(
                f"{self._quote_span(at)} is a condition where a number must stand",
                "only the first argument of where is a condition"
                if "where" in self.scope.functions
                else "only numbers can be computed with",
                at,
            )
        if sort == "condition" and not is_condition:
            raise ExpressionError(
                f"{self._quote_span(at)} is not a condition",
                "a condition compares with < <= > >= == !=, and joins with and, or, not",
                at,
            )
        return tree

    def _read_node(self, node: ast.expr, depth: int) -> Tree:
        at = _span_of(node)
        match node:
            # True is an int too.
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return _read_number(value, at)
            case ast.Name(id=name):
                return self._read_name(name, at)
            case ast.UnaryOp(op=ast.UAdd()):
                return self.read_tree(node.operand, "number", depth)
            case ast.UnaryOp(op=ast.USub()):
                return Call("negative", (self.read_tree(node.operand, "number", depth),), at)
            case ast.UnaryOp(op=ast.Not()):
                return Call("not", (self.read_tree(node.operand, "condition", depth),), at)
            case ast.BinOp(op=op) if type(op) in _SIGNS:
                sides = self._read_all((node.left, node.right), ("number", "number"), depth)
                return Call(_SIGNS[type(op)], sides, at)
            case ast.BoolOp():
                parts = self._read_all(node.values, ["condition"] * len(node.values), depth)
                return _join_conditions(_SIGNS[type(node.op)], parts)
            case ast.Compare() if all(type(op) in _SIGNS for op in node.ops):
                terms = [node.left, *node.comparators]
                sides = self._read_all(terms, ["number"] * len(terms), depth)
                return _expand_chain(node.ops, sides)
            case ast.Call(func=ast.Name(id=name)):
                return self._read_call(name, node, depth)
        raise self._forbidden_error(node)

    def _read_all(
        self, nodes: Sequence[ast.expr], sorts: Sequence[Sort], depth: int
    ) -> tuple[Tree, ...]:
        pairs = zip(nodes, sorts, strict=True)
        return tuple(self.read_tree(node, sort, depth) for node, sort in pairs)

    def _read_name(self, name: str, at: Span) -> Name:
        if name in self.scope.names:
            return Name(name, at)
        if name in self.scope.functions:
            raise ExpressionError(f"{name} is a function", f"write {name}(…)", at)
        hint = suggest_closest(name, self.scope.names)
        raise ExpressionError(
            f"{name} is unknown", f"{hint}names are {', '.join(self.scope.names)}", at
        )

    def _read_call(self, name: str, node: ast.Call, depth: int) -> Call:
        functions = self.scope.functions
        if name not in functions:
            kind = "is not a function" if name in self.scope.names else "is an unknown function"
            allowed = f"{suggest_closest(name, functions)}functions are {', '.join(functions)}"
            raise ExpressionError(f"{name} {kind}", allowed, _span_of(node.func))
        if node.keywords:
            raise ExpressionError(
                f"{name} has an argument with a name",
                "arguments stand in their order, without names",
                Span(node.keywords[0].col_offset, node.keywords[0].end_col_offset or 0),
            )
        sorts = functions[name]
        if len(node.args) != len(sorts):
            count = f"{len(node.args)} argument{'s' * (len(node.args) != 1)}"
            raise ExpressionError(f"{name} has {count}", f"it takes {len(sorts)}", _span_of(node))
        return Call(name, self._read_all(node.args, sorts, depth), _span_of(node))

    def _forbidden_error(self, node: ast.expr) -> ExpressionError:
        at = _span_of(node)
        if isinstance(node, ast.BinOp):
            # The operator is what is left between two operands when their brackets are gone.
            between = slice(node.left.end_col_offset or 0, node.right.col_offset)
            sign = self.text[between].strip(" ()")
            start = self.text.index(sign, between.start)
            at = Span(start, start + len(sign))
            hint = "powers are written **" if isinstance(node.op, ast.BitXor) else "use + - * / **"
            return ExpressionError(f"{self._quote_span(at)} is not an operator here", hint, at)
        if isinstance(node, ast.Call):  # of what? that is what is not allowed
            return self._forbidden_error(node.func)
        what = _FORBIDDEN.get(type(node), self._quote_span(at))
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            what = "a text"
        return ExpressionError(f"{what} is not allowed", _ALLOWED, at)

    def _quote_span(self, at: Span) -> str:
        text = self.text[at.start : at.end]
        return repr(text if len(text) <= 30 else f"{text[:29]}…")


def _span_of(node: ast.expr) -> Span:
    # Python counts bytes of UTF-8; the text is ASCII, so these are characters.
    return Span(node.col_offset, node.end_col_offset or node.col_offset)


def _read_number(value: float, at: Span) -> Number:
    try:
        # From here on all is float: 9**9**9 overflows at once, where Python would compute a whole
        # number without end, and could not be interrupted.
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ExpressionError("the number is too large", "it must be finite", at)
    return Number(number, at)


def _join_conditions(sign: str, parts: Sequence[Tree]) -> Tree:
    """A sign between conditions, from the left."""
    tree, *rest = parts
    for part in rest:
        tree = Call(sign, (tree, part), Span(tree.at.start, part.at.end))
    return tree


def _expand_chain(signs: Sequence[ast.cmpop], sides: Sequence[Tree]) -> Tree:
    """`a < b < c` is `a < b and b < c`."""
    for middle in sides[1:-1]:
        # The middle is written out twice: chains within chains would double with every level.
        contains_condition = fold_tree(
            middle, lambda _: False, lambda call, parts: call.function in CONDITIONS or any(parts)
        )
        if contains_condition:
            raise ExpressionError(
                "there is a condition in the middle of a chain",
                "write two comparisons with and between them",
                middle.at,
            )
    links = [
        Call(_SIGNS[type(sign)], (left, right), Span(left.at.start, right.at.end))
        for sign, (left, right) in zip(signs, pairwise(sides), strict=True)
    ]
    return _join_conditions("and", links)
