"""The machine in words, for what was measured on it."""

import platform
from functools import cache
from importlib.metadata import version

from normlab.study.allocation import count_cores


@cache
def machine() -> str:
    """`2-core AMD EPYC 9B14, torch 2.13.0`."""
    return f"{count_cores()}-core {_processor()}, torch {version('torch')}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            named = next(line for line in lines if line.startswith("model name"))
        return named.partition(":")[2].strip()
    except (OSError, StopIteration):
        return platform.processor() or "CPU"
