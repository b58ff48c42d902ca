"""Exponents are those that were put in, and the search finds the largest that fits."""

from pathlib import Path

import pytest

from normlab.bench import scaling
from normlab.bench.result import Report, Settings
from normlab.bench.shapes import NANO
from normlab.errors import NormlabError


def test_the_exponent_of_a_power_law_is_found_exactly() -> None:
    x = [1.0, 2.0, 4.0, 8.0]
    found = scaling.exponent(x, [3 * one**1.5 for one in x])
    assert found.median == pytest.approx(1.5)
    assert found.low == pytest.approx(1.5)
    assert found.high == pytest.approx(1.5)


def test_the_interval_holds_the_exponent_and_grows_with_the_noise() -> None:
    x = [1.0, 2.0, 4.0, 8.0, 16.0]
    noise = [1.05, 0.96, 1.02, 0.95, 1.03]
    found = scaling.exponent(x, [one**2 * error for one, error in zip(x, noise, strict=True)])
    assert found.low < 2 < found.high
    assert 0.02 < found.high - found.low < 0.4


@pytest.mark.parametrize("there", range(15))
def test_the_search_finds_the_largest_that_fits(there: int) -> None:
    asked: list[int] = []

    def fits(size: int) -> bool:
        asked.append(size)
        return size <= there

    assert scaling.largest(fits, 2, 64) == there
    assert len(asked) == len(set(asked)) <= 8


def test_the_search_stops_at_the_most() -> None:
    assert scaling.largest(lambda size: True, 2, 8) == 7


def test_an_axis_changes_one_size_and_keeps_the_width_of_heads() -> None:
    shapes = scaling.along("width", (64, 128, 256))
    assert [shape.width for shape in shapes] == [64, 128, 256]
    assert {shape.width // shape.heads for shape in shapes} == {32}
    assert shapes[1] == NANO
    assert {(shape.depth, shape.context, shape.vocabulary) for shape in shapes} == {(4, 64, 65)}


def test_the_family_holds_the_recipe() -> None:
    shape = scaling.family(6)
    assert (shape.depth, shape.heads, shape.width, shape.context) == (6, 6, 384, 256)


def test_what_needs_more_memory_than_the_limit_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scaling, "QUICK_GIB", 0.05)
    with pytest.raises(NormlabError, match=r"no model trains in 0.05 GiB here: .*size 1"):
        scaling.run(Settings(quick=True, shapes=("largest",), threads=1))


@pytest.mark.slow
def test_an_axis_is_measured_fitted_and_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from normlab.bench.main import main

    monkeypatch.setattr(scaling, "AXES", {"depth": ((1, 4), (1, 4))})
    arguments = ("scaling", "--quick", "--rounds", "1", "--threads", "1", "--shapes", "depth")
    main([*arguments, "--out", str(tmp_path)])
    report = Report.read(tmp_path / "scaling" / "scaling.json")
    exponents, sizes = report.result.tables
    assert [row.name for row in sizes.rows] == ["1", "4"]
    small, large = (row.values for row in sizes.rows)
    assert small["ms a step"].median < large["ms a step"].median
    assert small["parameters, M"].median < large["parameters, M"].median
    assert 0 < exponents.rows[0].values["ms a step"].median < 1.5
