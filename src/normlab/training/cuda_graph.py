"""A training step captured in one CUDA graph: its hundreds of kernels are launched as one.

At small shapes a step is bound by launches, not by arithmetic. A capture takes about a second. A
graph reads and writes the same memory each time, so everything that a step needs from outside is
copied into tensors that stay where they are.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from normlab.text import one_line

Step = Callable[[], None]
# Steps before the capture: libraries choose their kernels and allocate their work space in these.
WARMUP_STEPS = 3
# How far a captured step's results may be from those of the same step without a graph, relative to
# the largest of them: kernels that add in another order are within it, wrong ones are not.
TOLERANCE = 2e-2
# The same for the change of weights and moments in a step, of all of them together.
CHANGE_TOLERANCE = 0.1


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
    current = torch.cuda.current_stream(device)
    before = [tensor.detach().clone() for tensor in state]
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(current)
    try:
        with torch.cuda.stream(side):
            for _ in range(WARMUP_STEPS):
                restore_tensors(state, before)
                step()
        current.wait_stream(side)
        expected = [tensor.detach().clone() for tensor in (*results, *state)]
        restore_tensors(state, before)
        graph = torch.cuda.CUDAGraph()
        # A new stream each time. On the one that torch shares among captures, the end of an older
        # graph frees the work space of matrix products that this graph goes on using. Not `side`
        # either: its work space exists already, outside of the graph's memory.
        capture_stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.graph(graph, stream=capture_stream):
            step()
        restore_tensors(state, before)
        graph.replay()
        count = len(results)
        problem = compare_results(results, expected[:count]) or compare_changes(
            before, state, expected[count:]
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # of CUDA, about an operation that cannot be captured
        problem = one_line(error, 200)
        torch.cuda.synchronize(device)
    finally:
        torch.cuda.set_stream(current)  # a capture that fails leaves its own stream current
    restore_tensors(state, before)
    return (step, problem) if problem else (graph.replay, "")


def compare_results(
    results: Sequence[Tensor], expected: Sequence[Tensor], floor: float = 0.0
) -> str:
    """How results differ from what is expected, beyond rounding; empty where they do not.

    What differs by less than `floor` is the same: numbers that are the rest of a sum that cancels
    have no precision of their own.
    """
    for number, (result, reference) in enumerate(zip(results, expected, strict=True)):
        result, reference = result.detach(), reference.detach()
        finite = reference.isfinite()
        if not torch.equal(finite, result.isfinite()):
            return f"result {number} is not finite where it should be"
        scale = float(reference[finite].abs().max()) if finite.any() else 0.0
        difference = float((result - reference)[finite].abs().max()) if finite.any() else 0.0
        if difference > max(TOLERANCE * scale, floor):
            return f"result {number} differs by {difference:.2g} of {scale:.2g}"
    return ""


def compare_changes(
    before: Sequence[Tensor], state: Sequence[Tensor], expected: Sequence[Tensor]
) -> str:
    """How the change of a state differs from what is expected, over all of its tensors together.

    AdamW makes a step of full size of a gradient that is nothing but rounding, so a tensor alone
    may differ in all of its numbers.
    """
    difference = change = 0.0
    for old, new, reference in zip(before, state, expected, strict=True):
        finite = reference.isfinite()
        if not torch.equal(finite, new.isfinite()):
            return "the state is not finite where it should be"
        difference += float((new - reference)[finite].double().square().sum())
        change += float((reference - old)[finite].double().square().sum())
    if difference > CHANGE_TOLERANCE**2 * change:
        relative = (difference / change) ** 0.5 if change else float("inf")
        return f"the state changes otherwise, by {relative:.2g} of its change"
    return ""


@torch.no_grad()
def restore_tensors(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Write the values into the tensors, where they are."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
