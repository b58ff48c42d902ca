"""Norms as fused kernels on a CPU: a formula goes over its tokens once forward and once back.

The kernels are made from a formula's tree, at the first call, by LLVM in this process: no compiler
is needed and nothing is kept on disk. What they are not made for, torch computes.
"""

import logging
from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from normlab.config.formula import Kind, Reading, read
from normlab.config.tree import Tree
from normlab.norms.fused.build import UnsupportedError

if TYPE_CHECKING:
    from normlab.norms.fused.kernels import Kernels

Torch = Callable[..., Tensor]
_TENSORS = (Tensor, nn.Parameter)


class Fused:
    """A formula over x (…, width) and parameters, computed by kernels where that is faster."""

    def __init__(self, reading: Reading, width: int, period: int = 1) -> None:
        kinds = {name: _kind(parameter.per) for name, parameter in reading.parameters.items()}
        self.key = (reading.tree, tuple(kinds.items()), width, period)
        self._features = (width * period,)
        self._shapes = [self._features if kind & Kind.FEATURE else () for kind in kinds.values()]
        self._kernels: dict[torch.dtype, Kernels | None] = {}

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

    def _made(self, dtype: torch.dtype) -> "Kernels | None":
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


@lru_cache(maxsize=256)
def _kernels(
    tree: Tree, kinds: tuple[tuple[str, Kind], ...], width: int, period: int, dtype: torch.dtype
) -> "Kernels | None":
    try:
        from normlab.norms.fused.kernels import Kernels  # LLVM is not on every machine

        return Kernels(tree, dict(kinds), width, period, dtype)
    except UnsupportedError:
        return None
    except Exception as error:  # of LLVM, or of the way to it: torch computes the same
        _tell_slower(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        return None


@cache
def _tell_slower(reason: str) -> None:
    logging.getLogger("normlab").warning(
        "norms are computed by torch, a little slower: no kernels could be made for them (%s)",
        reason,
    )


class _FusedNorm(torch.autograd.Function):
    """What the kernels compute, for autograd; a second derivative is torch's."""

    @staticmethod
    def forward(
        ctx: Any, kernels: "Kernels", otherwise: Torch, x: Tensor, *parameters: Tensor
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
