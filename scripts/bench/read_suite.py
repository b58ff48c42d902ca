"""`read`: the event files of a study read by normlab, by TensorBoard and by tbparse."""

import shutil
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from harness import (
    Block,
    Contender,
    RunBlock,
    Samples,
    Settings,
    WorkerProcess,
    interleave,
    read_peak_memory,
)
from models import is_installed
from normlab.analysis.statistics import quartile_spread, ratio_spread
from normlab.archive import tags
from normlab.archive.events import read_events
from normlab.errors import NormlabError
from report import (
    ComputeNumber,
    Json,
    add_bars,
    add_goal,
    add_table,
    column,
    new_result,
    spread_of,
)

TAGS = (
    *(tags.TRAIN_LOSS, tags.LEARNING_RATE, tags.GRADIENT_NORM, tags.TOKENS_PER_SECOND),
    *(tags.VALIDATION_LOSS, tags.BEST_VALIDATION_LOSS),
    *("probe/rms/block_00", "probe/rms/block_01"),
)
STEPS, RUNS, QUICK_RUNS, MANY_RUNS, QUICK_MANY_RUNS = 2000, 50, 5, 1000, 20
OURS, TENSORBOARD, TBPARSE = "normlab", "tensorboard's EventAccumulator", "tbparse"
LEAST_TIMES, MOST_SECONDS, MOST_MIB = 20.0, 10.0, 1024.0


def write_runs(folder: Path, runs: int, steps: int) -> int:
    """Write runs as training does, with every tag at every step; returns the number of points."""
    from torch.utils.tensorboard import SummaryWriter

    for run in range(runs):
        values = np.random.default_rng(run).normal(size=(steps, len(TAGS)))
        # A queue that is never full: the writer's thread takes 25 µs a point.
        with SummaryWriter(str(folder / f"run{run:04d}"), max_queue=10_000) as writer:
            writer.add_text("record", "x" * 2000)
            for step, row in enumerate(values.tolist()):
                for tag, value in zip(TAGS, row, strict=True):
                    writer.add_scalar(tag, value, step)
    return runs * steps * len(TAGS)


def count_with_normlab(runs: list[Path]) -> int:
    """Read all runs and hold them; returns the number of points, as all readers do."""
    events = [read_events(run) for run in runs]
    return sum(len(series) for run in events for series in run.scalars.values())


def count_with_tensorboard(runs: list[Path]) -> int:
    """TensorBoard's own reader, which by default drops points beyond 10,000 a tag."""
    module: Any = import_module("tensorboard.backend.event_processing.event_accumulator")
    count = 0
    for run in runs:
        reader = module.EventAccumulator(str(run), size_guidance={"scalars": 0})
        reader.Reload()
        count += sum(len(reader.Scalars(tag)) for tag in reader.Tags()["scalars"])
    return count


def count_with_tbparse(runs: list[Path]) -> int:
    """tbparse, with the columns that the others give as well."""
    from tbparse import SummaryReader

    columns = {"dir_name", "wall_time"}
    return len(SummaryReader(str(runs[0].parent), extra_columns=columns).scalars)


READERS: dict[str, Callable[[list[Path]], int]] = {
    OURS: count_with_normlab,
    TENSORBOARD: count_with_tensorboard,
    TBPARSE: count_with_tbparse,
}


def time_reader(folder: str, reader: str, points: int) -> RunBlock:
    """In a worker: a block reads all runs of the folder, and every point."""
    runs = sorted(path for path in Path(folder).iterdir() if path.is_dir())

    def run_block() -> Block:
        began = time.perf_counter()
        count = READERS[reader](runs)
        seconds = time.perf_counter() - began
        if count != points:
            # A reader that drops points would win.
            raise NormlabError(f"{count} of {points} points were read")
        return {"seconds": seconds, "points": count, "peak_mib": read_peak_memory()}

    return run_block


def measure_read(settings: Settings) -> Json:
    """All readers on the same runs in turn, then normlab on many runs at once."""
    rounds = settings.choose_rounds(3, 1)
    runs, many = (QUICK_RUNS, QUICK_MANY_RUNS) if settings.quick else (RUNS, MANY_RUNS)
    many_title = f"{OURS}, {many} runs"
    with tempfile.TemporaryDirectory() as folder:
        settings.progress("writing event files")
        points = write_runs(Path(folder), runs, STEPS)
        many_points = points // runs * many

        def make_worker(title: str, reader: str, points: int) -> Contender:
            arguments = {"folder": folder, "reader": reader, "points": points}
            return WorkerProcess(title, time_reader, arguments)

        names = [name for name in READERS if name != TBPARSE or is_installed(TBPARSE)]
        workers = [make_worker(name, name, points) for name in names]
        samples = interleave(workers, rounds, settings.progress)
        for number in range(runs, many):
            source = Path(folder, f"run{number % runs:04d}")
            shutil.copytree(source, Path(folder, f"copy{number:04d}"))
        worker = make_worker(many_title, OURS, many_points)
        many_samples = interleave([worker], rounds, settings.progress)
    return evaluate_read(samples, many_samples, points, f"{runs} runs of {STEPS} steps")


def evaluate_read(samples: Samples, many_samples: Samples, points: int, size: str) -> Json:
    """Ratios to our reader, and the goals."""
    ours = column(samples[OURS], "seconds")
    columns: dict[str, ComputeNumber] = {
        "seconds": spread_of("seconds"),
        "peak memory, MiB": lambda blocks: quartile_spread([max(column(blocks, "peak_mib"))]),
    }
    ((title, many_blocks),) = many_samples.items()
    result = new_result(
        "read",
        "Reading event files",
        samples | many_samples,
        f"{points:,} points; each reader in a process of its own. Median and quartiles.",
        f"{title}: copies of those, {many_blocks[0]['points']:,} points, all held.",
    )
    table = add_table(
        result,
        f"{size} and {len(TAGS)} tags",
        "reader",
        samples,
        {
            "seconds": spread_of("seconds"),
            "points/s": lambda blocks: quartile_spread(
                [points / s for s in column(blocks, "seconds")]
            ),
            f"time over {OURS}'s": lambda blocks: ratio_spread(column(blocks, "seconds"), ours),
        },
        lambda name: "ours" if name == OURS else "peer",
    )
    add_table(result, "All at once", "reader", many_samples, columns)
    add_bars(result, table, "seconds")
    if TBPARSE in samples:
        times = ratio_spread(column(samples[TBPARSE], "seconds"), ours)
        what = f"time of {TBPARSE} over {OURS}'s, {table['title']}"
        add_goal(result, what, times, least=LEAST_TIMES)
    else:
        result["notes"].append(f"{TBPARSE} is not installed, and left out.")
    for head, most in zip(columns, (MOST_SECONDS, MOST_MIB), strict=True):
        add_goal(result, f"{title}, {head}", columns[head](many_blocks), most=most)
    return result
