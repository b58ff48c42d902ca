"""Norms as fused kernels on a CPU: a formula goes over its tokens once forward and once back.

The kernels are made from a formula's tree, at the first call, by LLVM in this process: no compiler
is needed and nothing is kept on disk. What they are not made for, torch computes.
"""

from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from normlab.config.formula import Kind, Reading, read
from normlab.config.tree import Tree
from normlab.norms.fused.build import GRADIENT, UnsupportedError, backward_program, forward_program
from normlab.norms.fused.emit import emit, total_size
from normlab.norms.fused.rows import Shape
from normlab.norms.fused.team import Kernel

Torch = Callable[..., Tensor]
_TENSORS = (Tensor, nn.Parameter)
# Tokens of a chunk: few enough for threads to share the work evenly, enough for the totals' rows
# to be small beside what is read; the number of chunks depends on the tokens alone, so that sums
# over the tokens do not depend on the number of threads.
_CHUNK, _MOST_CHUNKS = 32, 64


class Fused:
    """A formula over x (…, width) and parameters, computed by kernels where that is faster."""

    def __init__(self, reading: Reading, width: int, period: int = 1) -> None:
        kinds = {name: _kind(parameter.per) for name, parameter in reading.parameters.items()}
        self.key = (reading.tree, tuple(kinds.items()), width, period)
        self._features = (width * period,)
        self._shapes = [self._features if kind & Kind.FEATURE else () for kind in kinds.values()]
        self._kernels: dict[torch.dtype, _Kernels | None] = {}

    def __call__(self, otherwise: Torch, x: Tensor, *parameters: Tensor) -> Tensor:
        """The formula of x; what `otherwise` gives where kernels do not serve."""
        if not _serves(x, parameters):
            return otherwise(x, *parameters)
        return self.serve(otherwise, x, *parameters)

    def serve(self, otherwise: Torch, x: Tensor, *parameters: Tensor) -> Tensor:
        """The same for what kernels serve, but for its shapes and its dtype."""
        # A kernel goes by the sizes that it was made for, wherever that leads.
        fits = x.shape[-1:] == self._features and self._shapes == [p.shape for p in parameters]
        if not fits or (kernels := self._made(x.dtype)) is None:
            return otherwise(x, *parameters)
        if torch.is_grad_enabled():
            return _FusedNorm.apply(kernels, otherwise, x, *parameters)  # type: ignore[no-any-return, no-untyped-call]
        return kernels.forward(x.contiguous(), parameters)

    def _made(self, dtype: torch.dtype) -> "_Kernels | None":
        if dtype not in self._kernels:
            self._kernels[dtype] = _kernels(*self.key, dtype)
        return self._kernels[dtype]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kernels": {}}  # machine code stays where it was made


def formula(width: int, expression: str, period: int = 1, **per: Any) -> Fused:
    """A formula with its names: a parameter is `feature` or `scalar`, a constant its number.

    `period` is how many tokens share a parameter of features, one after another.
    """
    learned = {
        name: {"init": 0, "per": kind} for name, kind in per.items() if isinstance(kind, str)
    }
    numbers = {name: value for name, value in per.items() if not isinstance(value, str)}
    return Fused(read(width, expression, learned, numbers), width, period)


def compute(
    make: Callable[..., Fused],
    settings: tuple[Any, ...],
    otherwise: Torch,
    x: Tensor,
    *parameters: Tensor,
) -> Tensor:
    """The formula that `make` gives for these settings, of x; else what `otherwise` gives.

    A norm's settings are read at every call, as torch's own norms read them; `make` has a cache.
    """
    # First: a compiler would go into `make`.
    if not _serves(x, parameters):
        return otherwise(x, *parameters)
    return make(*settings).serve(otherwise, x, *parameters)


def _kind(per: str) -> Kind:
    return Kind.FEATURE if per == "feature" else Kind.NUMBER


def _serves(x: Tensor, parameters: tuple[Tensor, ...]) -> bool:
    """Whether kernels are made for this; they were faster on every shape tried (docs/log.md)."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and type(x) in _TENSORS
        and all(
            type(p) in _TENSORS and p.dtype is torch.float32 and p.device.type == "cpu"
            for p in parameters
        )
        and x.numel() > 0
        # A compiler fuses torch's own operations, and sees through nothing else.
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        # Nor does a tracer; and a tangent (forward-mode derivatives) would be lost.
        and not torch._C._is_tracing()
        and forward_ad._current_level < 0
    )


class _Kernels:
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


@lru_cache(maxsize=256)
def _kernels(
    tree: Tree, kinds: tuple[tuple[str, Kind], ...], width: int, period: int, dtype: torch.dtype
) -> _Kernels | None:
    try:
        return _Kernels(tree, dict(kinds), width, period, dtype)
    except UnsupportedError:
        return None


def _whole(parameters: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(parameter.contiguous() for parameter in parameters)


class _FusedNorm(torch.autograd.Function):
    """What the kernels compute, for autograd; a second derivative is torch's."""

    @staticmethod
    def forward(
        ctx: Any, kernels: _Kernels, otherwise: Torch, x: Tensor, *parameters: Tensor
    ) -> Tensor:
        x = x.contiguous()
        ctx.kernels, ctx.otherwise = kernels, otherwise
        ctx.save_for_backward(x, *parameters)
        return kernels.forward(x, parameters)

    @staticmethod
    def backward(ctx: Any, *by_y: Tensor) -> Any:
        x, *parameters = ctx.saved_tensors
        # The gradient itself will be differentiated, or there are many of them at once.
        if torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(by_y[0]):
            given = [tensor for tensor in (x, *parameters) if tensor.requires_grad]
            again = torch.is_grad_enabled()
            with torch.enable_grad():
                y = ctx.otherwise(x, *parameters)
            found = iter(torch.autograd.grad(y, given, by_y, create_graph=again))
            by_x, *rest = [next(found) if t.requires_grad else None for t in (x, *parameters)]
        else:
            by_x, rest = ctx.kernels.backward(x, tuple(parameters), by_y[0])
        return None, None, by_x, *rest
