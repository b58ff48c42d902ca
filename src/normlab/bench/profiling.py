"""What runs in the workers of `profile`: the bare loop under torch's profiler."""

import re
import time
from typing import Any

from torch.profiler import ProfilerActivity, profile

from normlab.bench.loops import trained_steps
from normlab.bench.worker import Turns

# The first that an operator's name matches; the others are small calls.
GROUPS = {
    "products": r"aten::(mm|addmm|bmm|baddbmm|_scaled_dot_product\w*|mkldnn\w*)$",
    "norms": r"FusedNorm|layer_norm|rms_norm",
    "GELU": r"gelu",
    "softmax": r"softmax|where|masked_fill|cross_entropy|nll_loss",
    "AdamW and clipping": r"adamw|Optimizer|_foreach|clip",
    "casts and copies": r"aten::(copy_|_to_copy|clone|cat|contiguous)$",
}
REST = "the rest, small calls"


def profiled(turns: Turns, overrides: list[str]) -> None:
    """Milliseconds a step by group of operators, on the thread that calls them."""
    for turn, steps in trained_steps(turns, overrides):
        began = time.perf_counter()
        steps(turn["steps"])
        plain = time.perf_counter() - began
        with profile(activities=[ProfilerActivity.CPU]) as found:
            steps(turn["steps"])
        spent = dict.fromkeys([*GROUPS, REST], 0.0)
        for event in found.key_averages():
            spent[group(event.key)] += event.self_cpu_time_total / 1000 / turn["steps"]
        turns.report(**{"ms a step": 1000 * plain / turn["steps"], **_shares(spent)})


def group(operator: str) -> str:
    """The group that an operator of torch's profiler belongs to."""
    return next((name for name, form in GROUPS.items() if re.search(form, operator)), REST)


def _shares(spent: dict[str, float]) -> dict[str, Any]:
    total = sum(spent.values())
    return {name: one / total for name, one in spent.items()}
