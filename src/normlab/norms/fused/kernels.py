"""Both kernels of a formula, forward and back, and the rows that totals over tokens are kept in."""

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from normlab.config.formula import Kind
from normlab.config.tree import Tree
from normlab.norms.fused.build import GRADIENT, backward_program, forward_program
from normlab.norms.fused.emit import emit, total_size
from normlab.norms.fused.rows import Shape
from normlab.norms.fused.team import Kernel

# Tokens of a chunk: few enough for threads to share the work evenly, enough for the totals' rows
# to be small beside what is read; the number of chunks depends on the tokens alone, so that sums
# over the tokens do not depend on the number of threads.
_CHUNK, _MOST_CHUNKS = 32, 64


class Kernels:
    """Both kernels of a formula, for one width and dtype."""

    def __init__(
        self, tree: Tree, kinds: Mapping[str, Kind], width: int, period: int, dtype: torch.dtype
    ) -> None:
        self.width, self.period = width, period
        half = dtype is torch.bfloat16
        every = {"x": Kind.FULL, **kinds}
        self.shape = Shape(width, half, period, tuple(every.items()))
        self.back_shape = Shape(width, half, period, (*every.items(), (GRADIENT, Kind.FULL)))
        self.lengths = [total_size(self.back_shape, name) for name in kinds]
        self._forward = Kernel(emit(forward_program(tree, every, width), self.shape))
        self._tree = tree
        # Rows for a call's totals, taken and put back: no two threads have the same.
        self._spare: list[Tensor] = []

    @cached_property
    def _backward(self) -> Kernel:
        kinds = dict(self.shape.given)
        return Kernel(emit(backward_program(self._tree, kinds, self.width), self.back_shape))

    def forward(self, x: Tensor, parameters: tuple[Tensor, ...]) -> Tensor:
        """The formula of x (…, width), contiguous."""
        y = torch.empty_like(x)
        self._forward(*self._sizes(x), x, *_whole(parameters), y)
        return y

    def backward(
        self, x: Tensor, parameters: tuple[Tensor, ...], by_y: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The gradients by x and by each parameter."""
        by_x = torch.empty_like(x)
        tokens, chunks, numbers = self._sizes(x)
        given = (x, *_whole(parameters), by_y.contiguous())
        if not parameters:
            self._backward(tokens, chunks, numbers, *given, by_x)
            return by_x, []
        size = sum(self.lengths)
        # Every call into torch costs microseconds here, as much as a small kernel.
        try:
            rows = self._spare.pop()
        except IndexError:
            rows = torch.empty((_MOST_CHUNKS, size), dtype=torch.float32)
        single = len(parameters) == 1
        first = parameters[0]
        result = torch.empty_like(first) if single else first.new_empty(size)
        self._backward(tokens, chunks, numbers, *given, by_x, rows, result)
        self._spare.append(rows)
        if single:
            return by_x, [result]
        parts = torch.split(result, self.lengths)
        return by_x, [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]

    def _sizes(self, x: Tensor) -> tuple[int, int, int]:
        tokens = x.numel() // self.width
        return tokens, max(1, min(_MOST_CHUNKS, tokens // _CHUNK)), x.numel()


def _whole(parameters: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(parameter.contiguous() for parameter in parameters)
