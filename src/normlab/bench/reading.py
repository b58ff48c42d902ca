"""`read`: the suite around read.py, which writes the event files and has every reader read them."""

import importlib
from typing import Any

from normlab.analysis.spread import Spread, spread
from normlab.bench.result import Bar, Goal, Kind, Panel, Result, Row, Settings, Table

OURS, THEIRS = "normlab", "tbparse"
LEAST = 20.0
_STEPS, _RUNS, _QUICK_RUNS = 2000, 50, 5


def run(settings: Settings) -> Result:
    """Have all readers read the same runs, in turn."""
    read: Any = importlib.import_module("normlab.bench.read")
    rounds = settings.times(3, 1)
    settings.progress("writing event files, and reading them")
    runs = _QUICK_RUNS if settings.quick else _RUNS
    found: dict[str, Any] = read.run(runs=runs, rounds=rounds, steps=_STEPS)
    return evaluated(found, rounds)


def evaluated(found: dict[str, Any], rounds: int) -> Result:
    """The table and the goal from what read.py gives: [median, lowest, highest] by reader."""
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
    missing = () if goals else (f"{THEIRS} is not installed, and left out.",)
    return Result(
        "read",
        "Reading event files",
        notes=(f"{found['points']:,} points. Median, lowest and highest over rounds.", *missing),
        tables=(Table(size, tuple(rows[0].values), tuple(rows), "reader"),),
        goals=goals,
        panels=(Panel(size, "seconds", bars=bars),),
    )


def _spread(numbers: list[float], rounds: int) -> Spread:
    median, lowest, highest = numbers
    return Spread(median, lowest, highest, rounds)


def _kind(name: str) -> Kind:
    return "ours" if name.startswith(OURS) else "peer"
