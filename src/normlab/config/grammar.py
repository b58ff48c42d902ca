"""The house's one small grammar: from text to a tree, and to nothing else.

Python's parser reads the text and a whitelist lets the pieces through; nothing is run as Python.
"""

import ast
import difflib
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from normlab.config.tree import CONDITIONS, Call, ExpressionError, Name, Number, Span, Tree, fold

Sort = Literal["number", "condition"]


@dataclass(frozen=True)
class Scope:
    """What an expression may say, and how much of it. A function has the sorts of its arguments."""

    names: Sequence[str]
    functions: Mapping[str, tuple[Sort, ...]]
    characters: int
    depth: int


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


def parse(text: str, scope: Scope, sort: Sort = "number") -> Tree:
    """The tree of an expression; line breaks are spaces.

    Raises:
        ExpressionError: it is not an expression of this sort in this scope.
    """
    text = one_line(text)
    _check_characters(text, scope.characters)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ExpressionError(*_syntax(error, text)) from error
    except (RecursionError, MemoryError) as error:
        raise _too_deep(scope.depth, Span(0, len(text))) from error
    return _Reader(text, scope).read(body, sort, 1)


def one_line(text: str) -> str:
    """The text with every stretch of white space, line breaks too, as one space."""
    return " ".join(text.split())


def closest(name: str, names: Iterable[str], before: str = "") -> str:
    """`did you mean …? ` with the name that is nearly this one or begins with it, or nothing.

    `before` is what stands before a name where it is written, as `norm=`.
    """
    lower = {known.lower(): known for known in names}
    found = difflib.get_close_matches(name.lower(), list(lower), n=1)
    found += [known for known in sorted(lower, key=len) if name and known.startswith(name.lower())]
    return f"did you mean {before}{lower[found[0]]}? " if found else ""


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


def _syntax(error: SyntaxError, text: str) -> tuple[str, str, Span]:
    # Python says 0 of what ends too early.
    start = min(error.offset - 1, len(text)) if error.offset else len(text)
    end = max((error.end_offset or 0) - 1, start + 1)
    said = error.msg.partition(". ")[0]
    return f"it cannot be read: {said}", _ALLOWED + " allowed", Span(start, end)


def _too_deep(depth: int, at: Span) -> ExpressionError:
    return ExpressionError(
        "it has too many operations in one another or in a row", f"at most {depth} are allowed", at
    )


class _Reader:
    """Lets a syntax tree of Python's through the whitelist of a scope."""

    def __init__(self, text: str, scope: Scope) -> None:
        self.text, self.scope = text, scope

    def read(self, node: ast.expr, sort: Sort, depth: int) -> Tree:
        at = _span(node)
        if depth > self.scope.depth:
            raise _too_deep(self.scope.depth, at)
        tree = self._tree(node, depth + 1)
        is_condition = isinstance(tree, Call) and tree.function in CONDITIONS
        if sort == "number" and is_condition:
            raise ExpressionError(
                f"{self._shown(at)} is a condition where a number must stand",
                self._place_of_a_condition(),
                at,
            )
        if sort == "condition" and not is_condition:
            raise ExpressionError(
                f"{self._shown(at)} is not a condition",
                "a condition compares with < <= > >= == !=, and joins with and, or, not",
                at,
            )
        return tree

    def _tree(self, node: ast.expr, depth: int) -> Tree:
        at = _span(node)
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return _number(value, at)
            case ast.Name(id=name):
                return self._name(name, at)
            case ast.UnaryOp(op=ast.UAdd()):
                return self.read(node.operand, "number", depth)
            case ast.UnaryOp(op=ast.USub()):
                return Call("negative", (self.read(node.operand, "number", depth),), at)
            case ast.UnaryOp(op=ast.Not()):
                return Call("not", (self.read(node.operand, "condition", depth),), at)
            case ast.BinOp(op=op) if type(op) in _SIGNS:
                sides = (node.left, node.right)
                return Call(_SIGNS[type(op)], self._all(sides, ("number", "number"), depth), at)
            case ast.BoolOp():
                parts = self._all(node.values, ["condition"] * len(node.values), depth)
                return _joined(_SIGNS[type(node.op)], parts)
            case ast.Compare() if all(type(op) in _SIGNS for op in node.ops):
                terms = [node.left, *node.comparators]
                return _chain(node.ops, self._all(terms, ["number"] * len(terms), depth))
            case ast.Call(func=ast.Name(id=name)):
                return self._call(name, node, depth)
        raise self._forbidden(node)

    def _all(
        self, nodes: Sequence[ast.expr], sorts: Sequence[Sort], depth: int
    ) -> tuple[Tree, ...]:
        pairs = zip(nodes, sorts, strict=True)
        return tuple(self.read(node, sort, depth) for node, sort in pairs)

    def _name(self, name: str, at: Span) -> Name:
        if name in self.scope.names:
            return Name(name, at)
        if name in self.scope.functions:
            raise ExpressionError(f"{name} is a function", f"write {name}(…)", at)
        hint = closest(name, self.scope.names)
        raise ExpressionError(
            f"{name} is unknown", f"{hint}names are {', '.join(self.scope.names)}", at
        )

    def _call(self, name: str, node: ast.Call, depth: int) -> Call:
        sorts = self.scope.functions.get(name)
        if sorts is None:
            known = self.scope.functions
            kind = "is not a function" if name in self.scope.names else "is an unknown function"
            allowed = f"{closest(name, known)}functions are {', '.join(known)}"
            raise ExpressionError(f"{name} {kind}", allowed, _span(node.func))
        if node.keywords:
            raise ExpressionError(
                f"{name} has an argument with a name",
                "arguments stand in their order, without names",
                Span(node.keywords[0].col_offset, node.keywords[0].end_col_offset or 0),
            )
        if len(node.args) != len(sorts):
            given = f"{len(node.args)} argument{'s' * (len(node.args) != 1)}"
            raise ExpressionError(f"{name} has {given}", f"it takes {len(sorts)}", _span(node))
        return Call(name, self._all(node.args, sorts, depth), _span(node))

    def _forbidden(self, node: ast.expr) -> ExpressionError:
        at = _span(node)
        if isinstance(node, ast.BinOp):
            at = self._between(node.left, node.right)
            hint = "powers are written **" if isinstance(node.op, ast.BitXor) else "use + - * / **"
            return ExpressionError(f"{self._shown(at)} is not an operator here", hint, at)
        if isinstance(node, ast.Call):  # of what? that is what is not allowed
            return self._forbidden(node.func)
        what = _FORBIDDEN.get(type(node), self._shown(at))
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            what = "a text"
        return ExpressionError(f"{what} is not allowed", _ALLOWED, at)

    def _between(self, left: ast.expr, right: ast.expr) -> Span:
        """The operator between two operands: what is left when their brackets are gone."""
        start, end = left.end_col_offset or 0, right.col_offset
        sign = self.text[start:end].strip(" ()")
        start = self.text.index(sign, start)
        return Span(start, start + len(sign))

    def _shown(self, at: Span) -> str:
        shown = self.text[at.start : at.end]
        return repr(shown if len(shown) <= 30 else f"{shown[:29]}…")

    def _place_of_a_condition(self) -> str:
        if "where" in self.scope.functions:
            return "only the first argument of where is a condition"
        return "only numbers can be computed with"


def _span(node: ast.expr) -> Span:
    return Span(node.col_offset, node.end_col_offset or node.col_offset)


def _number(value: float, at: Span) -> Number:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ExpressionError("the number is too large", "it must be finite", at)
    return Number(number, at)


def _joined(sign: str, parts: Sequence[Tree]) -> Tree:
    """A sign between conditions, from the left."""
    tree, *rest = parts
    for part in rest:
        tree = Call(sign, (tree, part), Span(tree.at.start, part.at.end))
    return tree


def _chain(signs: Sequence[ast.cmpop], sides: Sequence[Tree]) -> Tree:
    """`a < b < c` is `a < b and b < c`."""
    for middle in sides[1:-1]:
        # Chains in the middle of chains would double with every level.
        if _decides(middle):
            raise ExpressionError(
                "there is a condition in the middle of a chain",
                "write two comparisons with and between them",
                middle.at,
            )
    links = [
        Call(_SIGNS[type(sign)], (left, right), Span(left.at.start, right.at.end))
        for sign, (left, right) in zip(signs, pairwise(sides), strict=True)
    ]
    return _joined("and", links)


def _decides(tree: Tree) -> bool:
    return fold(
        tree, lambda _: False, lambda call, parts: call.function in CONDITIONS or any(parts)
    )
