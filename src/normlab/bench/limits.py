"""What the machine itself can do: the matrix products of a step alone, and a copy."""

import time
from typing import Any

import torch
from torch import Tensor

from normlab.bench.shapes import Product, Shape
from normlab.bench.worker import Turns, peak_mib

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}
# Larger than any cache.
COPIED_MIB = 256


def products(turns: Turns, shape: dict[str, Any], precision: str) -> None:
    """All matrix products of a training step, forward and backward, and nothing else.

    Operands are there in the right dtype and layout, results go where memory is ready.
    """
    size = Shape(**shape)
    work = [_operands(product, DTYPES[precision]) for product in size.products()]
    flops = sum(product.flops for product in size.products())
    for turn in turns:
        began = time.perf_counter()
        for _ in range(turn["steps"]):
            for times, triples in work:
                for _ in range(times):
                    for left, right, out in triples:
                        torch.matmul(left, right, out=out)
        seconds = (time.perf_counter() - began) / turn["steps"]
        turns.report(ms=1000 * seconds, rss_mib=peak_mib(), gflops=flops / seconds / 1e9)


def _operands(product: Product, dtype: torch.dtype) -> tuple[int, list[tuple[Tensor, ...]]]:
    """Operands and results of y = x·w, dx = dy·wᵀ, dw = xᵀ·dy."""
    lead = (product.group,) if product.group > 1 else ()
    x = torch.randn(*lead, product.rows, product.inner).to(dtype)
    w = torch.randn(*lead, product.inner, product.columns).to(dtype)
    dy = torch.randn(*lead, product.rows, product.columns).to(dtype)
    forward = (x, w, torch.empty_like(dy))
    backward = [(dy, w.mT, torch.empty_like(x)), (x.mT, dy, torch.empty_like(w))]
    return product.times, [forward, *backward]


def copy(turns: Turns) -> None:
    """Copies of a large tensor, in GB read and written a second."""
    source = torch.zeros(COPIED_MIB * 2**18)
    target = torch.ones_like(source)
    for turn in turns:
        began = time.perf_counter()
        for _ in range(turn["steps"]):
            target.copy_(source)
        seconds = (time.perf_counter() - began) / turn["steps"]
        turns.report(gb_per_second=2 * source.nbytes / seconds / 1e9)
