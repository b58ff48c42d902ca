"""Whether compiling a model pays: the time that it saves against the time that it takes.

The numbers are rough, from one card: they decide between a minute and an hour, not between two
seconds and three. They were measured on an H100 with torch 2.11 (docs/stacks.md).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from normlab.errors import NormlabError, describe_error
from normlab.training.hardware import Hardware

# Seconds that torch.compile takes for a small model: of one run (11 to 31 measured), and mapped
# over a stack (40 to 70).
RUN_SECONDS = 25.0
STACK_SECONDS = 60.0
# How many times faster a step is then. Of a small run 114 steps a second became 141, of 64 in a
# stack 5,592 became 15,111. Of large models, whose matrix products decide, it is less.
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


def compile_where_it_pays(
    hardware: Hardware,
    estimate: Callable[[], CompilationEstimate],
    compile_now: Callable[[], None],
    say: Callable[[str], None],
) -> bool:
    """Compile where the settings ask for it, or leave it open and the estimate says that it pays.

    Returns whether that was done. `say` is called with what a user should know of it.

    Raises:
        NormlabError: it cannot be compiled here, and the settings ask for it.
    """
    if not (hardware.compile or hardware.compile_if_faster):
        return False
    if hardware.compile_if_faster:
        estimated = estimate()
        say(str(estimated))
        if not estimated.pays:
            return False
    began = time.perf_counter()
    try:
        compile_now()
    except NormlabError as error:
        if not hardware.compile_if_faster:
            raise
        say(f"not compiled: {error}")
        return False
    seconds = time.perf_counter() - began
    say(f"compiled in {seconds:.0f} s, which its speed does not count")
    return True


def compiler_error(subject: str, error: Exception) -> NormlabError:
    """The sentence about what the compiler raised, about anything that it lacks."""
    return NormlabError(
        f"{subject} cannot be compiled here ({describe_error(error, 300)}); a CPU needs a C++ "
        f"compiler for it, a GPU Triton; take trainer.compile=false."
    )


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
