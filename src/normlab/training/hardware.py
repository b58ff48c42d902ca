"""Device, precision and threads that a run gets here, and what its record says of the machine."""

import ctypes
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import psutil
import torch

import normlab
from normlab import config
from normlab.archive.record import GitState
from normlab.config.schema import Device, TrainerConfig
from normlab.errors import ConfigError

_PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "omegaconf", "numpy", "tensorboard")
# The largest threshold that malloc takes.
_LARGEST_THRESHOLD = 2**31 - 1


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
    precision: str  # 32-true, bf16-mixed or 16-mixed
    threads: int
    cpu: str
    compile: bool
    graphs: bool = False  # compiled into CUDA graphs
    compile_if_faster: bool = False  # where the time that it saves exceeds what it takes


def resolve_hardware(trainer: TrainerConfig, threads: int | None = None) -> Hardware:
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
        retain_freed_memory()
    graphs = trainer.compile == "graphs"
    automatic = trainer.compile == "auto"
    compiled = not automatic and bool(trainer.compile)
    name = torch.cuda.get_device_name() if device == "cuda" else processor_name()
    threads = torch.get_num_threads()
    if_faster = automatic and device == "cuda"
    cpu = processor_name()
    return Hardware(device, name, precision, threads, cpu, compiled, graphs, if_faster)


def resolve_device(trainer: TrainerConfig) -> str:
    """The device that a trainer's settings mean here: cpu, cuda or mps.

    Raises:
        ConfigError: it is not there, or not one for what else they ask.
    """
    device = _available_device(trainer.device)
    if trainer.compile == "graphs" and device != "cuda":
        raise ConfigError(
            f"trainer.compile=graphs makes CUDA graphs, and this run would be on {device}; take "
            f"true, false or auto, or trainer=gpu on a machine that has one."
        )
    if trainer.compile == "graphs" and trainer.accumulate > 1:
        raise ConfigError(
            f"trainer.compile=graphs keeps gradients in the memory of a CUDA graph, where "
            f"trainer.accumulate={trainer.accumulate} cannot add to them; take "
            f"trainer.compile=true or trainer.accumulate=1."
        )
    if trainer.precision == "16-mixed" and device != "cuda":
        raise ConfigError(
            f"trainer.precision=16-mixed scales gradients on an NVIDIA GPU, and this run would be "
            f"on {device}; take 32-true, bf16-mixed or auto."
        )
    return device


def _available_device(requested: Device) -> str:
    devices = ["cpu"]
    if torch.backends.mps.is_available():
        devices.insert(0, "mps")
    if torch.cuda.is_available():
        devices.insert(0, "cuda")
    if requested is Device.auto:
        return devices[0]
    if requested.value not in devices:
        raise ConfigError(
            f"trainer.device={requested.value} is not on this machine, which has "
            f"{' and '.join(devices)}; leave it at auto or take one of those."
        )
    return str(requested.value)


def free_card_memory() -> list[int]:
    """The free bytes of each of this machine's CUDA cards."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [int(torch.cuda.mem_get_info(card)[0]) for card in range(count)]


def wait_for_cuda() -> None:
    """Wait for all that CUDA still has to do, where this process uses it."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def retain_freed_memory() -> None:
    """Have glibc keep what is freed: every step asks for the same again.

    By default it gives large blocks back to the system at once, and each step pays for fresh pages
    (docs/log.md has what that costs). Does nothing where the C library is another.
    """
    trim_threshold, mmap_threshold = -1, -3  # of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(mmap_threshold, _LARGEST_THRESHOLD)
        mallopt(trim_threshold, _LARGEST_THRESHOLD)


def _multiplies_bf16(device: str) -> bool:
    # Others emulate bf16. With these instructions a processor multiplies 2.1 times as fast as in
    # fp32 (docs/performance.md).
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        has = torch.cpu.get_capabilities()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return False


def processor_name() -> str:
    """The processor as torch names it."""
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or "cpu")


@cache
def package_versions() -> dict[str, str]:
    """The versions of normlab, Python and the packages that can change a number."""
    versions = {"normlab": normlab.__version__, "python": platform.python_version()}
    return versions | {name: version(name) for name in _PACKAGES}


@cache
def git_state() -> GitState | None:
    """The commit of normlab's own sources, and whether they differ from it; None if unknown."""
    root = config.conf_folder().parent
    if not (root / ".git").exists():
        return None
    # Neither another repository that the environment names, nor a program that a setting names.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_")
    } | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-c", "core.fsmonitor=false", "-C", str(root), *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return GitState(commit, dirty=bool(changes))


def describe_machine(hardware: Hardware) -> dict[str, Any]:
    """The machine as far as it decides speed and rounding."""
    return {
        "system": platform.platform(),
        "cpu": hardware.cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernels": _name_cpu_kernels(),
        "threads": hardware.threads,
        "compile": hardware.compile,
        **({"cuda_graphs": True} if hardware.graphs else {}),
    }


def _name_cpu_kernels() -> str:
    """The instructions that torch's CPU kernels use: by them the last digits of a loss differ.

    `ATEN_CPU_CAPABILITY` changes torch's choice, `MKL_CBWR` that of MKL's matrix products.
    """
    kernels = str(torch.backends.cpu.get_cpu_capability())
    mkl = os.environ.get("MKL_CBWR")
    return f"{kernels}, MKL_CBWR={mkl}" if mkl else kernels
