"""The suite `read` makes of read.py's numbers what the other suites make of theirs."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from normlab.analysis.spread import Spread
from normlab.bench.reading import evaluated, run
from normlab.bench.result import Settings

FOUND: dict[str, Any] = {
    "runs": 50,
    "steps": 2000,
    "tags": 8,
    "points": 800_000,
    "results": {
        "normlab": {
            "seconds": [0.5, 0.4, 0.6],
            "times_ours": [1.0, 1.0, 1.0],
            "points_per_second": 1_600_000.0,
        },
        "tbparse": {
            "seconds": [11.0, 10.0, 12.0],
            "times_ours": [22.0, 19.0, 25.0],
            "points_per_second": 72_727.0,
        },
    },
}


def test_the_goal_is_the_ratio_to_tbparse() -> None:
    result = evaluated(FOUND, rounds=3)
    (goal,) = result.goals
    assert goal.value == Spread(22.0, 19.0, 25.0, 3)
    assert goal.reached
    assert [(row.name, row.kind) for row in result.tables[0].rows] == [
        ("normlab", "ours"),
        ("tbparse", "peer"),
    ]
    assert [bar.value.median for bar in result.panels[0].bars] == [0.5, 11.0]


def test_without_tbparse_there_is_no_goal_and_the_notes_say_so() -> None:
    less = {**FOUND, "results": {"normlab": FOUND["results"]["normlab"]}}
    result = evaluated(less, rounds=3)
    assert result.goals == ()
    assert "tbparse is not installed, and left out." in result.notes


def test_the_settings_reach_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, int]] = []

    def read(**settings: int) -> dict[str, Any]:
        asked.append(settings)
        return FOUND

    monkeypatch.setitem(sys.modules, "normlab.bench.read", SimpleNamespace(run=read))
    run(Settings(rounds=4))
    run(Settings(quick=True))
    assert asked == [
        {"runs": 50, "rounds": 4, "steps": 2000},
        {"runs": 5, "rounds": 1, "steps": 2000},
    ]
