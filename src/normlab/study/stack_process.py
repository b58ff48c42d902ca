"""Stacks of runs trained in processes of their own: one for each card, or for the CPU."""

import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
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
from normlab.study.workers import ConnectionDisplay

if TYPE_CHECKING:  # this process does without torch
    from normlab.training.stack_follower import Outcome


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
        stacks = [[specs[index] for index in stack] for stack in queue]
        are_alone = [stack[0] in alone for stack in queue]
        train = partial(_train_queue, stacks, are_alone, shlex.join(sys.argv))
        indices = [index for stack in queue for index in stack]
        runs = [spec for stack in stacks for spec in stack]
        jobs.append(Job(indices, runs, allocation.threads, train, environment))
    processes = Allocation(len(jobs), allocation.threads, "")
    return ParallelRuns(processes, jobs).train()


def _train_queue(
    stacks: Sequence[list[RunSpec]],
    are_alone: Sequence[bool],
    command: str,
    connection: Connection,
) -> list[str | NormlabError]:
    """Train stacks one after the other: for each run its state, or why it has none."""
    from normlab.training.run import train
    from normlab.training.stack_run import train_stack

    results: list[str | NormlabError] = []
    for stack, is_alone in zip(stacks, are_alone, strict=True):
        displays = [ConnectionDisplay(connection, len(results) + i) for i in range(len(stack))]
        displays[0].start_stack(len(stack))
        outcomes: list[Outcome] = []
        if is_alone:
            try:
                outcomes.append(train(stack[0], command, displays[0]))
            except (RunLockedError, NormlabError) as error:
                outcomes.append(error)
        else:
            outcomes += train_stack(stack, command, displays)
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
