"""Loops and whole numbers in LLVM's instructions."""

from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

I64, POINTER = ir.IntType(64), ir.PointerType()


@contextmanager
def loop(build: ir.IRBuilder, first: ir.Value, last: ir.Value) -> Iterator[ir.Value]:
    """For every index from first to last, as in range; its value."""
    before = build.block
    head, body, after = (build.append_basic_block(name) for name in ("head", "body", "after"))
    build.branch(head)
    build.position_at_end(head)
    index = build.phi(I64)
    index.add_incoming(first, before)
    build.cbranch(build.icmp_signed("<", index, last), body, after)
    build.position_at_end(body)
    yield index
    index.add_incoming(build.add(index, integer(1), flags=("nsw",)), build.block)
    build.branch(head)
    build.position_at_end(after)


def integer(value: int) -> ir.Constant:
    """A whole number, as addresses and counts are."""
    return ir.Constant(I64, value)
