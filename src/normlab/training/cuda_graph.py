"""A training step captured in one CUDA graph: its hundreds of kernels are launched as one.

At small shapes a step is bound by launches, not by arithmetic. A capture takes about a second. A
graph reads and writes the same memory each time, so everything that a step needs from outside is
copied into tensors that stay where they are.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Step = Callable[[], None]
# Steps before the capture: libraries choose their kernels and allocate their work space in these.
WARMUP_STEPS = 3
# How far a captured step's results may be from those of the same step without a graph, relative to
# the largest of them: kernels that add in another order are within it, wrong ones are not.
TOLERANCE = 2e-2


def capture_step(
    step: Step, device: torch.device, state: Sequence[Tensor], results: Sequence[Tensor]
) -> tuple[Step, str]:
    """The step as a CUDA graph where that works, and why it is not one (empty if it is).

    `step` changes the tensors of `state`, which are left as they were, and writes `results`. The
    graph is compared with the step before it is used: a kernel that cannot be captured may give
    wrong numbers without an error. On any other device the step itself is returned.
    """
    if device.type != "cuda":
        return step, f"there are no CUDA graphs on {device.type}"
    before = [tensor.detach().clone() for tensor in state]
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(side):
            for _ in range(WARMUP_STEPS):
                restore_tensors(state, before)
                step()
        torch.cuda.current_stream(device).wait_stream(side)
        expected = [tensor.detach().clone() for tensor in (*results, *state)]
        restore_tensors(state, before)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        restore_tensors(state, before)
        graph.replay()
        problem = compare_results([*results, *state], expected)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # of CUDA, about an operation that cannot be captured
        problem = " ".join(str(error).split())[:200]
    restore_tensors(state, before)
    return (step, problem) if problem else (graph.replay, "")


def compare_results(results: Sequence[Tensor], expected: Sequence[Tensor]) -> str:
    """How results differ from what is expected, beyond rounding; empty where they do not."""
    for number, (result, reference) in enumerate(zip(results, expected, strict=True)):
        result, reference = result.detach(), reference.detach()
        finite = reference.isfinite()
        if not torch.equal(finite, result.isfinite()):
            return f"result {number} is not finite where it should be"
        scale = float(reference[finite].abs().max()) if finite.any() else 0.0
        difference = float((result - reference)[finite].abs().max()) if finite.any() else 0.0
        if difference > TOLERANCE * scale:
            return f"result {number} differs by {difference:.2g} of {scale:.2g}"
    return ""


@torch.no_grad()
def restore_tensors(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Write the values into the tensors, where they are."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
