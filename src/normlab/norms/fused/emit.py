"""From a program to machine code's last step before LLVM: loops over tokens and their features.

For a token there are as few loops over its features as its sums allow: what is needed for a sum
that needs no other is added up in the first loop, and so on; the last one stores. What a later loop
needs again is computed again: the token lies in the processor's nearest cache, and x alone is read.

    kernel(arguments): counter, tokens, chunks, then the addresses of what is given, the stores,
                       and the totals, each int64

Chunks of tokens are taken from the counter by as many threads as call the kernel. Totals have a row
a chunk, so that no thread waits for another and no sum depends on which thread was quick.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from llvmlite import ir

from normlab.config.formula import Kind
from normlab.norms.fused import functions
from normlab.norms.fused.build import Program
from normlab.norms.fused.functions import F32, I32, constant
from normlab.norms.fused.graph import REDUCTIONS, Node

I64, I16, POINTER = ir.IntType(64), ir.IntType(16), ir.PointerType()
# For sums alone, so that many are added side by side. What is computed twice must be the same
# twice, for a largest feature is found again by its value; and a run that diverges must show it.
_SUMS = ("reassoc", "nsz")
_START = {"sum": 0.0, "max": float("-inf"), "min": float("inf")}
_HEAD = 3


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


def emit(program: Program, shape: Shape) -> ir.Module:
    """The module with the function `kernel`."""
    module = ir.Module()
    names = [*(name for name, _ in shape.given), *program.stores, *program.totals]
    rows = _Rows(module, program, shape, names).function
    kind = ir.FunctionType(ir.VoidType(), [POINTER])
    kernel = ir.Function(module, kind, "kernel")
    build = ir.IRBuilder(kernel.append_basic_block())
    arguments = kernel.args[0]

    def argument(place: int) -> ir.Value:
        return build.load(build.gep(arguments, [_int(place)], source_etype=I64), typ=I64)

    tokens, chunks = argument(1), argument(2)
    addresses = [build.inttoptr(argument(_HEAD + place), POINTER) for place in range(len(names))]
    take, work, done = (kernel.append_basic_block(name) for name in ("take", "work", "done"))
    build.branch(take)
    build.position_at_end(take)
    chunk = build.atomic_rmw("add", arguments, _int(1), "monotonic")
    build.cbranch(build.icmp_signed("<", chunk, chunks), work, done)
    build.position_at_end(work)
    first, last = (
        build.sdiv(build.mul(build.add(chunk, _int(offset)), tokens), chunks) for offset in (0, 1)
    )
    for place, name in enumerate(program.totals, len(names) - len(program.totals)):
        size = total_size(shape, name)
        row = build.mul(chunk, _int(size))
        addresses[place] = build.gep(addresses[place], [row], source_etype=F32)
    build.call(rows, [*addresses, first, last])
    build.branch(take)
    build.position_at_end(done)
    build.ret_void()
    return module


def total_size(shape: Shape, name: str) -> int:
    """Numbers in a chunk's row of a total."""
    per_feature = bool(dict(shape.given)[name] & Kind.FEATURE)
    return shape.width * shape.period if per_feature else 1


class _Rows:
    """The function that goes over a chunk's tokens."""

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
        self.vectors: dict[Node, ir.Value] = {}
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
        self.accumulators = {node: self._variable(0.0) for node in reductions}
        loops = max(
            [
                self.level(node)
                for node in (*self.program.stores.values(), *self.per_feature.values())
            ]
            + [self.level(node) - 1 for node in reductions]
        )
        with self._loop(first, last) as token:
            self.scalars.clear()
            self._place(token)
            for number in range(loops + 1):
                ready = [node for node in reductions if self.level(node) == number + 1]
                self._features(ready, is_last=number == loops)
                for node in ready:
                    self.scalars[node] = build.load(self.accumulators[node], typ=F32)
            for name, node in self.single.items():
                self._add_to(self.sums[name], self._scalar(node))
        for name, variable in self.sums.items():
            build.store(build.load(variable, typ=F32), self.totals[name])
        build.ret_void()

    def _place(self, token: ir.Value) -> None:
        """Where a token's features and its parameters stand."""
        build, shape = self.build, self.shape
        self.offset = build.mul(token, _int(shape.width))
        period = build.srem(token, _int(shape.period))
        self.feature_offset = build.mul(period, _int(shape.width))

    def _features(self, reductions: Sequence[Node], *, is_last: bool) -> None:
        """One loop over the features: sums for later, and in the last loop all that is stored."""
        targets = [node.inputs[0] for node in reductions]
        if is_last:
            targets += [*self.program.stores.values(), *self.per_feature.values()]
        seen: set[Node] = set()
        for node in targets:
            self._prepare(node, seen)
        for node in reductions:
            self.build.store(constant(_START[node.operation]), self.accumulators[node])
        with self._loop(_int(0), _int(self.shape.width)) as feature:
            self.feature = feature
            self.vectors.clear()
            for node in reductions:
                variable, value = self.accumulators[node], self._vector(node.inputs[0])
                if node.operation == "sum":
                    self._add_to(variable, value)
                else:
                    before = self.build.load(variable, typ=F32)
                    name = {"max": "maximum", "min": "minimum"}[node.operation]
                    self.build.store(functions.call(self.build, name, before, value), variable)
            if is_last:
                self._store()

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
        elif node.operation not in REDUCTIONS:
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
            else:
                value = self._operation(node, [self._vector(given) for given in node.inputs])
            self.vectors[node] = value
        return self.vectors[node]

    def _operation(self, node: Node, values: Sequence[ir.Value]) -> ir.Value:
        build = self.build
        match node.operation:
            case "number":
                return constant(node.number)
            case "add" | "multiply":
                return _chained({"add": build.fadd, "multiply": build.fmul}[node.operation], values)
            case "centre":
                return build.fsub(*values)
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

    def _variable(self, value: float) -> ir.Value:
        with self.build.goto_entry_block():
            variable = self.build.alloca(F32)
            self.build.store(constant(value), variable)
        return variable

    def _add_to(self, place: ir.Value, value: ir.Value) -> None:
        before = self.build.load(place, typ=F32)
        self.build.store(self.build.fadd(before, value, flags=_SUMS), place)

    @contextmanager
    def _loop(self, first: ir.Value, last: ir.Value) -> Iterator[ir.Value]:
        """For every index from first to last, as in range; its value."""
        build = self.build
        before = build.block
        head, body, after = (build.append_basic_block(name) for name in ("head", "body", "after"))
        build.branch(head)
        build.position_at_end(head)
        index = build.phi(I64)
        index.add_incoming(first, before)
        build.cbranch(build.icmp_signed("<", index, last), body, after)
        build.position_at_end(body)
        yield index
        index.add_incoming(build.add(index, _int(1), flags=("nsw",)), build.block)
        build.branch(head)
        build.position_at_end(after)

    def level(self, node: Node) -> int:
        """How many loops over the features come before it."""
        if node not in self.levels:
            levels = [self.level(given) for given in node.inputs]
            self.levels[node] = max(levels, default=0) + (node.operation in REDUCTIONS)
        return self.levels[node]

    def _reductions(self, wanted: Sequence[Node]) -> Iterator[Node]:
        seen: set[Node] = set()

        def visit(node: Node) -> Iterator[Node]:
            if node not in seen:
                seen.add(node)
                for given in node.inputs:
                    yield from visit(given)
                if node.operation in REDUCTIONS:
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


def _int(value: int) -> ir.Constant:
    return ir.Constant(I64, value)
