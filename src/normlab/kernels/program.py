"""From a formula to what its kernels compute: the value, and by the chain rule its gradients."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from normlab.config.expressions import CONDITIONS, Call, Name, Number, Tree, fold_tree
from normlab.config.formula import Kind
from normlab.kernels.graph import OVER_FEATURES, REDUCTIONS, Graph, Node

GRADIENT = "∂y"  # of the loss by the norm's output, FULL; no parameter can be called that
_COMPARISONS = tuple(sign for sign in CONDITIONS if sign not in ("and", "or", "not"))


class UnsupportedError(Exception):
    """The formula has an operation that kernels lack; torch computes it."""


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
    return Program({"y": _lower_tree(tree, kinds, Graph(width))}, {})


def backward_program(tree: Tree, kinds: Mapping[str, Kind], width: int) -> Program:
    """Kernel of the loss's gradients by x, and by each parameter, summed over the tokens.

    Raises:
        UnsupportedError: torch has to compute it.
    """
    graph = Graph(width)
    value = _lower_tree(tree, kinds, graph)
    gradients = differentiate(graph, value, graph.input(GRADIENT, Kind.FULL))
    by_name = {node.name: gradient for node, gradient in gradients.items() if node.name}
    zero = graph.number(0)
    totals = {name: by_name.get(name, zero) for name in kinds if name != "x"}
    return Program({"x": by_name.get("x", zero)}, totals)


def _lower_tree(tree: Tree, kinds: Mapping[str, Kind], graph: Graph) -> Node:
    def leaf(part: Number | Name) -> Node:
        if isinstance(part, Number):
            return graph.number(part.value)
        if part.name == "index":
            return graph.index()
        return graph.input(part.name, kinds[part.name])

    return fold_tree(tree, leaf, lambda call, inputs: _lower_call(graph, call, inputs))


def _lower_call(graph: Graph, call: Call, inputs: list[Node]) -> Node:
    name = call.function
    if name in _DIRECT or name in _COMPARISONS:
        return graph.apply(name, *inputs)
    if name in REDUCTIONS:
        return graph.reduce(name, *inputs)
    if name not in _COMPOSED:
        raise UnsupportedError(name)
    return _COMPOSED[name](graph, *inputs)


def _variance(graph: Graph, a: Node) -> Node:
    return graph.mean(graph.square(graph.subtract(a, graph.mean(a))))


def _extreme(graph: Graph, sign: str, a: Node, b: Node) -> Node:
    """Equal numbers share the gradient, as torch has it; NaN stays NaN."""
    half = graph.multiply(graph.number(0.5), graph.add(a, b))
    strict = graph.apply("where", graph.apply(sign, a, b), a, b)
    strict = graph.apply("where", graph.apply("==", a, a), strict, a)
    return graph.apply("where", graph.apply("!=", a, b), strict, half)


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


_DIRECT = ("abs", "sqrt", "exp", "tanh", "erf", "sigmoid", "sign", "detach", "where")
_COMPOSED: dict[str, Callable[..., Node]] = {
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


def differentiate(graph: Graph, value: Node, by_value: Node) -> dict[Node, Node]:
    """The gradient by each node that `value` depends on.

    What varies along the tokens only is a gradient added up over the features; nothing is added up
    over the tokens.
    """
    gradients: dict[Node, Node] = {value: by_value}
    for node in reversed(_sort_nodes(value)):
        if node not in gradients:
            continue
        for source, part in _input_gradients(graph, node, gradients[node]):
            if part.varies(Kind.FEATURE) and not source.varies(Kind.FEATURE):
                part = graph.reduce("sum", part)
            gradients[source] = graph.add(gradients[source], part) if source in gradients else part
    return gradients


def _sort_nodes(value: Node) -> list[Node]:
    """All nodes, once, behind their inputs."""
    order: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in order:
            for source in node.inputs:
                visit(source)
            order[node] = None

    visit(value)
    return list(order)


def _input_gradients(graph: Graph, node: Node, by_node: Node) -> Iterator[tuple[Node, Node]]:
    """Each input, and what reaches it through this node."""
    if node.operation == "multiply":
        for index, source in enumerate(node.inputs):
            rest = node.inputs[:index] + node.inputs[index + 1 :]
            yield source, graph.multiply(by_node, *rest)
    elif node.operation == "add":
        for source in node.inputs:
            yield source, by_node
    elif node.operation == "where":
        condition, yes, no = node.inputs
        zero = graph.number(0)
        yield yes, graph.apply("where", condition, by_node, zero)
        yield no, graph.apply("where", condition, zero, by_node)
    elif node.operation in (*OVER_FEATURES, "centre"):
        yield node.inputs[0], _reduction_gradient(graph, node, by_node)
    elif len(node.inputs) == 1 and (derivative := _derivative(graph, node)) is not None:
        yield node.inputs[0], graph.multiply(by_node, derivative)


def _reduction_gradient(graph: Graph, node: Node, by_node: Node) -> Node:
    if node.operation == "sum":
        return by_node
    if node.operation == "mean":
        return graph.multiply(graph.number(1 / graph.width), by_node)
    if node.operation == "centre":
        return graph.subtract(by_node, graph.mean(by_node))
    # Features that share the extreme value share its gradient, as torch has it.
    zero, unit = graph.number(0), graph.number(1)
    extreme = graph.apply("where", graph.apply("==", node.inputs[0], node), unit, zero)
    return graph.divide(graph.multiply(by_node, extreme), graph.reduce("sum", extreme))


def _derivative(graph: Graph, node: Node) -> Node | None:
    """The derivative of a function of one number; None where no gradient goes through."""
    a, number = node.inputs[0], graph.number
    match node.operation:
        case "reciprocal":
            return graph.multiply(number(-1), node, node)
        case "sqrt":
            return graph.multiply(number(0.5), graph.apply("reciprocal", node))
        case "abs":
            return graph.apply("sign", a)
        case "exp":
            return node
        case "tanh":
            return graph.add(number(1), graph.multiply(number(-1), node, node))
        case "sigmoid":
            return graph.multiply(node, graph.subtract(number(1), node))
        case "erf":
            bell = graph.apply("exp", graph.multiply(number(-1), a, a))
            return graph.multiply(number(2 / math.sqrt(math.pi)), bell)
    return None
