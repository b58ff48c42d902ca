"""The suite `read` times readers that read everything."""

from pathlib import Path

import pytest

from normlab.bench import read


def test_every_contender_reads_every_point_and_is_compared_with_ours() -> None:
    found = read.run(runs=2, rounds=1, steps=20)
    assert found["points"] == 2 * 20 * len(read.TAGS)
    results = found["results"]
    assert isinstance(results, dict)
    assert read.OURS in results
    assert results[read.OURS]["times_ours"] == [1.0, 1.0, 1.0]
    for result in results.values():
        assert result["seconds"][0] > 0


def test_a_reader_that_drops_points_is_not_timed(tmp_path: Path) -> None:
    points = read.write_runs(tmp_path, runs=1, steps=3)
    ways = read.contenders(tmp_path) | {"lossy": lambda: points - 1}
    with pytest.raises(ValueError, match="lossy gave 23 of 24 points"):
        read.measure(ways, points, rounds=1)
