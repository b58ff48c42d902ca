"""The suite `read` makes of read.py's numbers what the other suites make of theirs."""

from typing import Any

import pytest

from normlab.analysis.spread import Spread
from normlab.bench import reading
from normlab.bench.contender import Samples
from normlab.bench.reading import evaluated
from normlab.bench.result import Settings
from normlab.errors import NormlabError

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


MANY: Samples = {"normlab, 9 runs": [{"seconds": 9.0, "points": 99, "peak_mib": 1500.0}]}


def test_the_goals_are_the_ratio_to_tbparse_and_what_many_runs_take() -> None:
    result = evaluated(FOUND, 3, 9, 99, MANY)
    goal, seconds, memory = result.goals
    assert (seconds.value.median, seconds.reached) == (9.0, True)
    assert (memory.value.median, memory.reached) == (1500.0, False)
    assert goal.value == Spread(22.0, 19.0, 25.0, 3)
    assert goal.reached
    assert [(row.name, row.kind) for row in result.tables[0].rows] == [
        ("normlab", "ours"),
        ("tbparse", "peer"),
    ]
    assert [bar.value.median for bar in result.panels[0].bars] == [0.5, 11.0]


def test_without_tbparse_there_is_no_goal_and_the_notes_say_so() -> None:
    less = {**FOUND, "results": {"normlab": FOUND["results"]["normlab"]}}
    result = evaluated(less, 3, 9, 99, MANY)
    assert len(result.goals) == 2
    assert "tbparse is not installed, and left out." in result.notes


def test_points_that_were_not_read_are_no_result() -> None:
    with pytest.raises(NormlabError, match="99 of 100 points"):
        evaluated(FOUND, 3, 9, 100, MANY)


def test_many_runs_are_written_and_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_STEPS", 10), ("_QUICK_RUNS", 2), ("_QUICK_MANY", 5)):
        monkeypatch.setattr(reading, name, value)
    result = reading.run(Settings(quick=True))
    assert result.samples["normlab, 5 runs"][0]["points"] == 5 * 10 * 8
    assert result.tables[0].title == "2 runs of 10 steps and 8 tags"
    assert result.tables[1].rows[0].name == "normlab, 5 runs"
