"""The chain rule on a graph, from its value back to what it was given."""

import math
from collections.abc import Iterator

from normlab.config.formula import Kind
from normlab.norms.fused.graph import OVER_FEATURES, Graph, Node


def gradients(graph: Graph, value: Node, by_value: Node) -> dict[Node, Node]:
    """The gradient by every node that `value` depends on.

    What varies along the tokens only is a gradient added up over the features; nothing is added up
    over the tokens.
    """
    found: dict[Node, Node] = {value: by_value}
    for node in reversed(_in_order(value)):
        if node not in found:
            continue
        for given, part in _parts(graph, node, found[node]):
            if part.varies(Kind.FEATURE) and not given.varies(Kind.FEATURE):
                part = graph.reduce("sum", part)
            found[given] = graph.add(found[given], part) if given in found else part
    return found


def _in_order(value: Node) -> list[Node]:
    """Every node once, behind its inputs."""
    order: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in order:
            for given in node.inputs:
                visit(given)
            order[node] = None

    visit(value)
    return list(order)


def _parts(graph: Graph, node: Node, by_node: Node) -> Iterator[tuple[Node, Node]]:
    """Each input, and what reaches it through this node."""
    if node.operation == "multiply":
        for place, given in enumerate(node.inputs):
            others = node.inputs[:place] + node.inputs[place + 1 :]
            yield given, graph.multiply(by_node, *others)
    elif node.operation == "add":
        for given in node.inputs:
            yield given, by_node
    elif node.operation == "where":
        condition, yes, no = node.inputs
        zero = graph.number(0)
        yield yes, graph.apply("where", condition, by_node, zero)
        yield no, graph.apply("where", condition, zero, by_node)
    elif node.operation in (*OVER_FEATURES, "centre"):
        yield node.inputs[0], _through_reduction(graph, node, by_node)
    elif len(node.inputs) == 1 and (slope := _slope(graph, node)) is not None:
        yield node.inputs[0], graph.multiply(by_node, slope)


def _through_reduction(graph: Graph, node: Node, by_node: Node) -> Node:
    if node.operation == "sum":
        return by_node
    if node.operation == "mean":
        return graph.multiply(graph.number(1 / graph.width), by_node)
    if node.operation == "centre":
        return graph.subtract(by_node, graph.mean(by_node))
    # Features that share the extreme value share its gradient, as torch has it.
    zero, one = graph.number(0), graph.number(1)
    extreme = graph.apply("where", graph.apply("==", node.inputs[0], node), one, zero)
    return graph.divide(graph.multiply(by_node, extreme), graph.reduce("sum", extreme))


def _slope(graph: Graph, node: Node) -> Node | None:
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
