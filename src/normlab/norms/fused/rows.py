"""The loops of a kernel over a chunk's tokens and each token's features, as LLVM's instructions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from llvmlite import ir

from normlab.config.formula import Kind
from normlab.norms.fused import functions
from normlab.norms.fused.build import Program
from normlab.norms.fused.functions import F32, I32, constant
from normlab.norms.fused.graph import OVER_FEATURES, Node
from normlab.norms.fused.loops import I64, POINTER, integer, loop

I16, F64 = ir.IntType(16), ir.DoubleType()
# For sums alone, so that many are added side by side. What is computed twice must be the same
# twice, for a largest feature is found again by its value; and a run that diverges must show it.
_SUMS = ("reassoc", "nsz")
# Not computed twice: more than reading it again from the nearest cache.
_COSTLY = ("exp", "sigmoid", "tanh", "erf")
_START = {"sum": 0.0, "mean": 0.0, "max": float("-inf"), "min": float("inf")}


@dataclass(frozen=True)
class Shape:
    """What of its data a kernel is made for.

    Attributes:
        width: features of a token.
        half: whether x and its like are bfloat16; parameters and totals never are.
        period: after how many tokens a parameter of features begins anew.
        given: names in the order of the arguments, with their kinds.
    """

    width: int
    half: bool
    period: int
    given: tuple[tuple[str, Kind], ...]


class Rows:
    """The function that goes over a chunk's tokens.

    A mean is added up in double precision, and what single precision cannot hold of it is kept
    beside it: where a token is far from zero, what is left of it without its mean is exact.
    """

    def __init__(
        self, module: ir.Module, program: Program, shape: Shape, names: Sequence[str]
    ) -> None:
        self.program, self.shape = program, shape
        kind = ir.FunctionType(ir.VoidType(), [*[POINTER] * len(names), I64, I64])
        self.function = ir.Function(module, kind, "rows")
        self.function.linkage = "internal"
        given = [name for name, _ in shape.given]
        *pointers, first, last = self.function.args
        for pointer in pointers:
            pointer.add_attribute("noalias")
        count = len(given)
        self.given = dict(zip(given, pointers[:count], strict=True))
        outs = pointers[count:]
        self.stores = dict(zip(program.stores, outs, strict=False))
        self.totals = dict(zip(program.totals, outs[len(program.stores) :], strict=True))
        self.build = ir.IRBuilder(self.function.append_basic_block())
        self.scalars: dict[Node, ir.Value] = {}
        self.rests: dict[Node, ir.Value] = {}  # of means
        self.vectors: dict[Node, ir.Value] = {}
        self.kept: dict[Node, ir.Value] = {}
        self.levels: dict[Node, int] = {}
        per_feature = {
            name: node
            for name, node in program.totals.items()
            if dict(shape.given)[name] & Kind.FEATURE
        }
        self.per_feature = per_feature
        self.single = {n: node for n, node in program.totals.items() if n not in per_feature}
        self.sums = {name: self._variable(0.0) for name in self.single}
        self._emit(first, last)

    def _emit(self, first: ir.Value, last: ir.Value) -> None:
        build = self.build
        wanted = [*self.program.stores.values(), *self.program.totals.values()]
        reductions = list(self._reductions(wanted))
        self.accumulators = {
            node: self._variable(0.0, F64 if node.operation == "mean" else F32)
            for node in reductions
        }
        loops = max(
            [
                self.level(node)
                for node in (*self.program.stores.values(), *self.per_feature.values())
            ]
            + [self.level(node) - 1 for node in reductions]
        )
        with loop(build, first, last) as token:
            self.scalars.clear()
            self._place(token)
            for number in range(loops + 1):
                ready = [node for node in reductions if self.level(node) == number + 1]
                self._features(ready, is_last=number == loops)
                for node in ready:
                    self.scalars[node] = self._reduced(node)
            for name, node in self.single.items():
                self._add_to(self.sums[name], self._scalar(node))
        for name, variable in self.sums.items():
            build.store(build.load(variable, typ=F32), self.totals[name])
        build.ret_void()

    def _place(self, token: ir.Value) -> None:
        """Where a token's features and its parameters stand."""
        build, shape = self.build, self.shape
        self.offset = build.mul(token, integer(shape.width))
        position = build.srem(token, integer(shape.period))
        self.feature_offset = build.mul(position, integer(shape.width))

    def _features(self, reductions: Sequence[Node], *, is_last: bool) -> None:
        """One loop over the features: sums for later, and in the last loop all that is stored."""
        targets = [node.inputs[0] for node in reductions]
        if is_last:
            targets += [*self.program.stores.values(), *self.per_feature.values()]
        seen: set[Node] = set()
        for node in targets:
            self._prepare(node, seen)
        for node in reductions:
            kind = F64 if node.operation == "mean" else F32
            self.build.store(ir.Constant(kind, _START[node.operation]), self.accumulators[node])
        with loop(self.build, integer(0), integer(self.shape.width)) as feature:
            self.feature = feature
            self.vectors.clear()
            for node in reductions:
                variable, value = self.accumulators[node], self._vector(node.inputs[0])
                if node.operation == "sum":
                    self._add_to(variable, value)
                elif node.operation == "mean":
                    self._add_to(variable, self.build.fpext(value, F64), F64)
                else:
                    before = self.build.load(variable, typ=F32)
                    name = {"max": "maximum", "min": "minimum"}[node.operation]
                    self.build.store(functions.call(self.build, name, before, value), variable)
            if is_last:
                self._store()

    def _reduced(self, node: Node) -> ir.Value:
        """What a loop has gathered of a token."""
        build = self.build
        if node.operation != "mean":
            return build.load(self.accumulators[node], typ=F32)
        total = build.load(self.accumulators[node], typ=F64)
        exact = build.fdiv(total, ir.Constant(F64, self.shape.width))
        mean = build.fptrunc(exact, F32)
        rest = build.fptrunc(build.fsub(exact, build.fpext(mean, F64)), F32)
        is_one = build.fcmp_ordered("ord", rest, rest)  # an infinite mean leaves none
        self.rests[node] = build.select(is_one, rest, constant(0.0))
        return mean

    def _store(self) -> None:
        for name, node in self.program.stores.items():
            at = self.build.add(self.offset, self.feature)
            self._write(self.stores[name], at, self._vector(node))
        for name, node in self.per_feature.items():
            at = self.build.add(self.feature_offset, self.feature)
            place = self.build.gep(self.totals[name], [at], source_etype=F32)
            self._add_to(place, self._vector(node))

    def _prepare(self, node: Node, seen: set[Node]) -> None:
        """Compute before the loop what is the same for all features."""
        if node in seen:
            return
        seen.add(node)
        if not node.varies(Kind.FEATURE):
            self._scalar(node)
        elif node.operation not in OVER_FEATURES:
            for given in node.inputs:
                self._prepare(given, seen)

    def _scalar(self, node: Node) -> ir.Value:
        if node not in self.scalars:
            if node.operation == "given":
                value = self.build.load(self.given[node.name], typ=F32)
            else:
                value = self._operation(node, [self._scalar(given) for given in node.inputs])
            self.scalars[node] = value
        return self.scalars[node]

    def _vector(self, node: Node) -> ir.Value:
        if not node.varies(Kind.FEATURE):
            return self._scalar(node)
        if node not in self.vectors:
            if node.operation == "given":
                value = self._read(node)
            elif node.operation == "index":
                value = self.build.sitofp(self.build.trunc(self.feature, I32), F32)
            elif node in self.kept:
                value = self.build.load(self._at(self.kept[node]), typ=F32)
            else:
                value = self._operation(node, [self._vector(given) for given in node.inputs])
                if node.operation in _COSTLY:
                    self._keep(node, value)
            self.vectors[node] = value
        return self.vectors[node]

    def _keep(self, node: Node, value: ir.Value) -> None:
        """Note it for a later loop; LLVM takes out what no loop asks for."""
        with self.build.goto_entry_block():
            row = self.build.alloca(F32, size=integer(self.shape.width))
        self.build.store(value, self._at(row))
        self.kept[node] = row

    def _at(self, row: ir.Value) -> ir.Value:
        return self.build.gep(row, [self.feature], source_etype=F32)

    def _operation(self, node: Node, values: Sequence[ir.Value]) -> ir.Value:
        build = self.build
        match node.operation:
            case "number":
                return constant(node.number)
            case "add" | "multiply":
                return _chained({"add": build.fadd, "multiply": build.fmul}[node.operation], values)
            case "centre":
                centred = build.fsub(*values)
                rest = self.rests.get(node.inputs[1])
                return centred if rest is None else build.fsub(centred, rest)
            case "where":
                return build.select(*values)
            case "!=":
                return build.fcmp_unordered("!=", *values)
            case "<" | "<=" | ">" | ">=" | "==":
                return build.fcmp_ordered(node.operation, *values)
        return _UNARY[node.operation](build, *values)

    def _read(self, node: Node) -> ir.Value:
        """A feature of what is given."""
        build, pointer = self.build, self.given[node.name]
        if not node.varies(Kind.TOKEN):
            at = build.add(self.feature_offset, self.feature)
            return build.load(build.gep(pointer, [at], source_etype=F32), typ=F32)
        at = build.add(self.offset, self.feature)
        if not self.shape.half:
            return build.load(build.gep(pointer, [at], source_etype=F32), typ=F32)
        bits = build.load(build.gep(pointer, [at], source_etype=I16), typ=I16)
        return build.bitcast(build.shl(build.zext(bits, I32), ir.Constant(I32, 16)), F32)

    def _write(self, pointer: ir.Value, at: ir.Value, value: ir.Value) -> None:
        build = self.build
        if not self.shape.half:
            build.store(value, build.gep(pointer, [at], source_etype=F32))
            return
        # To the nearest bfloat16, ties to the even one; what is no number stays none.
        bits, sixteen = build.bitcast(value, I32), ir.Constant(I32, 16)
        odd = build.and_(build.lshr(bits, sixteen), ir.Constant(I32, 1))
        rounded = build.lshr(build.add(build.add(bits, ir.Constant(I32, 0x7FFF)), odd), sixteen)
        is_none = build.fcmp_unordered("uno", value, value)
        half = build.trunc(build.select(is_none, ir.Constant(I32, 0x7FC0), rounded), I16)
        build.store(half, build.gep(pointer, [at], source_etype=I16))

    def _variable(self, value: float, kind: ir.Type = F32) -> ir.Value:
        with self.build.goto_entry_block():
            variable = self.build.alloca(kind)
            self.build.store(ir.Constant(kind, value), variable)
        return variable

    def _add_to(self, place: ir.Value, value: ir.Value, kind: ir.Type = F32) -> None:
        before = self.build.load(place, typ=kind)
        self.build.store(self.build.fadd(before, value, flags=_SUMS), place)

    def level(self, node: Node) -> int:
        """How many loops over the features come before it."""
        if node not in self.levels:
            levels = [self.level(given) for given in node.inputs]
            self.levels[node] = max(levels, default=0) + (node.operation in OVER_FEATURES)
        return self.levels[node]

    def _reductions(self, wanted: Sequence[Node]) -> Iterator[Node]:
        seen: set[Node] = set()

        def visit(node: Node) -> Iterator[Node]:
            if node not in seen:
                seen.add(node)
                for given in node.inputs:
                    yield from visit(given)
                if node.operation in OVER_FEATURES:
                    yield node

        for node in wanted:
            yield from visit(node)


def _sign(build: ir.IRBuilder, a: ir.Value) -> ir.Value:
    zero = constant(0.0)
    one = functions.call(build, "copysign", constant(1.0), a)
    return build.select(build.fcmp_ordered("==", a, zero), zero, one)


_UNARY: dict[str, Callable[[ir.IRBuilder, ir.Value], ir.Value]] = {
    # Exact: an estimate would make NaN of 1 / ∞.
    "reciprocal": lambda build, a: build.fdiv(constant(1.0), a),
    "sqrt": lambda build, a: functions.call(build, "sqrt", a),
    "abs": lambda build, a: functions.call(build, "fabs", a),
    "detach": lambda build, a: a,
    "sign": _sign,
    "exp": functions.exp,
    "sigmoid": functions.sigmoid,
    "tanh": functions.tanh,
    "erf": functions.erf,
}


def _chained(operation: ir.IRBuilder, values: Sequence[ir.Value]) -> ir.Value:
    total = values[0]
    for value in values[1:]:
        total = operation(total, value)
    return total
