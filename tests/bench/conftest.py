"""A report with every kind of content."""

import copy
from dataclasses import asdict
from typing import Any

import pytest

from normlab.analysis.statistics import Spread, quartile_spread

FAST, SLOW = asdict(quartile_spread([1.0, 2.0, 3.0])), asdict(quartile_spread([4.0, 5.0, 9.0]))


@pytest.fixture
def report() -> dict[str, Any]:
    kinds = (("ours", FAST, "ours"), ("theirs", SLOW, "peer"), ("limit", FAST, "limit"))
    bars = [{"name": name, "value": value, "kind": kind} for name, value, kind in kinds]
    curve = {
        "name": "ms",
        "x": [1.0, 2.0, 4.0],
        "y": [FAST, FAST, SLOW],
        "exponent": asdict(Spread(0.5, 0.2, 0.8, 3)),
    }
    grid = {"rows": ["a", "b"], "columns": ["x", "y"], "values": [[0.5, 1.0], [None, 8.0]]}
    rows = [
        {"name": "ours", "kind": "ours", "values": {"ms": FAST, "ratio": SLOW}},
        {"name": "a | b", "kind": "other", "values": {"ms": SLOW}},
    ]
    content = {
        "command": "python scripts/bench/main.py step",
        "seconds": 12.5,
        "machine": {
            "date": "2026-11-24",
            "cpu": "a processor",
            "cores": 2,
            "memory_gib": 8.0,
            "threads": 2,
            "system": "a system",
            "versions": {"torch": "2.13.0"},
            "load": [0.1, 1.2],
        },
        "result": {
            "suite": "step",
            "title": "A title",
            "notes": ["A note."],
            "tables": [
                {"title": "a table", "first": "who", "columns": ["ms", "ratio"], "rows": rows}
            ],
            "goals": [
                {"what": "speed", "value": FAST, "least": 2.0, "most": None},
                {"what": "cost", "value": SLOW, "most": 4.5},
                {"what": "a number", "value": FAST},
            ],
            "panels": [
                {"title": "bars", "x_label": "ms", "bars": bars},
                {"title": "curves", "x_label": "width", "y_label": "ms", "lines": [curve]},
                {"title": "grid", "grid": grid},
            ],
            "samples": {"ours": [{"ms": 1.0}, {"ms": 2.0}, {"ms": 3.0}]},
        },
        "quick": True,
    }
    return copy.deepcopy(content)
