"""How the runs of a study go into stacks, and the stacks onto cards: shapes and counts, no torch.

A stack is trained by one process. On GPUs there is one process a card; on a CPU one, or `jobs`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from normlab.config.run_spec import RunSpec
from normlab.study.allocation import (
    MEMORY_SHARE,
    PROCESS_BYTES,
    Machine,
    estimate_memory,
    estimate_parameters,
    threads_per_run,
)

# More runs than this in a stack train hardly more a second, and take longer to begin: a prototype
# made 15,111 run-steps a second with 64 runs and 16,446 with 256, compiled, on an H100.
LARGEST_STACK = 256


@dataclass(frozen=True)
class StackRequest:
    """What was learned about the runs where torch is: see `training.stack_groups.StackPlan`.

    Attributes:
        groups: indices of runs that can share a stack.
        alone: indices of runs that are trained alone.
        note: a sentence about why some, or all, are trained alone; empty where none is.
        cards: free bytes of each card that the runs may use; empty on a CPU.
    """

    groups: list[list[int]]
    alone: list[int]
    note: str = ""
    cards: tuple[int, ...] = ()


@dataclass(frozen=True)
class StackAllocation:
    """For every process, its stacks one after the other; a stack is indices of runs."""

    queues: list[list[list[int]]]
    threads: int
    cards: int  # 0 on a CPU

    def __str__(self) -> str:
        sizes = [len(stack) for queue in self.queues for stack in queue]
        stacks = f"{len(sizes)} stack{'s' * (len(sizes) > 1)} of up to {max(sizes)} runs"
        if max(sizes) == 1:
            stacks = f"{len(sizes)} run{'s' * (len(sizes) > 1)}, each by itself"
        count = len(self.queues)
        if self.cards:
            where = f"{count} of {self.cards} card{'s' * (self.cards > 1)}"
        else:
            where = f"{count} process{'es' * (count > 1)} on the CPU"
        return f"{stacks}, {where} (trainer.stack, jobs change it)"


def allocate_stacks(
    pending: Sequence[RunSpec],
    vocabularies: Mapping[str, int],
    request: StackRequest,
    machine: Machine,
) -> StackAllocation:
    """Divide the groups into stacks, and the stacks among processes.

    `trainer.stack=auto` takes as many runs as a card's memory holds, by `estimate_memory`, and
    leaves no card without work. `jobs` is the largest number of processes.
    """
    config = pending[0].config
    cards = len(request.cards)
    most = config.jobs if config.jobs != "auto" else max(1, cards)
    processes = min(int(most), cards) if cards else int(most)
    stacks = [[index] for index in request.alone]
    for group in request.groups:
        largest = config.trainer.stack
        if largest == "auto":
            spec = pending[group[0]]
            fits = _fitting_runs(spec, vocabularies[spec.id], request.cards)
            share = -(-sum(map(len, request.groups)) // processes)
            largest = min(LARGEST_STACK, fits, share)
        stacks += split_evenly(group, largest)
    queues = distribute_stacks(stacks, min(processes, len(stacks)))
    threads = threads_per_run([spec.config for spec in pending], machine.cores, len(queues))
    return StackAllocation(queues, threads, cards)


def _fitting_runs(spec: RunSpec, vocabulary: int, cards: Sequence[int]) -> int:
    # What a process needs beside its runs is the CPU's memory, not the card's.
    need = estimate_memory(spec.config, vocabulary) - PROCESS_BYTES
    # In fp32: two copies of weights and both moments while a step is captured, and the weights of
    # the lowest validation loss.
    need += 28 * estimate_parameters(spec.config, vocabulary)
    # Any card may get the stack, so the fullest decides.
    return max(1, int(MEMORY_SHARE * min(cards, default=0) // need))


def split_evenly(group: Sequence[int], largest: int) -> list[list[int]]:
    """A group in as few parts of at most `largest` as there can be, as equal as can be."""
    count = -(-len(group) // largest)
    borders = [len(group) * part // count for part in range(count + 1)]
    return [list(group[a:b]) for a, b in pairwise(borders)]


def distribute_stacks(stacks: Sequence[list[int]], processes: int) -> list[list[list[int]]]:
    """The stacks in queues: the largest first, each where there are the fewest runs so far."""
    queues: list[list[list[int]]] = [[] for _ in range(processes)]
    for stack in sorted(stacks, key=len, reverse=True):
        min(queues, key=lambda queue: sum(map(len, queue))).append(stack)
    return queues


def card_environment(number: int, visible: str | None) -> dict[str, str]:
    """What makes card `number`, of those that are visible, the only one of a process.

    `visible` is CUDA_VISIBLE_DEVICES as the user has it, None where it is not set.
    """
    names = [name.strip() for name in visible.split(",")] if visible else []
    return {"CUDA_VISIBLE_DEVICES": names[number] if number < len(names) else str(number)}
