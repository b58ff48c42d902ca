"""Norms as compiled kernels on a CPU: a formula goes over its tokens once forward and once back.

`compile_formula` is all that the rest of the program uses. The kernels are compiled from a
formula's tree, at the first call, by LLVM in this process: no compiler is needed and nothing is
kept on disk. llvmlite is an extra (`pip install normlab[kernels]`); without it, and for whatever
kernels do not support, torch computes the norm.

program.py lowers a formula to graph.py and differentiates it, emit.py writes LLVM's instructions,
runtime.py compiles and launches them.
"""

import logging
from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from normlab.config.formula import FormulaSource, parse_formula
from normlab.kernels.program import UnsupportedError

if TYPE_CHECKING:
    from normlab.kernels.runtime import Kernels

TorchFunction = Callable[..., Tensor]
_TENSORS = (Tensor, nn.Parameter)


def compile_formula(
    formula: FormulaSource, x: Tensor, parameters: tuple[Tensor, ...]
) -> Callable[..., Tensor] | None:
    """A function of (torch_function, x, *parameters) that computes the formula by kernels, or None.

    None where torch has to compute it: off the CPU, in other dtypes than fp32 and bf16, while torch
    traces or transforms, for operations and shapes that kernels lack, or without llvmlite.
    `torch_function(x, *parameters)` computes the same with torch, for second derivatives.
    """
    # First, and before any cache: a compiler would go into what follows.
    if not _are_supported(x, parameters):
        return None
    kernels = _compile_kernels(formula, x.dtype)
    # A kernel uses the sizes it was compiled for; with others it would read past a tensor's end.
    if kernels is None or x.shape[-1:] != kernels.features:
        return None
    if kernels.parameter_shapes != [parameter.shape for parameter in parameters]:
        return None
    return partial(_apply_kernels, kernels)


def _apply_kernels(
    kernels: "Kernels", torch_function: TorchFunction, x: Tensor, *parameters: Tensor
) -> Tensor:
    if torch.is_grad_enabled():
        # Here, not in the function: what it saves has to be its input, for second derivatives.
        x = x.contiguous()
        return _KernelFunction.apply(kernels, torch_function, x, *parameters)  # type: ignore[no-any-return, no-untyped-call]
    return kernels.forward(x.contiguous(), parameters)


def _are_supported(x: Tensor, parameters: tuple[Tensor, ...]) -> bool:
    """Whether there are kernels for this; they were faster on all shapes tried (docs/log.md)."""
    return (
        # A compiler fuses torch's own operations, and sees through nothing else; a tracer neither.
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and type(x) in _TENSORS
        and all(
            type(p) in _TENSORS and p.dtype is torch.float32 and p.device.type == "cpu"
            for p in parameters
        )
        and x.numel() > 0
        # Neither vmap and its like nor forward-mode derivatives can see a kernel. torch has no
        # public question for the first; for the second there is unpack_dual(x).tangent, which
        # takes as long as a small kernel.
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


# Features of a token: a row of them lies on the thread's stack for each costly operation.
_WIDEST = 2**16


@lru_cache(maxsize=256)
def _compile_kernels(formula: FormulaSource, dtype: torch.dtype) -> "Kernels | None":
    expression, width, parameters, constants, period = formula
    if width > _WIDEST:
        return None
    learned = {name: {"init": 0, "per": per} for name, per in parameters}
    parsed = parse_formula(width, expression, learned, dict(constants))
    kinds = {name: parameter.kind for name, parameter in parsed.parameters.items()}
    try:
        # LLVM is not on all machines.
        from normlab.kernels.runtime import Kernels

        return Kernels(parsed.tree, kinds, width, period, dtype)
    except UnsupportedError:
        return None
    except ModuleNotFoundError:
        _warn_slower("llvmlite is not installed; pip install 'normlab[kernels]'")
    except Exception as error:  # of LLVM, or of the way to it: torch computes the same
        _warn_slower(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    return None


@cache
def _warn_slower(reason: str) -> None:
    logging.getLogger("normlab").warning(
        "norms are computed by torch, a little slower: no kernels could be compiled (%s)", reason
    )


class _KernelFunction(torch.autograd.Function):
    """What the kernels compute, for autograd; a second derivative is torch's."""

    @staticmethod
    def forward(
        ctx: Any, kernels: "Kernels", torch_function: TorchFunction, x: Tensor, *parameters: Tensor
    ) -> Tensor:
        ctx.kernels, ctx.torch_function = kernels, torch_function
        ctx.save_for_backward(x, *parameters)
        return kernels.forward(x, parameters)

    @staticmethod
    def backward(ctx: Any, *by_y: Tensor) -> Any:
        x, *parameters = ctx.saved_tensors
        # The gradient itself will be differentiated, or there are many of them at once
        # (is_grads_batched, which torch implements by a tensor that has no public type).
        if torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(by_y[0]):
            sources = [tensor for tensor in (x, *parameters) if tensor.requires_grad]
            again = torch.is_grad_enabled()
            with torch.enable_grad():
                y = ctx.torch_function(x, *parameters)
            gradients = iter(torch.autograd.grad(y, sources, by_y, create_graph=again))
            by_x, *rest = [next(gradients) if t.requires_grad else None for t in (x, *parameters)]
        else:
            by_x, rest = ctx.kernels.backward(x, tuple(parameters), by_y[0])
        return None, None, by_x, *rest
