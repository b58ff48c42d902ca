"""Both kernels of a formula, forward and back, compiled by LLVM and run on torch's own threads.

A second pool of threads would wait, spinning, for the first: kernels are therefore handed to the
OpenMP team that torch computes with.
"""

import ctypes
import logging
import os
import re
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import cast

import llvmlite.binding as llvm
import psutil
import torch
from llvmlite import ir
from torch import Tensor

from normlab.config.expressions import Tree
from normlab.config.formula import Kind
from normlab.kernels.emit import HEAD, Shape, emit_module, total_size
from normlab.kernels.program import GRADIENT, backward_program, forward_program

# Tokens of a chunk: few enough for threads to share the work evenly, enough for the totals' rows
# to be small beside what is read; the number of chunks depends on the tokens alone, so that sums
# over the tokens do not depend on the number of threads.
_CHUNK, _MAX_CHUNKS = 32, 64
# Below this many numbers one thread is done before a second has woken.
_MIN_PARALLEL = 2**14

Launch = Callable[..., None]
_OPENMP = re.compile(r"lib(?:gomp|omp|iomp5)\b")
_TORCH = str(Path(torch.__file__).parent)


class Kernels:
    """Both kernels of a formula, for one width and dtype."""

    def __init__(
        self, tree: Tree, kinds: Mapping[str, Kind], width: int, period: int, dtype: torch.dtype
    ) -> None:
        self.width, self.period = width, period
        self.features = torch.Size([width * period])
        self.parameter_shapes = [
            self.features if kind & Kind.FEATURE else torch.Size() for kind in kinds.values()
        ]
        half = dtype is torch.bfloat16
        inputs = {"x": Kind.FULL, **kinds}
        self.shape = Shape(width, half, period, tuple(inputs.items()))
        self.back_shape = Shape(width, half, period, (*inputs.items(), (GRADIENT, Kind.FULL)))
        self.lengths = [total_size(self.back_shape, name) for name in kinds]
        self._forward = Kernel(emit_module(forward_program(tree, inputs, width), self.shape))
        self._tree = tree
        # Rows for a call's totals, taken and put back: no two threads have the same.
        self._spare: list[Tensor] = []

    # Not before it is called: compiling takes tens of milliseconds, and sampling needs no gradient.
    @cached_property
    def _backward(self) -> "Kernel":
        kinds = dict(self.shape.inputs)
        return Kernel(emit_module(backward_program(self._tree, kinds, self.width), self.back_shape))

    def forward(self, x: Tensor, parameters: tuple[Tensor, ...]) -> Tensor:
        """The formula of x (…, width), contiguous."""
        y = torch.empty_like(x)
        self._forward(*self._count_chunks(x), x, *(p.contiguous() for p in parameters), y)
        return y

    def backward(
        self, x: Tensor, parameters: tuple[Tensor, ...], by_y: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The gradients by x and by each parameter."""
        by_x = torch.empty_like(x)
        tokens, chunks, numbers = self._count_chunks(x)
        tensors = (x, *(p.contiguous() for p in parameters), by_y.contiguous())
        if not parameters:
            self._backward(tokens, chunks, numbers, *tensors, by_x)
            return by_x, []
        size = sum(self.lengths)
        # Every call into torch costs microseconds here, as much as a small kernel.
        try:
            rows = self._spare.pop()
        except IndexError:
            rows = torch.empty((_MAX_CHUNKS, size), dtype=torch.float32)
        single = len(parameters) == 1
        first = parameters[0]
        result = torch.empty_like(first) if single else first.new_empty(size)
        self._backward(tokens, chunks, numbers, *tensors, by_x, rows, result)
        self._spare.append(rows)
        if single:
            return by_x, [result]
        parts = torch.split(result, self.lengths)
        return by_x, [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]

    def _count_chunks(self, x: Tensor) -> tuple[int, int, int]:
        tokens = x.numel() // self.width
        return tokens, max(1, min(_MAX_CHUNKS, tokens // _CHUNK)), x.numel()


class Kernel:
    """A compiled module's `kernel`."""

    def __init__(self, module: ir.Module) -> None:
        # Kept, for the machine code is freed with its engine.
        self._engine = _compile_module(str(module))
        self._address = self._engine.get_function_address("kernel")

    def __call__(self, tokens: int, chunks: int, numbers: int, *tensors: torch.Tensor) -> None:
        """Run it over contiguous tensors; the stores and totals are written."""
        addresses = [tensor.data_ptr() for tensor in tensors]
        arguments = (ctypes.c_int64 * (HEAD + len(addresses)))(0, 0, tokens, chunks, *addresses)
        threads = 1 if numbers < _MIN_PARALLEL else min(torch.get_num_threads(), chunks)
        _find_launch()(self._address, ctypes.addressof(arguments), threads, 0)


def _compile_module(module: str) -> llvm.ExecutionEngine:
    """The optimized module, ready to be called on this processor."""
    machine = _target_machine()
    parsed = llvm.parse_assembly(module)
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    return engine


def _target_machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        jit=True,
    )


@cache
def _find_launch() -> Launch:
    """`GOMP_parallel` of the OpenMP runtime that torch has loaded, or a call in this thread."""
    for path in _openmp_libraries():
        try:
            # Only what is loaded already: a second runtime would be a second pool.
            library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD)
        except OSError:  # a file that was replaced since
            continue
        parallel = getattr(library, "GOMP_parallel", None)
        if parallel is not None:
            parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            parallel.restype = None
            return cast(Launch, parallel)
    if psutil.LINUX:
        logging.getLogger("normlab").warning(
            "norms are computed on one thread, a little slower: torch's OpenMP was not found"
        )
    return _call_in_this_thread


def _openmp_libraries() -> list[str]:
    """The OpenMP runtimes that this process has loaded, torch's first.

    It is empty on other systems than Linux.

    Python names them from 3.14 on only (ctypes.util.dllist), torch never. Another runtime by the
    same name may come from any package, so that asking the linker for libgomp would not do.
    """
    if not psutil.LINUX:
        return []
    try:
        paths = [mapped.path for mapped in psutil.Process().memory_maps()]
    except (OSError, psutil.Error):  # /proc is not mounted, or not for us
        return []
    loaded = [path for path in paths if _OPENMP.match(Path(path).name)]
    # Other packages bring runtimes of their own; torch's lies with torch.
    return sorted(loaded, key=lambda path: (_TORCH not in path, path))


def _call_in_this_thread(address: int, arguments: int, threads: int, flags: int) -> None:
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(arguments)
