"""What runs in the worker of `read`: a thousand runs of a study, all held at once."""

import shutil
import time
from pathlib import Path

from normlab.archive.events import read_events
from normlab.bench.worker import Turns, peak_mib


def copies(folder: Path, runs: int) -> None:
    """Copy the runs of a folder until there are so many."""
    first = sorted(path for path in folder.iterdir() if path.is_dir())
    for number in range(len(first), runs):
        shutil.copytree(first[number % len(first)], folder / f"copy{number:04d}")


def read_all(turns: Turns, folder: str) -> None:
    """Read every scalar of every run."""
    runs = sorted(Path(folder).iterdir())
    for _ in turns:
        began = time.perf_counter()
        found = [read_events(run) for run in runs]
        seconds = time.perf_counter() - began
        points = sum(len(series) for one in found for series in one.scalars.values())
        del found
        turns.report(seconds=seconds, points=points, peak_mib=peak_mib())
