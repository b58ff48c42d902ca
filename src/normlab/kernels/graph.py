"""What a kernel computes for one token: a graph of small operations, each held once.

A node varies along the features, along the tokens, along both or along neither (its `Kind`).
Factors that are the same for all features are taken out of sums over the features, so that a kernel
goes over a token's features as seldom as it can.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from normlab.config.formula import ELEMENTWISE, Kind

REDUCTIONS = ("sum", "max", "min")
# What a kernel has to go over a token's features for.
OVER_FEATURES = (*REDUCTIONS, "mean")

# On numbers, for what is constant.
_NUMBERS: dict[str, Callable[..., float]] = {**ELEMENTWISE, "reciprocal": lambda a: 1 / a}


@dataclass(frozen=True, eq=False)
class Node:
    """One operation. Nodes of one graph are equal only when they are the same."""

    operation: str
    inputs: tuple["Node", ...]
    kind: Kind
    number: float = 0.0  # of a `number`
    name: str = ""  # of an `input`: x, the gradient, a parameter

    def varies_along(self, along: Kind) -> bool:
        """Whether it varies along the features, or along the tokens."""
        return bool(self.kind & along)


@dataclass
class Graph:
    """Makes nodes, each once, and simpler ones where that is exact enough."""

    width: int
    _nodes: dict[tuple[object, ...], Node] = field(default_factory=dict)

    def input_node(self, name: str, kind: Kind) -> Node:
        """Something that comes from outside."""
        return self._unique_node("input", (), kind, name=name)

    def number_node(self, value: float) -> Node:
        """A constant."""
        return self._unique_node("number", (), Kind.NUMBER, number=float(value))

    def index_node(self) -> Node:
        """The feature's own number, from 0."""
        return self._unique_node("index", (), Kind.FEATURE)

    def apply(self, operation: str, *inputs: Node) -> Node:
        """An operation on each feature: of `_NUMBERS`, a comparison, `where`."""
        if operation in _NUMBERS and inputs[0].operation == "number":
            return self.number_node(_NUMBERS[operation](inputs[0].number))
        kind = Kind.NUMBER
        for node in inputs:
            kind |= node.kind
        return self._unique_node(operation, inputs, kind)

    def add(self, *terms: Node) -> Node:
        """The sum of nodes."""
        constant = sum(term.number for term in terms if term.operation == "number")
        counts = Counter(term for term in terms if term.operation != "number")
        rest = [self.multiply(self.number_node(times), term) for term, times in counts.items()]
        if constant or not rest:
            rest.append(self.number_node(constant))
        return rest[0] if len(rest) == 1 else self.apply("add", *rest)

    def multiply(self, *factors: Node) -> Node:
        """The product of nodes; the numbers among them are multiplied here."""
        constant, rest = 1.0, []
        for factor in self._flatten_factors(factors):
            if factor.operation == "number":
                constant *= factor.number
            else:
                rest.append(factor)
        if constant == 0.0 or not rest:
            return self.number_node(constant)
        # What is the same for all features first: it is computed once a token.
        rest.sort(key=lambda node: (node.varies_along(Kind.FEATURE), node.kind.value))
        if constant != 1.0:
            rest.insert(0, self.number_node(constant))
        return rest[0] if len(rest) == 1 else self.apply("multiply", *rest)

    def negative(self, node: Node) -> Node:
        """Minus a node."""
        return self.multiply(self.number_node(-1), node)

    def subtract(self, left: Node, right: Node) -> Node:
        """The difference of two; what is left of a node without its mean sums to nothing."""
        if right is self.mean_features(left) and left.varies_along(Kind.FEATURE):
            return self.apply("centre", left, right)
        return self.add(left, self.negative(right))

    def divide(self, left: Node, right: Node) -> Node:
        """The quotient, through the reciprocal: a token's divisor is inverted once."""
        return self.multiply(left, self.apply("reciprocal", right))

    def square(self, node: Node) -> Node:
        """A node times itself."""
        return self.multiply(node, node)

    def reduce_features(self, reduction: str, node: Node) -> Node:
        """`sum`, `max` or `min` over the features."""
        if reduction == "sum":
            return self._sum_features(node)
        return (
            node if not node.varies_along(Kind.FEATURE) else self._reduction_node(reduction, node)
        )

    def mean_features(self, node: Node) -> Node:
        """The mean over the features; that of an input is exact, see `TokenLoop`."""
        if node.operation == "input" and node.varies_along(Kind.FEATURE):
            return self._reduction_node("mean", node)
        return self.multiply(self.number_node(1 / self.width), self._sum_features(node))

    def _sum_features(self, node: Node) -> Node:
        if not node.varies_along(Kind.FEATURE):
            return self.multiply(self.number_node(self.width), node)
        if node.operation == "centre":
            return self.number_node(0)
        if node.operation == "add":
            return self.add(*map(self._sum_features, node.inputs))
        if node.operation == "multiply":
            outside = [factor for factor in node.inputs if not factor.varies_along(Kind.FEATURE)]
            inside = [factor for factor in node.inputs if factor.varies_along(Kind.FEATURE)]
            if outside:
                return self.multiply(*outside, self._sum_features(self.multiply(*inside)))
        return self._reduction_node("sum", node)

    def _reduction_node(self, reduction: str, node: Node) -> Node:
        return self._unique_node(reduction, (node,), node.kind & ~Kind.FEATURE)

    def _flatten_factors(self, nodes: Sequence[Node]) -> list[Node]:
        factors: list[Node] = []
        for node in nodes:
            factors += (
                self._flatten_factors(node.inputs) if node.operation == "multiply" else [node]
            )
        return factors

    def _unique_node(
        self,
        operation: str,
        inputs: tuple[Node, ...],
        kind: Kind,
        number: float = 0.0,
        name: str = "",
    ) -> Node:
        # The sign too: 0.0 == -0.0, and yet 1 / -0.0 is -∞.
        key = (operation, *map(id, inputs), number, math.copysign(1, number), name)
        return self._nodes.setdefault(key, Node(operation, inputs, kind, number, name))
