"""A norm that is written down in YAML. x has shape (…, width).

Its expression becomes nested functions of tensors once, when the norm is built.
`normlab.config.formula` decides what may stand in an expression, and that its result fits x.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.config.expressions import (
    ARITHMETIC,
    CONDITIONS,
    Call,
    Name,
    Number,
    Tree,
    fold_tree,
)
from normlab.config.formula import FormulaSource, parse_formula
from normlab.errors import ConfigError
from normlab.norms.norms import KernelNorm, widen_precision
from normlab.text import one_line

# x and the parameters by name; what an expression holds more than once, by number.
Values = MutableMapping[str | int, Tensor]
Function = Callable[[Values], Tensor]
Part = float | Function

_OPERATIONS: dict[str, Callable[..., Any]] = {
    **ARITHMETIC,
    **CONDITIONS,
    "**": torch.pow,
    "negative": torch.neg,
    "not": torch.logical_not,
    "mean": lambda a: a.mean(-1, keepdim=True),
    "sum": lambda a: a.sum(-1, keepdim=True),
    "max": lambda a: a.amax(-1, keepdim=True),
    "min": lambda a: a.amin(-1, keepdim=True),
    "var": lambda a: a.var(-1, correction=0, keepdim=True),
    "std": lambda a: a.std(-1, correction=0, keepdim=True),
    "rms": lambda a: a.square().mean(-1, keepdim=True).sqrt(),
    "abs": torch.abs,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "exp": torch.exp,
    "log": torch.log,
    "log1p": torch.log1p,
    "expm1": torch.expm1,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    # The default leaves the curve at 20 already, which double precision can see.
    "softplus": lambda a: F.softplus(a, threshold=40.0),
    "silu": F.silu,
    "gelu": F.gelu,
    "square": torch.square,
    "sign": torch.sign,
    "detach": Tensor.detach,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "where": torch.where,
}
_POWERS = {2.0: torch.square, 0.5: torch.sqrt, -0.5: torch.rsqrt, -1.0: torch.reciprocal}


class Formula(KernelNorm):
    """A norm given by an expression over x, its width, parameters that are learned, and constants.

    `expression` has the operators + - * / **, reductions over the features (mean sum max min and,
    of the population, var std rms), functions of single features (abs sqrt rsqrt exp log log1p
    expm1 sin cos tanh erf sigmoid relu softplus silu gelu square sign detach, minimum and maximum
    of two), and where(condition, a, b); `index` is a feature's number, from 0. The gradients of
    sqrt, std and rms are not finite at 0: add an eps inside the root, as in
    `x / sqrt(mean(x**2) + eps)`. `detach` stops the gradient (1911.07013 studies norms with
    detached statistics).

    `parameters` has {init: number or expression in width, per: feature or scalar} under each name,
    `constants` a number or an expression in width. The parameters are attributes of the module; the
    expression and the constants cannot be set later.

    Raises:
        ConfigError: the expression cannot be understood, or does not give one number a feature of
            each token; the message points at the place.
    """

    def __init__(
        self,
        width: int,
        expression: str,
        parameters: Mapping[str, Any] | None = None,
        constants: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        parsed = parse_formula(width, expression, parameters, constants)
        self.expression = one_line(expression)
        self._fixed = ("expression", *(constants or {}))
        self._tree = parsed.tree
        self._names = tuple(parsed.parameters)
        self._has_index = fold_tree(
            self._tree,
            lambda leaf: isinstance(leaf, Name) and leaf.name == "index",
            lambda _, parts: any(parts),
        )
        self._function = _compile_tree(self._tree)
        self._source = FormulaSource(
            self.expression,
            width,
            tuple((name, parameter.per) for name, parameter in parsed.parameters.items()),
            tuple((constants or {}).items()),
        )
        for name, parameter in parsed.parameters.items():
            if hasattr(self, name):
                raise ConfigError(
                    f"parameters.{name} is not allowed: a torch.nn.Module has something of its "
                    f"own under that name; take another name."
                )
            shape = (width,) if parameter.per == "feature" else ()
            setattr(self, name, nn.Parameter(torch.full(shape, parameter.init)))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        return self._compute_formula(
            self._source, x, *(getattr(self, name) for name in self._names)
        )

    def _compute_with_torch(self, x: Tensor, *parameters: Tensor) -> Tensor:
        values: Values = dict(zip(self._names, parameters, strict=True))
        values["x"] = wide = widen_precision(x)
        if self._has_index:
            values["index"] = torch.arange(x.shape[-1], device=x.device, dtype=wide.dtype)
        return self._function(values).to(x.dtype)

    def __setattr__(self, name: str, value: Any) -> None:
        # Kernels and torch's nested functions are compiled from the expression with its numbers.
        if "_source" in self.__dict__ and name in self._fixed:
            raise AttributeError(
                f"{name} of a Formula is what it was built with; build another Formula to change it"
            )
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        """The expression."""
        return self.expression

    # Nested functions cannot be pickled, so a copy compiles its own.
    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_function"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._function = _compile_tree(self._tree)


def _compile_tree(tree: Tree) -> Function:
    """The tree as a function of x and the parameters."""
    counts = Counter(_list_calls(tree))
    repeated = (call for call, times in counts.items() if times > 1)
    slots = {call: slot for slot, call in enumerate(repeated)}
    function = fold_tree(
        tree,
        _compile_leaf,
        lambda call, parts: _compute_at_most_once(_compile_call(call, parts), slots.get(call)),
    )
    assert callable(function), "a formula depends on x"
    return function


def _list_calls(tree: Tree) -> Iterator[Call]:
    if isinstance(tree, Call):
        yield tree
        for argument in tree.arguments:
            yield from _list_calls(argument)


def _compile_leaf(part: Number | Name) -> Part:
    if isinstance(part, Number):
        return part.value
    name = part.name
    return lambda values: values[name]


def _compute_at_most_once(function: Function, slot: int | None) -> Function:
    """The same function, computed once where the expression holds it more than once."""
    if slot is None:
        return function

    def compute_once(values: Values) -> Tensor:
        if slot not in values:
            values[slot] = function(values)
        return values[slot]

    return compute_once


def _compile_call(call: Call, parts: list[Part]) -> Function:
    operation = _OPERATIONS[call.function]
    if call.function == "**" and not callable(parts[1]) and parts[1] in _POWERS:
        return _apply_operation(_POWERS[parts[1]], parts[:1])
    if call.function in ("minimum", "maximum"):
        return _apply_operation(operation, [_as_tensor(part) for part in parts])
    if call.function == "where":
        condition, yes, no = map(_as_tensor, parts)
        return lambda values: operation(condition(values), yes(values), no(values))
    return _apply_operation(operation, parts)


def _apply_operation(operation: Callable[..., Tensor], parts: list[Part]) -> Function:
    """One operation of one or two parts, numbers as they are: nothing is decided when it runs."""
    first, second = parts[0], parts[-1]
    if len(parts) == 1 and callable(first):
        return lambda values: operation(first(values))
    if callable(first) and callable(second):
        return lambda values: operation(first(values), second(values))
    if callable(first):
        return lambda values: operation(first(values), second)
    assert callable(second), "what is constant was computed before"
    return lambda values: operation(first, second(values))


def _as_tensor(part: Part) -> Function:
    """A number as a tensor in the precision of x, where torch would choose one of its own."""
    if callable(part):
        return part
    return lambda values: torch.full((), part, dtype=values["x"].dtype, device=values["x"].device)
