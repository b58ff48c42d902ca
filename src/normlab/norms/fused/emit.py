"""From a program to machine code's last step before LLVM: loops over tokens and their features.

For a token there are as few loops over its features as its sums allow: what is needed for a sum
that needs no other is added up in the first loop, and so on; the last one stores. What a later loop
needs again is computed again: the token lies in the processor's nearest cache, and x alone is read.

    kernel(arguments): counter, tokens, chunks, then the addresses of what is given, the stores,
                       and the totals, each int64

Chunks of tokens are taken from the counter by as many threads as call the kernel. Totals have a row
a chunk, so that no thread waits for another and no sum depends on which thread was quick.
"""

from llvmlite import ir

from normlab.config.formula import Kind
from normlab.norms.fused.build import Program
from normlab.norms.fused.functions import F32
from normlab.norms.fused.rows import I64, POINTER, Rows, Shape, integer

_HEAD = 3


def emit(program: Program, shape: Shape) -> ir.Module:
    """The module with the function `kernel`."""
    module = ir.Module()
    names = [*(name for name, _ in shape.given), *program.stores, *program.totals]
    rows = Rows(module, program, shape, names).function
    kind = ir.FunctionType(ir.VoidType(), [POINTER])
    kernel = ir.Function(module, kind, "kernel")
    build = ir.IRBuilder(kernel.append_basic_block())
    arguments = kernel.args[0]

    def argument(place: int) -> ir.Value:
        return build.load(build.gep(arguments, [integer(place)], source_etype=I64), typ=I64)

    tokens, chunks = argument(1), argument(2)
    addresses = [build.inttoptr(argument(_HEAD + place), POINTER) for place in range(len(names))]
    take, work, done = (kernel.append_basic_block(name) for name in ("take", "work", "done"))
    build.branch(take)
    build.position_at_end(take)
    chunk = build.atomic_rmw("add", arguments, integer(1), "monotonic")
    build.cbranch(build.icmp_signed("<", chunk, chunks), work, done)
    build.position_at_end(work)
    first, last = (
        build.sdiv(build.mul(build.add(chunk, integer(offset)), tokens), chunks)
        for offset in (0, 1)
    )
    for place, name in enumerate(program.totals, len(names) - len(program.totals)):
        size = total_size(shape, name)
        row = build.mul(chunk, integer(size))
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
