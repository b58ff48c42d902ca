"""Whether compiling a model pays: the time that it saves against the time that it takes.

The numbers are rough, from one card: they decide between a minute and an hour, not between two
seconds and three. They were measured on an H100 with torch 2.11 (docs/stacks.md).
"""

import time
from collections.abc import Callable

from normlab.errors import NormlabError, describe_error
from normlab.training.hardware import Hardware, wait_for_cuda

# Seconds that torch.compile takes for a small model: of one run (11 to 31 measured), and mapped
# over a stack (40 to 70).
RUN_SECONDS = 25.0
STACK_SECONDS = 60.0
# How many times faster a step is then. Of a small run 114 steps a second became 141, of 64 in a
# stack 5,592 became 15,111. Of large models, whose matrix products decide, it is less.
RUN_SPEEDUP = 1.3
STACK_SPEEDUP = 2.5
_TIMED_STEPS = 3


def decide_compilation(step_seconds: float, steps: int, stacked: bool) -> tuple[bool, str]:
    """Whether compiling pays for `steps` more steps that take `step_seconds` each without it.

    Also a sentence about it.
    """
    cost, speedup = (STACK_SECONDS, STACK_SPEEDUP) if stacked else (RUN_SECONDS, RUN_SPEEDUP)
    saving = step_seconds * steps * (1 - 1 / speedup)
    pays = saving > cost
    return pays, (
        f"{'compiled' if pays else 'not compiled'}: compiling takes about {cost:.0f} s, and would "
        f"save about {saving:.0f} s (trainer.compile decides otherwise)"
    )


def compile_where_it_pays(
    hardware: Hardware,
    decide: Callable[[], tuple[bool, str]],
    compile_now: Callable[[], None],
    say: Callable[[str], None],
) -> bool:
    """Compile where the settings ask for it, or leave it open and `decide` says that it pays.

    Returns whether that was done. `say` is called with what a user should know of it.

    Raises:
        NormlabError: it cannot be compiled here, and the settings ask for it.
    """
    if not (hardware.compile or hardware.compile_if_faster):
        return False
    if hardware.compile_if_faster:
        pays, sentence = decide()
        say(sentence)
        if not pays:
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


def time_step(step: Callable[[], object]) -> float:
    """The seconds of a step, which has been taken before."""
    wait_for_cuda()
    began = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        step()
    wait_for_cuda()
    return (time.perf_counter() - began) / _TIMED_STEPS
