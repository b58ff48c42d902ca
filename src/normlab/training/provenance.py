"""Where a result comes from: the sources' commit, the packages, the machine."""

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from typing import Any

import normlab
from normlab import config
from normlab.training.hardware import Hardware

_PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "omegaconf", "numpy", "tensorboard")


@cache
def versions() -> dict[str, str]:
    """The versions of normlab, Python and the packages that can change a number."""
    found = {"normlab": normlab.__version__, "python": platform.python_version()}
    return found | {name: version(name) for name in _PACKAGES}


@cache
def git() -> dict[str, Any] | None:
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
    return {"commit": commit, "dirty": bool(changes)}


def machine(hardware: Hardware) -> dict[str, Any]:
    """The machine as far as it decides speed and rounding."""
    return {
        "system": platform.platform(),
        "cpu": hardware.cpu,
        "cores": os.cpu_count(),
        "memory_gib": _memory(),
        "threads": hardware.threads,
        "compile": hardware.compile,
        **({"cuda_graphs": True} if hardware.graphs else {}),
    }


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
