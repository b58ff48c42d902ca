"""From a formula to what its kernels compute: the value, and by the chain rule its gradients."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from normlab.config.formula import Kind
from normlab.config.tree import CONDITIONS, Call, Name, Number, Tree, fold
from normlab.norms.fused.gradient import gradients
from normlab.norms.fused.graph import REDUCTIONS, Graph, Node

GRADIENT = "∂y"  # of the loss by the norm's output, FULL; no parameter can be called that
_COMPARISONS = tuple(sign for sign in CONDITIONS if sign not in ("and", "or", "not"))


class UnsupportedError(Exception):
    """The formula says something that kernels are not made of; torch computes it."""


@dataclass(frozen=True)
class Program:
    """What one kernel gives for a token: features to store, and what is added up over tokens."""

    stores: Mapping[str, Node]
    totals: Mapping[str, Node]


def forward_program(tree: Tree, kinds: Mapping[str, Kind], width: int) -> Program:
    """Kernel of y = formula(x).

    Raises:
        UnsupportedError: torch has to compute it.
    """
    return Program({"y": _lowered(tree, kinds, Graph(width))}, {})


def backward_program(tree: Tree, kinds: Mapping[str, Kind], width: int) -> Program:
    """Kernel of the loss's gradients by x, and by each parameter, added up over the tokens.

    Raises:
        UnsupportedError: torch has to compute it.
    """
    graph = Graph(width)
    value = _lowered(tree, kinds, graph)
    found = gradients(graph, value, graph.given(GRADIENT, Kind.FULL))
    by_name = {node.name: gradient for node, gradient in found.items() if node.name}
    zero = graph.number(0)
    totals = {name: by_name.get(name, zero) for name in kinds if name != "x"}
    return Program({"x": by_name.get("x", zero)}, totals)


def _lowered(tree: Tree, kinds: Mapping[str, Kind], graph: Graph) -> Node:
    def leaf(part: Number | Name) -> Node:
        if isinstance(part, Number):
            return graph.number(part.value)
        if part.name == "index":
            return graph.index()
        return graph.given(part.name, kinds[part.name])

    return fold(tree, leaf, lambda call, inputs: _call(graph, call, inputs))


def _call(graph: Graph, call: Call, inputs: list[Node]) -> Node:
    name = call.function
    if name in _SAME or name in _COMPARISONS:
        return graph.apply(name, *inputs)
    if name in REDUCTIONS:
        return graph.reduce(name, *inputs)
    if name not in _MADE:
        raise UnsupportedError(name)
    return _MADE[name](graph, *inputs)


def _variance(graph: Graph, a: Node) -> Node:
    return graph.mean(graph.square(graph.subtract(a, graph.mean(a))))


def _extreme(graph: Graph, sign: str, a: Node, b: Node) -> Node:
    """Equal numbers share the gradient, as torch has it; what is no number stays none."""
    half, other = graph.multiply(graph.number(0.5), graph.add(a, b)), graph.apply("!=", a, b)
    strict = graph.apply("where", graph.apply(sign, a, b), a, b)
    strict = graph.apply("where", graph.apply("==", a, a), strict, a)
    return graph.apply("where", other, strict, half)


def _gelu(graph: Graph, a: Node) -> Node:
    erf = graph.apply("erf", graph.multiply(graph.number(math.sqrt(0.5)), a))
    return graph.multiply(graph.number(0.5), a, graph.add(graph.number(1), erf))


def _relu(graph: Graph, a: Node) -> Node:
    return graph.apply("where", graph.apply("<=", a, graph.number(0)), graph.number(0), a)


def _power(graph: Graph, a: Node, b: Node) -> Node:
    powers = {
        2.0: lambda: graph.square(a),
        3.0: lambda: graph.multiply(a, a, a),
        4.0: lambda: graph.square(graph.square(a)),
        1.0: lambda: a,
        0.5: lambda: graph.apply("sqrt", a),
        -0.5: lambda: graph.apply("reciprocal", graph.apply("sqrt", a)),
        -1.0: lambda: graph.apply("reciprocal", a),
    }
    if b.operation != "number" or b.number not in powers:
        raise UnsupportedError("**")
    return powers[b.number]()


_SAME = ("abs", "sqrt", "exp", "tanh", "erf", "sigmoid", "sign", "detach", "where")
_MADE: dict[str, Callable[..., Node]] = {
    "+": Graph.add,
    "-": Graph.subtract,
    "*": Graph.multiply,
    "/": Graph.divide,
    "**": _power,
    "negative": Graph.negative,
    "square": Graph.square,
    "mean": Graph.mean,
    "var": _variance,
    "std": lambda graph, a: graph.apply("sqrt", _variance(graph, a)),
    "rms": lambda graph, a: graph.apply("sqrt", graph.mean(graph.square(a))),
    "rsqrt": lambda graph, a: graph.apply("reciprocal", graph.apply("sqrt", a)),
    "silu": lambda graph, a: graph.multiply(a, graph.apply("sigmoid", a)),
    "gelu": _gelu,
    "relu": _relu,
    "minimum": lambda graph, a, b: _extreme(graph, "<", a, b),
    "maximum": lambda graph, a, b: _extreme(graph, ">", a, b),
}
