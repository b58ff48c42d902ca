"""Whether compiling a model pays: the time that it saves against the time that it takes.

The numbers are rough, from one card: they decide between a minute and an hour, not between two
seconds and three. They were measured on an H100 with torch 2.11 (docs/stacks.md).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

# Seconds that torch.compile takes for a small model: of one run, and mapped over a stack.
RUN_SECONDS = 25.0
STACK_SECONDS = 60.0
# How many times faster a step is then. Of large models, whose matrix products decide, it is less.
RUN_SPEEDUP = 1.3
STACK_SPEEDUP = 2.5
_TIMED_STEPS = 3


@dataclass(frozen=True)
class CompilationEstimate:
    """What torch.compile would take, and save over the rest of a run; in seconds."""

    cost: float
    saving: float

    @property
    def pays(self) -> bool:
        """Whether it saves more than it takes."""
        return self.saving > self.cost

    def __str__(self) -> str:
        decision = "compiled" if self.pays else "not compiled"
        return (
            f"{decision}: compiling takes about {self.cost:.0f} s, and would save about "
            f"{self.saving:.0f} s (trainer.compile decides otherwise)"
        )


def estimate_compilation(step_seconds: float, steps: int, stacked: bool) -> CompilationEstimate:
    """The estimate for `steps` more steps that take `step_seconds` each without compilation."""
    cost, speedup = (STACK_SECONDS, STACK_SPEEDUP) if stacked else (RUN_SECONDS, RUN_SPEEDUP)
    return CompilationEstimate(cost, step_seconds * steps * (1 - 1 / speedup))


def time_step(step: Callable[[], object], device: torch.device) -> float:
    """The seconds of a step, which has been taken before."""
    _wait_for(device)
    began = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        step()
    _wait_for(device)
    return (time.perf_counter() - began) / _TIMED_STEPS


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
