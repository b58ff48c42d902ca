"""A curve that does not show its whole run never passes as one that does."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes

from normlab.analysis import figures
from normlab.analysis.arms import group
from normlab.analysis.curves import averaged, ending, single
from normlab.analysis.plot import report
from normlab.analysis.style import RC
from normlab.archive.folder import read_study
from normlab.archive.record import RunRecord


def cut(folder: Path, share: float = 0.5) -> None:
    """The run's event file ends early."""
    (path,) = folder.glob("events*")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def axes(study: Path, name: str = "training_loss") -> Axes:
    with matplotlib.rc_context(RC):
        return getattr(figures, name)(figures.plan(read_study(study))).axes[0]  # type: ignore[no-any-return]


def circles(drawn: Axes) -> list[float]:
    """Where curves are left open."""
    open_ends = [line for line in drawn.lines if line.get_markerfacecolor() == "white"]
    return [float(np.asarray(line.get_xdata())[0]) for line in open_ends]


def legend(study: Path) -> list[str]:
    with matplotlib.rc_context(RC):
        figure = figures.training_loss(figures.plan(read_study(study)))
    return [t.get_text() for part in figure.subfigs for l in part.legends for t in l.get_texts()]


def test_a_shortened_curve_is_in_no_mean_and_is_marked_everywhere(maker: Any) -> None:
    records = [maker.run(seed=seed, steps=100) for seed in range(3)]
    assert circles(axes(maker.folder)) == []
    cut(maker.folder / records[1].name)

    (arm,) = group(read_study(maker.folder).runs)
    assert [run.record.seed for run in averaged(arm)] == [0, 2]
    assert [run.record.seed for run in single(arm)] == [1]
    assert legend(maker.folder) == ["rmsnorm · pre (1 of 3 curves incomplete)"]
    for name in ("training_loss", "validation_loss"):
        (end,) = circles(axes(maker.folder, name))
        assert end < 60
    done = report(maker.folder)
    told = " ".join(done.left_out)
    assert "cut off" in told
    assert "of 100 training losses" in told
    assert records[1].name in told
    # What it reached is in its run.json, and counts.
    assert done.summaries[0].finished == 3


def test_a_shortened_curve_alone_is_drawn_and_marked(maker: Any) -> None:
    record = maker.run(steps=100)
    cut(maker.folder / record.name)
    assert legend(maker.folder) == ["rmsnorm · pre (curve incomplete)"]
    assert len(circles(axes(maker.folder))) == 1


def test_where_a_shortened_run_diverged_is_not_claimed(maker: Any) -> None:
    record = maker.run(steps=100, diverge_at=80)
    cut(maker.folder / record.name)
    drawn = axes(maker.folder)
    assert not [line for line in drawn.lines if line.get_marker() == "x"]
    assert len(circles(drawn)) == 1
    assert legend(maker.folder) == ["rmsnorm · pre (diverged at step 80; curve incomplete)"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_an_interrupted_run_is_drawn_open_and_not_counted(seeds: int, maker: Any) -> None:
    for seed in range(seeds - 1):
        maker.run(seed=seed, steps=100)
    record = maker.run(seed=5, steps=60, state="interrupted")
    (arm,) = group(read_study(maker.folder).runs)
    assert ending(arm) == ("interrupted" if seeds == 1 else "1 of 2 interrupted")
    assert circles(axes(maker.folder)) == [60]
    done = report(maker.folder)
    assert (done.summaries[0].finished, done.summaries[0].interrupted) == (seeds - 1, 1)
    (note,) = done.left_out
    assert f"{record.name} at step 60" in note


def test_a_run_being_written_is_drawn_open_without_a_complaint(maker: Any) -> None:
    record = maker.run(steps=60, state="running")
    cut(maker.folder / record.name, 0.9)
    assert len(circles(axes(maker.folder))) == 1
    assert report(maker.folder).left_out == []


@pytest.mark.parametrize("name", ["$\\frac{$", "a$b$c", "<b>", "[bold]", "σ\n"])
def test_a_name_is_drawn_as_it_is(name: str, maker: Any) -> None:
    record: RunRecord = maker.run(norm=name, name="run", steps=50)
    assert record.norm == name
    assert report(maker.folder).summaries[0].norm == name
