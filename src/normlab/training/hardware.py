"""Device, precision and threads, resolved from what the machine has."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from normlab.config.schema import Device, TrainerConfig
from normlab.errors import ConfigError
from normlab.training.display import Display

# The largest threshold that malloc takes.
_MOST_BYTES = 2**31 - 1


@contextmanager
def single_thread() -> Iterator[None]:
    """Compute on one thread of torch.

    Tensors of a few tokens are done before a second thread has woken: on a busy machine two take
    ten times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Hardware:
    """Where a run really trains: recorded with its results."""

    device: str  # cpu, cuda or mps
    name: str  # the processor's or card's own name
    precision: str  # 32-true or bf16-mixed
    threads: int
    cpu: str
    compile: bool
    graphs: bool = False  # compiled into CUDA graphs


def resolve(trainer: TrainerConfig, threads: int | None = None) -> Hardware:
    """The hardware that a trainer's settings mean here; `threads` where they leave it open.

    Raises:
        ConfigError: what was asked for is not there.
    """
    device = resolve_device(trainer)
    precision = trainer.precision
    if precision == "auto":
        precision = "bf16-mixed" if _multiplies_bf16(device) else "32-true"
    threads = trainer.threads or threads
    if threads is not None:
        torch.set_num_threads(threads)
    if device == "cpu":
        keep_freed_memory()
    graphs = trainer.compile == "graphs"
    compiled = device == "cuda" if trainer.compile == "auto" else bool(trainer.compile)
    name = torch.cuda.get_device_name() if device == "cuda" else processor_name()
    threads = torch.get_num_threads()
    return Hardware(device, name, precision, threads, processor_name(), compiled, graphs)


def kept_threads(threads: int | None, display: Display) -> int | None:
    """The threads of a run that goes on, from its record: its bits depend on them."""
    if threads is None:
        return None
    cores = os.cpu_count() or threads
    if threads > cores:
        display.say(f"goes on with the {threads} threads that it began with, on {cores} cores")
    return threads


def resolve_device(trainer: TrainerConfig) -> str:
    """The device that a trainer's settings mean here: cpu, cuda or mps.

    Raises:
        ConfigError: it is not there, or not one for what else they ask.
    """
    device = _device(trainer.device)
    if trainer.compile == "graphs" and device != "cuda":
        raise ConfigError(
            f"trainer.compile=graphs makes CUDA graphs, and this run would be on {device}; take "
            f"true, false or auto, or trainer=gpu on a machine that has one."
        )
    return device


def _device(requested: Device) -> str:
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    if requested is Device.auto:
        return there[0]
    if requested.value not in there:
        raise ConfigError(
            f"trainer.device={requested.value} is not on this machine, which has "
            f"{' and '.join(there)}; leave it at auto or take one of those."
        )
    return str(requested.value)


def keep_freed_memory() -> None:
    """Have glibc keep what is freed: every step asks for the same again.

    By default it gives large blocks back to the system at once, and each step pays for fresh pages
    (docs/log.md has what that costs). Does nothing where the C library is another.
    """
    trim_threshold, mmap_threshold = -1, -3  # of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(mmap_threshold, _MOST_BYTES)
        mallopt(trim_threshold, _MOST_BYTES)


def _multiplies_bf16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        has = torch.cpu.get_capabilities()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return False


def processor_name() -> str:
    """The processor as torch names it."""
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or "cpu")
