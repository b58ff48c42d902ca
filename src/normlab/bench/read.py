"""Suite `read`: event files of a study read by the lab, by TensorBoard and by tbparse.

    python -m normlab.bench.read [runs] [rounds]

The contenders read the same files, one after the other in every round, and are compared by round.
What each must give is checked before anything is timed.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from normlab.archive import tags
from normlab.archive.events import read_events

RUNS, STEPS, ROUNDS = 50, 2000, 3
TAGS = (
    tags.TRAIN_LOSS,
    tags.LEARNING_RATE,
    tags.GRADIENT_NORM,
    tags.TOKENS_PER_SECOND,
    tags.VALIDATION_LOSS,
    tags.BEST_VALIDATION_LOSS,
    "probe/rms/block_00",
    "probe/rms/block_01",
)

Contender = Callable[[], int]  # reads everything, returns how many points it got
OURS = "normlab"


def write_runs(folder: Path, runs: int = RUNS, steps: int = STEPS) -> int:
    """Write runs as training does, with every tag at every step; returns the number of points.

    Half a second a run: TensorBoard's writer takes 25 µs a point.
    """
    from torch.utils.tensorboard import SummaryWriter

    for run in range(runs):
        values = np.random.default_rng(run).normal(size=(steps, len(TAGS)))
        with SummaryWriter(str(folder / f"run{run:04d}"), max_queue=10_000) as writer:
            writer.add_text("record", "x" * 2000)
            for step, row in enumerate(values.tolist()):
                for tag, value in zip(TAGS, row, strict=True):
                    writer.add_scalar(tag, value, step)
    return runs * steps * len(TAGS)


def contenders(folder: Path) -> dict[str, Contender]:
    """Every way to read all runs of a folder, by name; tbparse where it is installed."""
    runs = sorted(path for path in folder.iterdir() if path.is_dir())

    def ours() -> int:
        return sum(_points(run) for run in runs)

    def accumulator() -> int:
        from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
            EventAccumulator,
        )

        found = 0
        for run in runs:
            # All points: by default it drops those beyond 10,000 a tag.
            reader = EventAccumulator(str(run), size_guidance={"scalars": 0})
            reader.Reload()
            found += sum(len(reader.Scalars(tag)) for tag in reader.Tags()["scalars"])
        return found

    ways: dict[str, Contender] = {
        OURS: ours,
        "tensorboard's EventAccumulator": accumulator,
    }
    if find_spec("tbparse"):
        ways["tbparse"] = lambda: _tbparse(folder)
    return ways


def measure(ways: Mapping[str, Contender], points: int, rounds: int = ROUNDS) -> dict[str, object]:
    """Seconds and ratios to our reader, medians with the lowest and highest over the rounds.

    Raises:
        ValueError: a contender did not read every point.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first warms imports and the page cache
        for name, read in ways.items():
            began = time.perf_counter()
            found = read()
            took = time.perf_counter() - began
            if found != points:
                raise ValueError(f"{name} gave {found} of {points} points")
            if number:
                seconds[name].append(took)
    return {
        name: {
            "seconds": _spread(times),
            "times_ours": _spread(
                [one / ours for one, ours in zip(times, seconds[OURS], strict=True)]
            ),
            "points_per_second": points / statistics.median(times),
        }
        for name, times in seconds.items()
    }


def run(runs: int = RUNS, rounds: int = ROUNDS, steps: int = STEPS) -> dict[str, object]:
    """Write runs into a folder that is removed again, and measure."""
    with tempfile.TemporaryDirectory() as place:
        points = write_runs(Path(place), runs, steps)
        results = measure(contenders(Path(place)), points, rounds)
    return {"runs": runs, "steps": steps, "tags": len(TAGS), "points": points, "results": results}


def _points(run: Path) -> int:
    return sum(map(len, read_events(run).scalars.values()))


def _tbparse(folder: Path) -> int:
    from tbparse import SummaryReader

    columns = {"dir_name", "wall_time"}  # what the others give as well
    return len(SummaryReader(str(folder), extra_columns=columns).scalars)


def _spread(values: list[float]) -> list[float]:
    """Median, lowest, highest."""
    return [statistics.median(values), min(values), max(values)]


if __name__ == "__main__":
    print(json.dumps(run(*map(int, sys.argv[1:3])), indent=2))  # noqa: T201
