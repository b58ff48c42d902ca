"""A curve that does not show its whole run never passes as one that does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes

from normlab.analysis import figures
from normlab.analysis.arms import group_runs
from normlab.analysis.curves import averaged_runs, describe_ending, single_runs
from normlab.analysis.plot import write_study_report
from normlab.analysis.result import analyse_study
from normlab.analysis.style import RC
from normlab.archive import tags
from normlab.archive.record import RunRecord
from normlab.archive.study import read_study


def cut(folder: Path, share: float = 0.5) -> None:
    """The run's event file ends early."""
    (path,) = folder.glob("events*")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def pierce(folder: Path, start: float, end: float) -> None:
    """A stretch of the run's event file, given in shares of its size, is overwritten."""
    (path,) = folder.glob("events*")
    data = bytearray(path.read_bytes())
    hole = slice(int(len(data) * start), int(len(data) * end))
    data[hole] = bytes(len(data[hole]))
    path.write_bytes(bytes(data))


def lines(drawn: Axes) -> list[list[float]]:
    """The steps of every line of a loss: not of floors, circles and crosses."""
    steps = [np.asarray(line.get_xdata()).tolist() for line in drawn.lines]
    return [one for one in steps if len(one) > 2]


def axes(study: Path, tag: str = tags.TRAIN_LOSS) -> Axes:
    with matplotlib.rc_context(RC):
        return figures.loss_figure(analyse_study(read_study(study)).plan, "Loss", tag).axes[0]


def circles(drawn: Axes) -> list[float]:
    """Where curves are left open."""
    open_ends = [line for line in drawn.lines if line.get_markerfacecolor() == "white"]
    return [float(np.asarray(line.get_xdata())[0]) for line in open_ends]


def legend(study: Path) -> list[str]:
    with matplotlib.rc_context(RC):
        plan = analyse_study(read_study(study)).plan
        figure = figures.loss_figure(plan, "Training loss", tags.TRAIN_LOSS)
    return [t.get_text() for part in figure.subfigs for l in part.legends for t in l.get_texts()]


@pytest.mark.usefixtures("without_figures")
def test_a_shortened_curve_is_in_no_mean_and_is_marked_everywhere(maker: Any) -> None:
    records = [maker.run(seed=seed, steps=100) for seed in range(3)]
    assert circles(axes(maker.folder)) == []
    cut(maker.folder / records[1].name)

    (arm,) = group_runs(read_study(maker.folder).runs)
    assert [run.record.seed for run in averaged_runs(arm)] == [0, 2]
    assert [run.record.seed for run in single_runs(arm)] == [1]
    assert legend(maker.folder) == ["rmsnorm · pre (1 of 3 curves incomplete)"]
    for tag in (tags.TRAIN_LOSS, tags.VALIDATION_LOSS):
        (end,) = circles(axes(maker.folder, tag))
        assert end < 60
    done = write_study_report(maker.folder)
    told = " ".join(done.left_out)
    assert "cut off" in told
    assert "of 100 training losses" in told
    assert records[1].name in told
    # What it reached is in its run.json, and counts.
    assert len(done.result.summaries[0].arm.with_state("finished")) == 3


def test_a_shortened_curve_alone_is_drawn_and_marked(maker: Any) -> None:
    record = maker.run(steps=100)
    cut(maker.folder / record.name)
    assert legend(maker.folder) == ["rmsnorm · pre (curve incomplete)"]
    assert len(circles(axes(maker.folder))) == 1


EVERY_50 = {"trainer": {"val_every": 50}}


@pytest.mark.parametrize("steps", [500, 2000])
def test_a_hole_is_drawn_as_a_hole_with_the_mark_at_it(steps: int, maker: Any) -> None:
    record = maker.run(steps=steps, config=EVERY_50)
    pierce(maker.folder / record.name, 0.4, 0.6)
    drawn = axes(maker.folder)
    before, after = lines(drawn)
    assert before == list(range(int(before[-1]) + 1))
    assert after == list(range(int(after[0]), int(after[-1]) + 1))
    assert 0.3 * steps < before[-1] < 0.45 * steps < 0.55 * steps < after[0] < 0.65 * steps
    assert after[-1] > 0.95 * steps
    assert circles(drawn) == [before[-1]]
    # No value before the hole is smoothed with one behind it.
    left = next(line for line in drawn.lines if len(np.asarray(line.get_xdata())) > 2)
    end = float(np.asarray(left.get_ydata())[-1])
    series = read_study(maker.folder).runs[0].events.scalars["train/loss"]
    assert end == series.values[series.steps == before[-1]][0]

    validated, rest = lines(axes(maker.folder, tags.VALIDATION_LOSS))
    assert validated[-1] == circles(axes(maker.folder, tags.VALIDATION_LOSS))[0]
    assert np.diff(validated + rest).max() > 50
    assert rest[-1] == steps


def test_a_hole_at_the_start_is_marked_where_the_curve_begins(maker: Any) -> None:
    record = maker.run(steps=500, config=EVERY_50)
    pierce(maker.folder / record.name, 0.0, 0.2)
    for tag in (tags.TRAIN_LOSS, tags.VALIDATION_LOSS):
        drawn = axes(maker.folder, tag)
        (steps,) = lines(drawn)
        assert steps[0] > 0
        assert circles(drawn) == [steps[0]]


def test_a_curve_that_lacks_nothing_is_not_marked_for_what_another_lacks(maker: Any) -> None:
    record = maker.run(steps=500, config=EVERY_50)
    (path,) = (maker.folder / record.name).glob("events*")
    data = bytearray(path.read_bytes())
    data[data.index(b"val/loss", len(data) // 2)] ^= 1
    path.write_bytes(bytes(data))
    assert circles(axes(maker.folder)) == []
    assert len(lines(axes(maker.folder))) == 1
    (hole,) = circles(axes(maker.folder, tags.VALIDATION_LOSS))
    assert 200 <= hole <= 300


def test_a_hole_and_a_lost_end_are_both_marked(maker: Any) -> None:
    record = maker.run(steps=500, config=EVERY_50)
    cut(maker.folder / record.name, 0.8)
    pierce(maker.folder / record.name, 0.4, 0.6)
    for tag in (tags.TRAIN_LOSS, tags.VALIDATION_LOSS):
        drawn = axes(maker.folder, tag)
        assert circles(drawn) == [line[-1] for line in lines(drawn)]
        assert len(circles(drawn)) == 2


def test_where_a_shortened_run_diverged_is_not_claimed(maker: Any) -> None:
    record = maker.run(steps=100, diverge_at=80)
    cut(maker.folder / record.name)
    drawn = axes(maker.folder)
    assert not [line for line in drawn.lines if line.get_marker() == "x"]
    assert len(circles(drawn)) == 1
    assert legend(maker.folder) == ["rmsnorm · pre (diverged at step 80; curve incomplete)"]


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("seeds", [1, 2])
def test_an_interrupted_run_is_drawn_open_and_not_counted(seeds: int, maker: Any) -> None:
    for seed in range(seeds - 1):
        maker.run(seed=seed, steps=100)
    record = maker.run(seed=5, steps=60, state="interrupted")
    (arm,) = group_runs(read_study(maker.folder).runs)
    assert describe_ending(arm) == ("interrupted" if seeds == 1 else "1 of 2 interrupted")
    assert circles(axes(maker.folder)) == [60]
    done = write_study_report(maker.folder)
    (summarised,) = done.result.summaries
    assert len(summarised.arm.with_state("finished")) == seeds - 1
    assert len(summarised.arm.with_state("interrupted")) == 1
    (told,) = [sentence for sentence in done.result.warnings if "Interrupted" in sentence]
    assert f"{record.name} at step 60" in told


def test_a_run_being_written_is_drawn_open_without_a_complaint(
    maker: Any, draw_only: Callable
) -> None:
    draw_only("training_loss")
    record = maker.run(steps=60, state="running")
    cut(maker.folder / record.name, 0.9)
    assert len(circles(axes(maker.folder))) == 1
    assert write_study_report(maker.folder).left_out == []


@pytest.mark.parametrize("name", ["$\\frac{$", "a$b$c", "<b>", "[bold]", "σ\n"])
def test_a_name_is_drawn_as_it_is(name: str, maker: Any, draw_only: Callable) -> None:
    draw_only("training_loss", "final_validation_loss")  # in a legend, and at an axis
    record: RunRecord = maker.run(norm=name, name="run", steps=50)
    assert record.norm == name
    done = write_study_report(maker.folder)
    assert done.result.arms[0].norm == name
    assert (len(done.figures), done.left_out) == (4, [])
