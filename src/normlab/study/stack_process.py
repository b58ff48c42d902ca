"""Stacks of runs trained in processes of their own: one for each card, or for the CPU."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn

from normlab.archive.lock import RunLockedError
from normlab.archive.record import RunRecord
from normlab.config.run_spec import RunSpec
from normlab.errors import NormlabError
from normlab.study.allocation import Allocation
from normlab.study.parallel_runs import Job, ParallelRuns
from normlab.study.plan import ELSEWHERE
from normlab.study.stack_allocation import StackAllocation, card_environment
from normlab.study.workers import (
    ConnectionDisplay,
    Stopped,
    follow_parent,
    import_training,
    prepare_process,
)
from normlab.training import stopping

if TYPE_CHECKING:  # this process does without torch
    from normlab.training.stack_follower import Outcome


@dataclass(frozen=True)
class StackOrder:
    """What a process trains: stacks of runs, one after the other; a run alone is `alone`."""

    stacks: list[list[RunSpec]]
    alone: list[bool]
    threads: int
    command: str
    environment: dict[str, str]


def train_in_stacks(
    specs: Sequence[RunSpec], alone: Sequence[int], allocation: StackAllocation
) -> list[JobReturn]:
    """Train runs as they are allocated; what each came to, in their order.

    `alone` are the indices of runs that cannot be in a stack.

    Raises:
        KeyboardInterrupt: a signal stopped them, and their states are saved.
    """
    jobs = []
    for number, queue in enumerate(allocation.queues):
        environment = dict(os.environ)
        # CUDA reads the variable when a process first uses a card, and never again.
        if allocation.cards:
            environment |= card_environment(number, environment.get("CUDA_VISIBLE_DEVICES"))
        order = StackOrder(
            [[specs[index] for index in stack] for stack in queue],
            [stack[0] in alone for stack in queue],
            allocation.threads,
            shlex.join(sys.argv),
            environment,
        )
        indices = [index for stack in queue for index in stack]
        of_job = [specs[index] for index in indices]
        jobs.append(Job(indices, of_job, allocation.threads, train_stacks_in_process, order))
    processes = Allocation(len(jobs), allocation.threads, "")
    return ParallelRuns(processes, jobs).train()


def train_stacks_in_process(
    connection: Connection, order: StackOrder
) -> list[str | NormlabError] | Stopped:
    """Carry out an order: for each run its state, or why it has none."""
    follow_parent(connection)
    try:
        prepare_process(order.environment)
        import_training()
        import torch

        torch.set_num_threads(order.threads)
        return _train_queue(connection, order)
    except KeyboardInterrupt as interruption:
        return Stopped(stopping.signal_of(interruption))
    finally:
        stopping.ignore_signals()


def _train_queue(connection: Connection, order: StackOrder) -> list[str | NormlabError]:
    from normlab.training.run import train
    from normlab.training.stack_run import train_stack

    results: list[str | NormlabError] = []
    for stack, alone in zip(order.stacks, order.alone, strict=True):
        displays = [ConnectionDisplay(connection, len(results) + i) for i in range(len(stack))]
        displays[0].start_stack(len(stack))
        outcomes: list[Outcome] = []
        if alone:
            try:
                outcomes.append(train(stack[0], order.command, displays[0]))
            except (RunLockedError, NormlabError) as error:
                outcomes.append(error)
        else:
            outcomes += train_stack(stack, order.command, displays)
        for outcome, display in zip(outcomes, displays, strict=True):
            result: str | NormlabError
            if isinstance(outcome, RunLockedError):
                display.say(str(outcome))
                result = ELSEWHERE
            else:
                result = outcome.state if isinstance(outcome, RunRecord) else outcome
            if isinstance(result, str):
                display.end(result)
            results.append(result)
    return results
