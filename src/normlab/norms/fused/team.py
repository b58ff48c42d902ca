"""Machine code that runs on torch's own threads.

A second pool of threads would wait, spinning, for the first: kernels are therefore handed to the
OpenMP team that torch computes with.
"""

import ctypes
import logging
import os
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import cast

import llvmlite.binding as llvm
import torch
from llvmlite import ir

from normlab.norms.fused.emit import HEAD

# Below this many numbers one thread is done before a second has woken.
_ALONE = 2**14

Launch = Callable[..., None]
_OPENMP = re.compile(r"lib(?:gomp|omp|iomp5)\b")
_TORCH = str(Path(torch.__file__).parent)


class Kernel:
    """A compiled module's `kernel`."""

    def __init__(self, module: ir.Module) -> None:
        self._engine = _compiled(str(module))
        self._address = self._engine.get_function_address("kernel")

    def __call__(self, tokens: int, chunks: int, numbers: int, *tensors: torch.Tensor) -> None:
        """Run it over contiguous tensors; the stores and totals are written."""
        addresses = [tensor.data_ptr() for tensor in tensors]
        arguments = (ctypes.c_int64 * (HEAD + len(addresses)))(0, 0, tokens, chunks, *addresses)
        threads = 1 if numbers < _ALONE else min(torch.get_num_threads(), chunks)
        _launch()(self._address, ctypes.addressof(arguments), threads, 0)


def _compiled(module: str) -> llvm.ExecutionEngine:
    """The optimised module, ready to be called on this processor."""
    machine = _machine()
    parsed = llvm.parse_assembly(module)
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    return engine


def _machine() -> llvm.TargetMachine:
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
def _launch() -> Launch:
    """`GOMP_parallel` of the OpenMP runtime that torch has loaded, or a call in this thread."""
    for path in _openmp():
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
    if sys.platform == "linux":
        logging.getLogger("normlab").warning(
            "norms are computed on one thread, a little slower: torch's OpenMP was not found"
        )
    return _alone


def _openmp() -> list[str]:
    try:
        lines = Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    # Address, rights, offset, device and inode stand before the path, which may hold spaces.
    paths = {fields[5] for line in lines if len(fields := line.split(maxsplit=5)) == 6}
    loaded = [path for path in paths if _OPENMP.match(Path(path).name)]
    # Other packages bring runtimes of their own; torch's stands with torch.
    return sorted(loaded, key=lambda path: (_TORCH not in path, path))


def _alone(address: int, arguments: int, threads: int, flags: int) -> None:
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(arguments)
