"""`read`: the suite around read.py, which writes the event files and has every reader read them."""

import importlib
import tempfile
from pathlib import Path
from typing import Any

from normlab.analysis.spread import Spread, spread
from normlab.bench.contender import Samples, interleave
from normlab.bench.many import copies
from normlab.bench.process import Process
from normlab.bench.result import Bar, Goal, Kind, Panel, Result, Row, Settings, Table, column
from normlab.errors import NormlabError

OURS, THEIRS = "normlab", "tbparse"
LEAST = 20.0
MOST_SECONDS, MOST_MIB = 10.0, 1024.0
_STEPS, _RUNS, _QUICK_RUNS = 2000, 50, 5
_MANY, _QUICK_MANY = 1000, 20


def run(settings: Settings) -> Result:
    """Have all readers read the same runs, in turn."""
    read: Any = importlib.import_module("normlab.bench.read")
    rounds = settings.times(3, 1)
    settings.progress("writing event files, and reading them")
    runs = _QUICK_RUNS if settings.quick else _RUNS
    found: dict[str, Any] = read.run(runs=runs, rounds=rounds, steps=_STEPS)
    many = _QUICK_MANY if settings.quick else _MANY
    with tempfile.TemporaryDirectory() as place:
        settings.progress(f"writing {many} runs")
        points = read.write_runs(Path(place), runs, _STEPS) // runs * many
        copies(Path(place), many)
        samples = interleave([at_once(many, place)], rounds, progress=settings.progress)
    return evaluated(found, rounds, many, points, samples)


def at_once(many: int, place: str) -> Process:
    """A process that reads all runs of a folder and holds them."""
    return Process(f"{OURS}, {many} runs", "normlab.bench.many:read_all", {"folder": place})


def evaluated(
    found: dict[str, Any], rounds: int, many: int, points: int, samples: Samples
) -> Result:
    """The tables and the goals.

    From what read.py gives, [median, lowest, highest] by reader; and from the process that read
    `many` runs, whose points are counted.

    Raises:
        NormlabError: it did not read all points.
    """
    rows = []
    for name, one in found["results"].items():
        values = {
            "seconds": _spread(one["seconds"], rounds),
            "points/s": spread([one["points_per_second"]]),
            f"time over {OURS}'s": _spread(one["times_ours"], rounds),
        }
        rows.append(Row(name, values, _kind(name)))
    size = f"{found['runs']} runs of {found['steps']} steps and {found['tags']} tags"
    bars = tuple(Bar(row.name, row.values["seconds"], row.kind) for row in rows)
    goals = tuple(
        Goal(f"time of {THEIRS} over {OURS}'s, {size}", row.values[f"time over {OURS}'s"], LEAST)
        for row in rows
        if row.name == THEIRS
    )
    name, whole = _at_once(points, samples)
    missing = () if goals else (f"{THEIRS} is not installed, and left out.",)
    return Result(
        "read",
        "Reading event files",
        notes=(
            f"{found['points']:,} points. Median, lowest and highest over rounds.",
            f"{many} runs are copies of those, {points:,} points, all held.",
            *missing,
        ),
        tables=(
            Table(size, tuple(rows[0].values), tuple(rows), "reader"),
            Table("All at once", tuple(whole), (Row(name, whole, "ours"),), "reader"),
        ),
        goals=(
            *goals,
            Goal(f"{name} of the same size, seconds", whole["seconds"], most=MOST_SECONDS),
            Goal(f"{name}, peak memory, MiB", whole["peak memory, MiB"], most=MOST_MIB),
        ),
        samples=samples,
        panels=(Panel(size, "seconds", bars=bars),),
    )


def _at_once(points: int, samples: Samples) -> tuple[str, dict[str, Spread]]:
    """The one that read many runs, and what it took."""
    (name, read), *_ = samples.items()
    if any(one["points"] != points for one in read):
        raise NormlabError(f"{name}: {read[0]['points']:.0f} of {points} points were read.")
    whole = {"seconds": spread(column(read, "seconds"))}
    whole["peak memory, MiB"] = spread([max(column(read, "peak_mib"))])
    return name, whole


def _spread(numbers: list[float], rounds: int) -> Spread:
    median, lowest, highest = numbers
    return Spread(median, lowest, highest, rounds)


def _kind(name: str) -> Kind:
    return "ours" if name.startswith(OURS) else "peer"
