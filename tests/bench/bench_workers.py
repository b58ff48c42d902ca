"""Set-ups of worker processes, for the tests of the harness."""

import os

import torch

from harness import Block, RunBlock
from normlab.errors import NormlabError


def multiply_steps(factor: float, steps: int) -> RunBlock:
    def run_block() -> Block:
        return {"product": steps * factor, "pid": os.getpid()}

    return run_block


def refuse_set_up() -> RunBlock:
    raise NormlabError("it will not")


def fail_in_block() -> RunBlock:
    def run_block() -> Block:
        raise ValueError("two\nlines")

    return run_block


def exit_in_block() -> RunBlock:
    def run_block() -> Block:
        os._exit(7)

    return run_block


def count_threads() -> RunBlock:
    return lambda: {"threads": torch.get_num_threads()}
