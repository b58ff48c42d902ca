"""The worker of `norms`: every norm of conf/norm beside torch's functions and a copy, in turn."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.bench.worker import Turns
from normlab.norms import norm_factory
from normlab.norms.timing import Call, build_gradient_call, calls_per_block, median_milliseconds

COPY, LAYER_NORM, RMS_NORM, MODULE = "copy", "F.layer_norm", "F.rms_norm", "nn.LayerNorm"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def measure(turns: Turns, norms: Mapping[str, Mapping[str, Any]]) -> None:
    """A turn is one shape, {"tokens", "width", "dtype", "first"}; `first` only warms up.

    It reports the milliseconds of the median call by name: of forward and backward, or of a copy.
    """
    built: dict[tuple[Any, ...], dict[str, tuple[Call, int]]] = {}
    for turn in turns:
        key = turn["tokens"], turn["width"], turn["dtype"]
        if turn["first"]:
            built = {
                key: {name: (call, calls_per_block(call)) for name, call in _calls_of(norms, *key)}
            }
        turns.report(
            **{name: median_milliseconds(call, calls) for name, (call, calls) in built[key].items()}
        )


def _calls_of(
    norms: Mapping[str, Mapping[str, Any]], tokens: int, width: int, dtype: str
) -> list[tuple[str, Call]]:
    torch.manual_seed(0)
    x = torch.randn(tokens, width, dtype=DTYPES[dtype], requires_grad=True)
    above = torch.randn(tokens, width, dtype=DTYPES[dtype])
    gain, bias = (torch.ones(width, requires_grad=True) for _ in range(2))
    gain_here = gain.detach().to(DTYPES[dtype]).requires_grad_()
    copied = torch.empty_like(above)
    functions: dict[str, tuple[Callable[[Tensor], Tensor], list[Tensor]]] = {
        # torch's function takes a gain of fp32 beside x in bf16, its RMSNorm does not.
        LAYER_NORM: (lambda x: F.layer_norm(x, (width,), gain, bias), [gain, bias]),
        RMS_NORM: (lambda x: F.rms_norm(x, (width,), gain_here), [gain_here]),
    }
    modules: dict[str, nn.Module] = {MODULE: nn.LayerNorm(width, dtype=DTYPES[dtype])}
    modules |= {name: norm_factory(config)(width) for name, config in norms.items()}
    functions |= {name: (module, list(module.parameters())) for name, module in modules.items()}
    calls: list[tuple[str, Call]] = [(COPY, lambda: copied.copy_(above))]
    for name, (function, parameters) in functions.items():
        calls.append((name, build_gradient_call(function, [x, *parameters], x, above)))
    return calls
