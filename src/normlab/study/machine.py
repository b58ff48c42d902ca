"""What this machine has to give: cores and free memory, also inside a container."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_GROUPS = Path("/sys/fs/cgroup")


def cores() -> int:
    """Cores that this process may use: its affinity, and its container's share, rounded down."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    least = there or 1
    for group in _groups("cpu"):
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
    for group in _groups("memory"):
        for limit, usage, idle in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with suppress(OSError, ValueError, KeyError):
                lines = (group / "memory.stat").read_text().splitlines()
                kept = {name: int(size) for name, size in map(str.split, lines)}[idle]
                used = int((group / usage).read_text()) - kept
                free = min(free, int((group / limit).read_text()) - used)
    return max(0, free)


def _groups(controller: str) -> Iterator[Path]:
    """The control groups that hold this process, of both versions: a limit of any holds."""
    lines: list[str] = []
    with suppress(OSError):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or controller in controllers.split(","):
            root = _GROUPS / controller if controllers else _GROUPS
            own = root / path.strip("/")
            # Inside a container the path may be the host's, and not there.
            yield from (at for at in (own, *own.parents) if at.is_relative_to(root))
