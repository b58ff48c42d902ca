"""From a program to LLVM's instructions: loops over tokens and their features.

For a token there are as few loops over its features as its sums allow: what is needed for a sum
that needs no other is added up in the first loop, and so on; the last one stores. What a later loop
needs again is computed again: the token lies in the processor's nearest cache, and x alone is read.

    kernel(arguments): counter, finished, tokens, chunks, then the addresses of the inputs and of
                       the stores, and where there are totals of their rows and their sum; int64

Chunks of tokens are taken from the counter by as many threads as call the kernel. Each adds to a
row of totals of its own, and whoever finishes last adds up the rows, in their order: no thread
waits for another, and no sum depends on which was quick.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce

from llvmlite import ir

from normlab.config.formula import Kind
from normlab.kernels import functions
from normlab.kernels.functions import F32, I32, call_intrinsic, float_constant
from normlab.kernels.graph import OVER_FEATURES, Node
from normlab.kernels.program import Program

I64, POINTER = ir.IntType(64), ir.PointerType()
I16, F64 = ir.IntType(16), ir.DoubleType()
# For sums alone, so that many are added side by side. What is computed twice must be the same
# twice, for a largest feature is found again by its value; and a run that diverges must show it.
_SUMS = ("reassoc", "nsz")
# Not computed twice: more than reading it again from the nearest cache.
_COSTLY = ("exp", "sigmoid", "tanh", "erf")
_START = {"sum": 0.0, "mean": 0.0, "max": float("-inf"), "min": float("inf")}
# Positions of the first arguments; the addresses begin at HEAD.
_FINISHED, _TOKENS, _CHUNKS, HEAD = 1, 2, 3, 4


@dataclass(frozen=True)
class Shape:
    """What of its data a kernel is made for.

    Attributes:
        width: features of a token.
        half: whether x and its like are bfloat16; parameters and totals never are.
        period: after how many tokens a parameter of features begins anew.
        inputs: names in the order of the arguments, with their kinds.
    """

    width: int
    half: bool
    period: int
    inputs: tuple[tuple[str, Kind], ...]


def emit_module(program: Program, shape: Shape) -> ir.Module:
    """The module with the function `kernel`."""
    module = ir.Module()
    names = [*(name for name, _ in shape.inputs), *program.stores]
    go_over_tokens = TokenLoop(module, program, shape, [*names, *program.totals]).emit()
    kernel = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), "kernel")
    build = ir.IRBuilder(kernel.append_basic_block())

    def load_argument(index: int) -> ir.Value:
        return build.load(_element_of(build, kernel.args[0], int_constant(index), I64), typ=I64)

    tokens, chunks = load_argument(_TOKENS), load_argument(_CHUNKS)
    count = len(names) + (2 if program.totals else 0)
    addresses = [build.inttoptr(load_argument(HEAD + index), POINTER) for index in range(count)]
    take, work, done = (kernel.append_basic_block(name) for name in ("take", "work", "done"))
    build.branch(take)
    build.position_at_end(take)
    # monotonic: each chunk is given out once, and no memory has to be seen for that.
    chunk = build.atomic_rmw("add", kernel.args[0], int_constant(1), "monotonic")
    build.cbranch(build.icmp_signed("<", chunk, chunks), work, done)
    build.position_at_end(work)
    first, last = (
        build.sdiv(build.mul(build.add(chunk, int_constant(offset)), tokens), chunks)
        for offset in (0, 1)
    )
    if not program.totals:
        build.call(go_over_tokens, [*addresses, first, last])
    else:
        *tensors, totals, result = addresses
        sizes = [total_size(shape, name) for name in program.totals]
        row = _element_of(build, totals, build.mul(chunk, int_constant(sum(sizes))), F32)
        starts = [
            _element_of(build, row, int_constant(sum(sizes[:i])), F32) for i in range(len(sizes))
        ]
        build.call(_clear_function(module, sum(sizes)), [row])
        build.call(go_over_tokens, [*tensors, *starts, first, last])
        counter = _element_of(build, kernel.args[0], int_constant(_FINISHED), I64)
        # acq_rel: the thread that finishes last has to see the rows of all others.
        before = build.atomic_rmw("add", counter, int_constant(1), "acq_rel")
        with build.if_then(build.icmp_signed("==", build.add(before, int_constant(1)), chunks)):
            build.call(_add_up_rows(module, sum(sizes)), [totals, result, chunks])
    build.branch(take)
    build.position_at_end(done)
    build.ret_void()
    return module


def total_size(shape: Shape, name: str) -> int:
    """Numbers of a total."""
    per_feature = bool(dict(shape.inputs)[name] & Kind.FEATURE)
    return shape.width * shape.period if per_feature else 1


def _clear_function(module: ir.Module, size: int) -> ir.Function:
    function, build = _internal_function(module, "zero", [POINTER])
    with loop_over(build, int_constant(0), int_constant(size)) as index:
        build.store(float_constant(0.0), _element_of(build, function.args[0], index, F32))
    build.ret_void()
    return function


def _add_up_rows(module: ir.Module, size: int) -> ir.Function:
    """The function that adds up the rows of totals, (chunks, size) → (size)."""
    function, build = _internal_function(module, "add_up", [POINTER, POINTER, I64])
    totals, result, chunks = function.args
    totals.add_attribute("noalias")
    result.add_attribute("noalias")
    build.call(module.get_global("zero"), [result])
    with loop_over(build, int_constant(0), chunks) as chunk:
        row = _element_of(build, totals, build.mul(chunk, int_constant(size)), F32)
        with loop_over(build, int_constant(0), int_constant(size)) as index:
            sum_at = _element_of(build, result, index, F32)
            value = build.load(_element_of(build, row, index, F32), typ=F32)
            build.store(build.fadd(build.load(sum_at, typ=F32), value), sum_at)
    build.ret_void()
    return function


def _internal_function(
    module: ir.Module, name: str, takes: Sequence[ir.Type]
) -> tuple[ir.Function, ir.IRBuilder]:
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), takes), name)
    function.linkage = "internal"
    return function, ir.IRBuilder(function.append_basic_block())


def _element_of(build: ir.IRBuilder, start: ir.Value, index: ir.Value, kind: ir.Type) -> ir.Value:
    return build.gep(start, [index], source_etype=kind)


class TokenLoop:
    """The function that goes over a chunk's tokens.

    A mean is added up in double precision, and what single precision cannot hold of it is kept
    beside it: where a token is far from zero, what is left of it without its mean is exact.
    """

    def __init__(
        self, module: ir.Module, program: Program, shape: Shape, names: Sequence[str]
    ) -> None:
        self.module, self.program, self.shape, self.names = module, program, shape, names
        self.scalars: dict[Node, ir.Value] = {}
        self.rests: dict[Node, ir.Value] = {}  # of means
        self.vectors: dict[Node, ir.Value] = {}
        self.stored_features: dict[Node, ir.Value] = {}
        self.levels: dict[Node, int] = {}
        kinds = dict(shape.inputs)
        totals = program.totals.items()
        self.per_feature = {n: node for n, node in totals if kinds[n] & Kind.FEATURE}
        self.single = {n: node for n, node in totals if n not in self.per_feature}

    def emit(self) -> ir.Function:
        """Write the function into the module."""
        kind = ir.FunctionType(ir.VoidType(), [*[POINTER] * len(self.names), I64, I64])
        function = ir.Function(self.module, kind, "go_over_tokens")
        function.linkage = "internal"
        *pointers, first, last = function.args
        # Results are new tensors and totals rows of their own: no store changes an input.
        for pointer in pointers:
            pointer.add_attribute("noalias")
        input_names = [name for name, _ in self.shape.inputs]
        count = len(input_names)
        self.inputs = dict(zip(input_names, pointers[:count], strict=True))
        outs, stores = pointers[count:], self.program.stores
        self.stores = dict(zip(stores, outs, strict=False))
        self.totals = dict(zip(self.program.totals, outs[len(stores) :], strict=True))
        self.build = ir.IRBuilder(function.append_basic_block())
        self.sums = {name: self._new_variable(0.0) for name in self.single}
        self._emit_loops(first, last)
        return function

    def _emit_loops(self, first: ir.Value, last: ir.Value) -> None:
        build = self.build
        results = [*self.program.stores.values(), *self.program.totals.values()]
        reductions = list(self._find_reductions(results))
        self.accumulators = {
            node: self._new_variable(0.0, F64 if node.operation == "mean" else F32)
            for node in reductions
        }
        # A result is computed in the loop of its number, a sum added up in the one before its own.
        loops = max(
            [
                self.loop_number(node)
                for node in (*self.program.stores.values(), *self.per_feature.values())
            ]
            + [self.loop_number(node) - 1 for node in reductions]
        )
        with loop_over(build, first, last) as token:
            self.scalars.clear()
            # Where the token's features and its parameters begin.
            self.offset = build.mul(token, int_constant(self.shape.width))
            position = build.srem(token, int_constant(self.shape.period))
            self.feature_offset = build.mul(position, int_constant(self.shape.width))
            for number in range(loops + 1):
                reductions_of_loop = [
                    node for node in reductions if self.loop_number(node) == number + 1
                ]
                self._emit_feature_loop(reductions_of_loop, is_last=number == loops)
                for node in reductions_of_loop:
                    self.scalars[node] = self._read_reduction(node)
            for name, node in self.single.items():
                self._add_to_variable(self.sums[name], self._scalar_value(node))
        for name, variable in self.sums.items():
            build.store(build.load(variable, typ=F32), self.totals[name])
        build.ret_void()

    def _emit_feature_loop(self, reductions: Sequence[Node], *, is_last: bool) -> None:
        """One loop over the features: sums for later, and in the last loop all that is stored."""
        targets = [node.inputs[0] for node in reductions]
        if is_last:
            targets += [*self.program.stores.values(), *self.per_feature.values()]
        seen: set[Node] = set()
        for node in targets:
            self._compute_scalars(node, seen)
        for node in reductions:
            kind = F64 if node.operation == "mean" else F32
            self.build.store(ir.Constant(kind, _START[node.operation]), self.accumulators[node])
        with loop_over(self.build, int_constant(0), int_constant(self.shape.width)) as feature:
            self.feature = feature
            # A value of one loop does not exist in the next, and is computed there again.
            self.vectors.clear()
            for node in reductions:
                variable, value = self.accumulators[node], self._vector_value(node.inputs[0])
                if node.operation == "sum":
                    self._add_to_variable(variable, value)
                elif node.operation == "mean":
                    self._add_to_variable(variable, self.build.fpext(value, F64), F64)
                else:
                    before = self.build.load(variable, typ=F32)
                    # Not maxnum and minnum, which drop NaN where torch keeps it.
                    name = {"max": "maximum", "min": "minimum"}[node.operation]
                    self.build.store(call_intrinsic(self.build, name, before, value), variable)
            if is_last:
                self._store_results()

    def _read_reduction(self, node: Node) -> ir.Value:
        """What a loop has gathered of a token."""
        build = self.build
        if node.operation != "mean":
            return build.load(self.accumulators[node], typ=F32)
        total = build.load(self.accumulators[node], typ=F64)
        exact = build.fdiv(total, ir.Constant(F64, self.shape.width))
        mean = build.fptrunc(exact, F32)
        rest = build.fptrunc(build.fsub(exact, build.fpext(mean, F64)), F32)
        is_finite = build.fcmp_ordered("ord", rest, rest)  # an infinite mean leaves none
        self.rests[node] = build.select(is_finite, rest, float_constant(0.0))
        return mean

    def _store_results(self) -> None:
        for name, node in self.program.stores.items():
            at = self.build.add(self.offset, self.feature)
            self._write_feature(self.stores[name], at, self._vector_value(node))
        for name, node in self.per_feature.items():
            at = self.build.add(self.feature_offset, self.feature)
            total = _element_of(self.build, self.totals[name], at, F32)
            self._add_to_variable(total, self._vector_value(node))

    def _compute_scalars(self, node: Node, seen: set[Node]) -> None:
        """Compute before the loop what is the same for all features."""
        if node in seen:
            return
        seen.add(node)
        if not node.varies_along(Kind.FEATURE):
            self._scalar_value(node)
        elif node.operation not in OVER_FEATURES:
            for source in node.inputs:
                self._compute_scalars(source, seen)

    def _scalar_value(self, node: Node) -> ir.Value:
        if node not in self.scalars:
            if node.operation == "input":
                value = self.build.load(self.inputs[node.name], typ=F32)
            else:
                value = self._emit_operation(
                    node, [self._scalar_value(source) for source in node.inputs]
                )
            self.scalars[node] = value
        return self.scalars[node]

    def _vector_value(self, node: Node) -> ir.Value:
        if not node.varies_along(Kind.FEATURE):
            return self._scalar_value(node)
        if node not in self.vectors:
            if node.operation == "input":
                value = self._read_feature(node)
            elif node.operation == "index":
                value = self.build.sitofp(self.build.trunc(self.feature, I32), F32)
            elif node in self.stored_features:
                value = self.build.load(self._stored_element(self.stored_features[node]), typ=F32)
            else:
                value = self._emit_operation(
                    node, [self._vector_value(source) for source in node.inputs]
                )
                if node.operation in _COSTLY:
                    self._store_features(node, value)
            self.vectors[node] = value
        return self.vectors[node]

    def _store_features(self, node: Node, value: ir.Value) -> None:
        """Store it for a later loop; LLVM removes what no loop reads."""
        with self.build.goto_entry_block():
            features = self.build.alloca(F32, size=int_constant(self.shape.width))
        self.build.store(value, self._stored_element(features))
        self.stored_features[node] = features

    def _stored_element(self, features: ir.Value) -> ir.Value:
        return _element_of(self.build, features, self.feature, F32)

    def _emit_operation(self, node: Node, values: Sequence[ir.Value]) -> ir.Value:
        build = self.build
        match node.operation:
            case "number":
                return float_constant(node.number)
            case "add":
                return reduce(build.fadd, values)
            case "multiply":
                return reduce(build.fmul, values)
            case "centre":
                centred = build.fsub(*values)
                rest = self.rests.get(node.inputs[1])
                return centred if rest is None else build.fsub(centred, rest)
            case "where":
                return build.select(*values)
            # As in torch: NaN is unequal to everything, and all other comparisons are false.
            case "!=":
                return build.fcmp_unordered("!=", *values)
            case "<" | "<=" | ">" | ">=" | "==":
                return build.fcmp_ordered(node.operation, *values)
        return _UNARY[node.operation](build, *values)

    def _read_feature(self, node: Node) -> ir.Value:
        """A feature of an input."""
        build, pointer = self.build, self.inputs[node.name]
        if not node.varies_along(Kind.TOKEN):
            at = build.add(self.feature_offset, self.feature)
            return build.load(_element_of(build, pointer, at, F32), typ=F32)
        at = build.add(self.offset, self.feature)
        if not self.shape.half:
            return build.load(_element_of(build, pointer, at, F32), typ=F32)
        # A bfloat16 is the upper half of the same number in single precision.
        bits = build.load(_element_of(build, pointer, at, I16), typ=I16)
        return build.bitcast(build.shl(build.zext(bits, I32), ir.Constant(I32, 16)), F32)

    def _write_feature(self, pointer: ir.Value, at: ir.Value, value: ir.Value) -> None:
        build = self.build
        if not self.shape.half:
            build.store(value, _element_of(build, pointer, at, F32))
            return
        # To the nearest bfloat16, ties to the even one; NaN stays NaN.
        bits, sixteen = build.bitcast(value, I32), ir.Constant(I32, 16)
        odd = build.and_(build.lshr(bits, sixteen), ir.Constant(I32, 1))
        rounded = build.lshr(build.add(build.add(bits, ir.Constant(I32, 0x7FFF)), odd), sixteen)
        is_nan = build.fcmp_unordered("uno", value, value)
        half = build.trunc(build.select(is_nan, ir.Constant(I32, 0x7FC0), rounded), I16)
        build.store(half, _element_of(build, pointer, at, I16))

    def _new_variable(self, value: float, kind: ir.Type = F32) -> ir.Value:
        with self.build.goto_entry_block():
            variable = self.build.alloca(kind)
            self.build.store(ir.Constant(kind, value), variable)
        return variable

    def _add_to_variable(self, variable: ir.Value, value: ir.Value, kind: ir.Type = F32) -> None:
        before = self.build.load(variable, typ=kind)
        self.build.store(self.build.fadd(before, value, flags=_SUMS), variable)

    def loop_number(self, node: Node) -> int:
        """How many loops over the features come before it."""
        if node not in self.levels:
            levels = [self.loop_number(source) for source in node.inputs]
            self.levels[node] = max(levels, default=0) + (node.operation in OVER_FEATURES)
        return self.levels[node]

    def _find_reductions(self, results: Sequence[Node]) -> Iterator[Node]:
        seen: set[Node] = set()

        def visit_inputs_first(node: Node) -> Iterator[Node]:
            if node not in seen:
                seen.add(node)
                for source in node.inputs:
                    yield from visit_inputs_first(source)
                if node.operation in OVER_FEATURES:
                    yield node

        for node in results:
            yield from visit_inputs_first(node)


def _emit_sign(build: ir.IRBuilder, a: ir.Value) -> ir.Value:
    zero, one = float_constant(0.0), float_constant(1.0)
    positive = build.select(build.fcmp_ordered(">", a, zero), one, zero)
    negative = build.select(build.fcmp_ordered("<", a, zero), one, zero)
    return build.fsub(positive, negative)  # 0 of NaN, as torch has it


_UNARY: dict[str, Callable[[ir.IRBuilder, ir.Value], ir.Value]] = {
    # Exact: an estimate would make NaN of 1 / ∞.
    "reciprocal": lambda build, a: build.fdiv(float_constant(1.0), a),
    "sqrt": lambda build, a: call_intrinsic(build, "sqrt", a),
    "abs": lambda build, a: call_intrinsic(build, "fabs", a),
    "detach": lambda build, a: a,
    "sign": _emit_sign,
    "exp": functions.emit_exp,
    "sigmoid": functions.emit_sigmoid,
    "tanh": functions.emit_tanh,
    "erf": functions.emit_erf,
}


@contextmanager
def loop_over(build: ir.IRBuilder, first: ir.Value, last: ir.Value) -> Iterator[ir.Value]:
    """For the indices from first to last, as in range; its value."""
    before = build.block
    head, body, after = (build.append_basic_block(name) for name in ("head", "body", "after"))
    build.branch(head)
    build.position_at_end(head)
    index = build.phi(I64)
    index.add_incoming(first, before)
    build.cbranch(build.icmp_signed("<", index, last), body, after)
    build.position_at_end(body)
    yield index
    # build.block, not body: a loop inside this one has ended in a block of its own.
    index.add_incoming(build.add(index, int_constant(1), flags=("nsw",)), build.block)
    build.branch(head)
    build.position_at_end(after)


def int_constant(value: int) -> ir.Constant:
    """A whole number, as addresses and counts are."""
    return ir.Constant(I64, value)
