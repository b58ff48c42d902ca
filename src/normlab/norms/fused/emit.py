"""From a program to machine code's last step before LLVM: loops over tokens and their features.

For a token there are as few loops over its features as its sums allow: what is needed for a sum
that needs no other is added up in the first loop, and so on; the last one stores. What a later loop
needs again is computed again: the token lies in the processor's nearest cache, and x alone is read.

    kernel(arguments): counter, finished, tokens, chunks, then the addresses of what is given and of
                       the stores, and where there are totals of their rows and their sum; int64

Chunks of tokens are taken from the counter by as many threads as call the kernel. Each adds to a
row of totals of its own, and whoever finishes last adds up the rows, in their order: no thread
waits for another, and no sum depends on which was quick.
"""

from collections.abc import Sequence

from llvmlite import ir

from normlab.config.formula import Kind
from normlab.norms.fused.build import Program
from normlab.norms.fused.functions import F32, constant
from normlab.norms.fused.loops import I64, POINTER, integer, loop
from normlab.norms.fused.rows import Rows, Shape

_FINISHED, _TOKENS, _CHUNKS, HEAD = 1, 2, 3, 4


def emit(program: Program, shape: Shape) -> ir.Module:
    """The module with the function `kernel`."""
    module = ir.Module()
    names = [*(name for name, _ in shape.given), *program.stores]
    rows = Rows(module, program, shape, [*names, *program.totals]).function
    kernel = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), "kernel")
    build = ir.IRBuilder(kernel.append_basic_block())

    def argument(place: int) -> ir.Value:
        return build.load(_at(build, kernel.args[0], integer(place), I64), typ=I64)

    tokens, chunks = argument(_TOKENS), argument(_CHUNKS)
    count = len(names) + (2 if program.totals else 0)
    addresses = [build.inttoptr(argument(HEAD + place), POINTER) for place in range(count)]
    take, work, done = (kernel.append_basic_block(name) for name in ("take", "work", "done"))
    build.branch(take)
    build.position_at_end(take)
    chunk = build.atomic_rmw("add", kernel.args[0], integer(1), "monotonic")
    build.cbranch(build.icmp_signed("<", chunk, chunks), work, done)
    build.position_at_end(work)
    first, last = (
        build.sdiv(build.mul(build.add(chunk, integer(offset)), tokens), chunks)
        for offset in (0, 1)
    )
    if not program.totals:
        build.call(rows, [*addresses, first, last])
    else:
        *others, totals, result = addresses
        sizes = [total_size(shape, name) for name in program.totals]
        own = _at(build, totals, build.mul(chunk, integer(sum(sizes))), F32)
        starts = [_at(build, own, integer(sum(sizes[:i])), F32) for i in range(len(sizes))]
        build.call(_zero(module, sum(sizes)), [own])
        build.call(rows, [*others, *starts, first, last])
        counter = _at(build, kernel.args[0], integer(_FINISHED), I64)
        before = build.atomic_rmw("add", counter, integer(1), "acq_rel")
        with build.if_then(build.icmp_signed("==", build.add(before, integer(1)), chunks)):
            build.call(_added_up(module, sum(sizes)), [totals, result, chunks])
    build.branch(take)
    build.position_at_end(done)
    build.ret_void()
    return module


def total_size(shape: Shape, name: str) -> int:
    """Numbers of a total."""
    per_feature = bool(dict(shape.given)[name] & Kind.FEATURE)
    return shape.width * shape.period if per_feature else 1


def _zero(module: ir.Module, size: int) -> ir.Function:
    function, build = _internal(module, "zero", [POINTER])
    with loop(build, integer(0), integer(size)) as place:
        build.store(constant(0.0), _at(build, function.args[0], place, F32))
    build.ret_void()
    return function


def _added_up(module: ir.Module, size: int) -> ir.Function:
    """The function that adds up the rows of totals, (chunks, size) → (size)."""
    function, build = _internal(module, "add_up", [POINTER, POINTER, I64])
    totals, result, chunks = function.args
    totals.add_attribute("noalias")
    result.add_attribute("noalias")
    build.call(module.get_global("zero"), [result])
    with loop(build, integer(0), chunks) as chunk:
        row = _at(build, totals, build.mul(chunk, integer(size)), F32)
        with loop(build, integer(0), integer(size)) as place:
            sum_at = _at(build, result, place, F32)
            value = build.load(_at(build, row, place, F32), typ=F32)
            build.store(build.fadd(build.load(sum_at, typ=F32), value), sum_at)
    build.ret_void()
    return function


def _internal(
    module: ir.Module, name: str, takes: Sequence[ir.Type]
) -> tuple[ir.Function, ir.IRBuilder]:
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), takes), name)
    function.linkage = "internal"
    return function, ir.IRBuilder(function.append_basic_block())


def _at(build: ir.IRBuilder, start: ir.Value, place: ir.Value, kind: ir.Type) -> ir.Value:
    return build.gep(start, [place], source_etype=kind)
