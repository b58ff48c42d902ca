"""How the runs of a study share a machine: how many at once, and with how many threads each."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from normlab.archive.record import LAST_CHECKPOINT, RunRecord
from normlab.config.run_spec import RunSpec
from normlab.config.schema import FeedForwardKind, Positions, TrainConfig
from normlab.errors import NormlabError

# docs/log.md has the measurements behind these.
#
# What a block costs each step whatever its size, and threads do not shorten, in the floating-point
# operations that one core does in that time.
FIXED_OPERATIONS = 0.6e9
# A process of its own has to win at least this.
WORTHWHILE = 0.95
# Bytes of a process that trains, beside what its model needs: torch's and Lightning's own.
PROCESS_BYTES = 170 * 2**20
# How much of the free memory is given away.
MEMORY_SHARE = 0.8

_CONTROL_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Allocation:
    """`jobs` runs at once, with `threads` each; `why`, in words."""

    jobs: int
    threads: int
    why: str

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        if self.jobs == 1:
            return f"one after the other, {threads} ({self.why})"
        return f"{self.jobs} at once, {threads} each ({self.why})"


@dataclass(frozen=True)
class Machine:
    """What there is to share."""

    cores: int
    memory: int  # bytes that are free

    @classmethod
    def current(cls) -> "Machine":
        """This one, as it is now."""
        return cls(count_cores(), free_memory())


def allocate_runs(
    pending: Sequence[RunSpec], vocabularies: Mapping[str, int], devices: set[str], machine: Machine
) -> Allocation:
    """How these runs, `vocabularies` by id, share a machine, on these devices.

    `jobs=auto` takes what ends first by this rule: a step costs each block's fixed part and its
    operations over the threads, and the runs go in rounds.
    """
    jobs_setting, configs = pending[0].config.jobs, [spec.config for spec in pending]
    cores = machine.cores
    counted = f"{cores} core{'' if cores == 1 else 's'}; jobs, trainer.threads change it"
    if jobs_setting != "auto":
        jobs = min(int(jobs_setting), len(pending))
        return Allocation(jobs, threads_per_run(configs, cores, jobs), counted)
    # Each process on a GPU would make a context and kernels of its own: only `jobs` asks for it.
    if devices != {"cpu"}:
        why = f"on {', '.join(sorted(devices))}; jobs changes it"
        return Allocation(1, threads_per_run(configs, cores, 1), why)
    need = max(estimate_memory(spec.config, vocabularies[spec.id]) for spec in pending)
    fits = max(1, int(MEMORY_SHARE * machine.memory // need))
    best = _fastest_jobs(configs, vocabularies[pending[0].id], cores, min(len(pending), cores))
    jobs = min(best, fits)
    why = (
        counted
        if jobs == best
        else f"{_format_gib(machine.memory)} GiB free, a run needs {_format_gib(need)}"
    )
    return Allocation(jobs, threads_per_run(configs, cores, jobs), why)


def choose_threads(spec: RunSpec, allocation: Allocation) -> int:
    """The threads of a run: its own, those that it was begun with, or its share.

    Bits depend on it, so a run that goes on keeps what it had.
    """
    if spec.config.trainer.threads is not None:
        return spec.config.trainer.threads
    return resumed_threads(spec) or allocation.threads


def resumed_threads(spec: RunSpec) -> int | None:
    """The threads of a run that has a state to go on from."""
    folder = spec.folder
    try:
        threads = RunRecord.read(folder).threads
    except (OSError, NormlabError):
        return None
    return threads if (folder / LAST_CHECKPOINT).exists() else None


def estimate_parameters(config: TrainConfig, vocabulary: int) -> int:
    """Weights of a model, norms apart."""
    model = config.model
    # Queries and output are width × width; keys and values have fewer heads where they are
    # grouped (2305.13245).
    kv = (model.kv_heads or model.heads) / model.heads
    # SwiGLU has three matrices, two of them side by side (2002.05202).
    products = 3 if model.feedforward is FeedForwardKind.swiglu else 2
    block = model.width * ((2 + 2 * kv) * model.width + products * model.hidden_width)
    positions = model.context if model.positions is Positions.learned else 0
    tables = vocabulary * (1 if model.tie else 2) + positions
    return round(model.depth * block + tables * model.width)


def estimate_operations(config: TrainConfig, vocabulary: int) -> float:
    """Floating-point operations of an optimizer step."""
    model = config.model
    tokens = config.data.batch_size * model.context * config.trainer.accumulate
    # 6 N + 12 · depth · width · context for each token (2204.02311, appendix B): twice for a
    # multiplication and an addition, three times for forward and backward.
    attention = 2 * model.depth * model.width * model.context
    return 6.0 * tokens * (estimate_parameters(config, vocabulary) + attention)


def estimate_memory(config: TrainConfig, vocabulary: int) -> int:
    """Bytes that a run may come to take, at most, from shapes alone.

    Weights, gradients, two moments and a state that is being written, in fp32, and the weights
    once more in bf16; of every block what backward needs; logits, their softmax and gradients.
    """
    model = config.model
    tokens = config.data.batch_size * model.context
    # Measured peaks are 0.64 to 0.97 of the sum below (docs/log.md).
    block = 14 * model.width + 4 * model.hidden_width + 3 * model.heads * model.context
    logits = 4 * tokens * 4 * vocabulary
    weights = 22 * estimate_parameters(config, vocabulary)
    return PROCESS_BYTES + round(weights + model.depth * 4 * tokens * block + logits)


def _fastest_jobs(configs: Sequence[TrainConfig], vocabulary: int, cores: int, most: int) -> int:
    """The number of runs at once with which the study ends first."""
    fixed = sum(FIXED_OPERATIONS * config.model.depth for config in configs) / len(configs)
    work = sum(estimate_operations(config, vocabulary) for config in configs) / len(configs)

    def time(jobs: int) -> float:
        # A round that is not full takes as long: of three runs on two cores the last has one thread
        # and leaves the other core idle.
        rounds = -(-len(configs) // jobs)
        return rounds * (fixed + work / threads_per_run(configs, cores, jobs))

    best = 1
    for jobs in range(2, most + 1):
        if time(jobs) < WORTHWHILE * time(best):
            best = jobs
    return best


def threads_per_run(configs: Sequence[TrainConfig], cores: int, jobs: int) -> int:
    """Threads of each of so many processes at once.

    OMP_NUM_THREADS is the most where no run sets its threads.
    """
    settings = [config.trainer.threads for config in configs if config.trainer.threads is not None]
    if settings:
        return max(settings)
    # OpenMP takes a list too, a number for each level of nesting, as `4,1`.
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    fair = max(1, cores // jobs)
    return min(fair, max(1, int(limit))) if limit.isdigit() else fair


def _format_gib(size: int) -> str:
    return f"{size / 2**30:.1f}"


def count_cores() -> int:
    """Cores that this process may use: its affinity, and its container's share, rounded down."""
    # os.cpu_count counts what the machine has, also what this process may not use; but macOS and
    # Windows know no affinity.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    least = cores or 1
    for group in _control_groups("cpu"):
        for name in ("cpu.max", "cpu.cfs_quota_us"):
            with suppress(OSError, ValueError):
                words = (group / name).read_text().split()  # the second version has both in one
                period = words[1:] or (group / "cpu.cfs_period_us").read_text().split()
                quota = int(words[0])  # "max" is no number, -1 no limit
                least = min(least, quota // int(period[0])) if quota > 0 else least
    return max(1, least)


def free_memory() -> int:
    """Bytes that can be taken before the machine, or its container, runs out."""
    free = int(psutil.virtual_memory().available)
    for group in _control_groups("memory"):
        # The names of control groups version 2, then those of version 1.
        for limit, usage, idle in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with suppress(OSError, ValueError, KeyError):
                lines = (group / "memory.stat").read_text().splitlines()
                # Cached files count as used, but the kernel drops them when memory is needed.
                idle_bytes = {name: int(size) for name, size in map(str.split, lines)}[idle]
                used = int((group / usage).read_text()) - idle_bytes
                free = min(free, int((group / limit).read_text()) - used)
    return max(0, free)


def _control_groups(controller: str) -> Iterator[Path]:
    """The control groups that hold this process, of both versions: a limit of any holds."""
    lines: list[str] = []
    with suppress(OSError):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or controller in controllers.split(","):
            root = _CONTROL_GROUPS / controller if controllers else _CONTROL_GROUPS
            group = root / path.strip("/")
            # Inside a container the path may be the host's, and not there.
            yield from (at for at in (group, *group.parents) if at.is_relative_to(root))
