"""Reports with every kind of content."""

import pytest

from normlab.analysis.spread import Spread, spread
from normlab.bench.result import (
    Bar,
    Goal,
    Grid,
    Line,
    Machine,
    Panel,
    Report,
    Result,
    Row,
    Table,
)

MACHINE = Machine(
    date="2026-11-24",
    cpu="a processor",
    cores=2,
    memory_gib=8.0,
    threads=2,
    system="a system",
    versions={"torch": "2.13.0"},
    load=(0.1, 1.2),
)


@pytest.fixture
def report() -> Report:
    fast, slow = spread([1.0, 2.0, 3.0]), spread([4.0, 5.0, 9.0])
    bars = (Bar("ours", fast, "ours"), Bar("theirs", slow, "peer"), Bar("limit", fast, "limit"))
    curve = Line("ms", (1.0, 2.0, 4.0), (fast, fast, slow), Spread(0.5, 0.2, 0.8, 3))
    rows = (Row("ours", {"ms": fast, "ratio": slow}, "ours"), Row("a | b", {"ms": slow}))
    result = Result(
        suite="step",
        title="A title",
        notes=("A note.",),
        tables=(Table("a table", ("ms", "ratio"), rows, "contender"),),
        goals=(
            Goal("speed", fast, least=2.0),
            Goal("cost", slow, most=4.5),
            Goal("a number", fast),
        ),
        panels=(
            Panel("bars", "ms", bars=bars, mark=1.0),
            Panel("curves", "width", "ms", lines=(curve,)),
            Panel("grid", grid=Grid(("a", "b"), ("x", "y"), ((0.5, 1.0), (None, 8.0)))),
        ),
        samples={"ours": [{"ms": 1.0}, {"ms": 2.0}, {"ms": 3.0}]},
    )
    return Report("python scripts/bench.py step", 12.5, MACHINE, result, quick=True)
