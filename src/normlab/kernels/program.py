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
    """Kernel of y = formula(x). Raises UnsupportedError."""
    return Program({"y": _lower_tree(tree, kinds, Graph(width))}, {})


def backward_program(tree: Tree, kinds: Mapping[str, Kind], width: int) -> Program:
    """Kernel of the loss's gradients by x, and by each parameter, summed over the tokens.

    Raises:
        UnsupportedError: torch has to compute it.
    """
    graph = Graph(width)
    value = _lower_tree(tree, kinds, graph)
    gradients = node_gradients(graph, value, graph.input_node(GRADIENT, Kind.FULL))
    by_name = {node.name: gradient for node, gradient in gradients.items() if node.name}
    zero = graph.number_node(0)
    totals = {name: by_name.get(name, zero) for name in kinds if name != "x"}
    return Program({"x": by_name.get("x", zero)}, totals)


def _lower_tree(tree: Tree, kinds: Mapping[str, Kind], graph: Graph) -> Node:
    def lower_leaf(part: Number | Name) -> Node:
        if isinstance(part, Number):
            return graph.number_node(part.value)
        if part.name == "index":
            return graph.index_node()
        return graph.input_node(part.name, kinds[part.name])

    return fold_tree(tree, lower_leaf, lambda call, inputs: _lower_call(graph, call, inputs))


def _lower_call(graph: Graph, call: Call, inputs: list[Node]) -> Node:
    name = call.function
    if name in _DIRECT or name in _COMPARISONS:
        return graph.apply(name, *inputs)
    if name in REDUCTIONS:
        return graph.reduce_features(name, *inputs)
    if name not in _COMPOSED:
        raise UnsupportedError(name)
    return _COMPOSED[name](graph, *inputs)


def _lower_variance(graph: Graph, a: Node) -> Node:
    # Of what is left without the mean: mean(a²) - mean(a)² loses its digits far from zero.
    return graph.mean_features(graph.square(graph.subtract(a, graph.mean_features(a))))


def _lower_extreme(graph: Graph, sign: str, a: Node, b: Node) -> Node:
    """Equal numbers share the gradient, as torch has it; NaN stays NaN."""
    half = graph.multiply(graph.number_node(0.5), graph.add(a, b))
    strict = graph.apply("where", graph.apply(sign, a, b), a, b)
    strict = graph.apply("where", graph.apply("==", a, a), strict, a)
    return graph.apply("where", graph.apply("!=", a, b), strict, half)


def _lower_gelu(graph: Graph, a: Node) -> Node:
    erf = graph.apply("erf", graph.multiply(graph.number_node(math.sqrt(0.5)), a))
    return graph.multiply(graph.number_node(0.5), a, graph.add(graph.number_node(1), erf))


def _lower_power(graph: Graph, a: Node, b: Node) -> Node:
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
    "**": _lower_power,
    "negative": Graph.negative,
    "square": Graph.square,
    "mean": Graph.mean_features,
    "var": _lower_variance,
    "std": lambda graph, a: graph.apply("sqrt", _lower_variance(graph, a)),
    "rms": lambda graph, a: graph.apply("sqrt", graph.mean_features(graph.square(a))),
    "rsqrt": lambda graph, a: graph.apply("reciprocal", graph.apply("sqrt", a)),
    "silu": lambda graph, a: graph.multiply(a, graph.apply("sigmoid", a)),
    "gelu": _lower_gelu,
    # NaN is not <= 0, so it stays NaN; at 0 the gradient is 0, as torch has it.
    "relu": lambda graph, a: graph.apply(
        "where", graph.apply("<=", a, graph.number_node(0)), graph.number_node(0), a
    ),
    "minimum": lambda graph, a, b: _lower_extreme(graph, "<", a, b),
    "maximum": lambda graph, a, b: _lower_extreme(graph, ">", a, b),
}


def node_gradients(graph: Graph, value: Node, by_value: Node) -> dict[Node, Node]:
    """The gradient by each node that `value` depends on.

    What varies along the tokens only is a gradient added up over the features; nothing is added up
    over the tokens.
    """
    gradients: dict[Node, Node] = {value: by_value}
    for node in reversed(_sort_nodes(value)):
        if node not in gradients:
            continue
        for source, part in _input_gradients(graph, node, gradients[node]):
            if part.varies_along(Kind.FEATURE) and not source.varies_along(Kind.FEATURE):
                part = graph.reduce_features("sum", part)
            gradients[source] = graph.add(gradients[source], part) if source in gradients else part
    return gradients


def _sort_nodes(value: Node) -> list[Node]:
    """All nodes, once, behind their inputs."""
    order: dict[Node, None] = {}

    def visit_inputs_first(node: Node) -> None:
        if node not in order:
            for source in node.inputs:
                visit_inputs_first(source)
            order[node] = None

    visit_inputs_first(value)
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
        zero = graph.number_node(0)
        yield yes, graph.apply("where", condition, by_node, zero)
        yield no, graph.apply("where", condition, zero, by_node)
    elif node.operation in (*OVER_FEATURES, "centre"):
        yield node.inputs[0], _reduction_gradient(graph, node, by_node)
    elif len(node.inputs) == 1 and (derivative := _unary_derivative(graph, node)) is not None:
        yield node.inputs[0], graph.multiply(by_node, derivative)


def _reduction_gradient(graph: Graph, node: Node, by_node: Node) -> Node:
    if node.operation == "sum":
        return by_node
    if node.operation == "mean":
        return graph.multiply(graph.number_node(1 / graph.width), by_node)
    if node.operation == "centre":
        return graph.subtract(by_node, graph.mean_features(by_node))
    # Features that share the extreme value share its gradient, as torch has it.
    zero, unit = graph.number_node(0), graph.number_node(1)
    extreme = graph.apply("where", graph.apply("==", node.inputs[0], node), unit, zero)
    return graph.divide(graph.multiply(by_node, extreme), graph.reduce_features("sum", extreme))


def _unary_derivative(graph: Graph, node: Node) -> Node | None:
    """The derivative of a function of one number; None where no gradient goes through."""
    a, number = node.inputs[0], graph.number_node
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
