"""The figure and the table of a learning-rate study show the numbers of `learning_rates`."""

from io import StringIO
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from every_figure import draw_all_figures
from learning_rate_runs import INITIAL, runs_by_rate, study_of_arms
from normlab.analysis import figures, sheet
from normlab.analysis.arms import group_runs
from normlab.analysis.figures import learning_rate_figure
from normlab.analysis.learning_rates import analyse_learning_rates
from normlab.analysis.result import analyse_study
from normlab.analysis.style import RC
from normlab.analysis.terminal_tables import rates_table

PRE = {1e-3: [2.0, 2.1], 1e-2: [1.5, 1.7], 1e-1: [9.0, 9.0]}
NONE = {1e-3: [2.5, 2.6], 1e-2: [2.0, None], 1e-1: [None, None]}


def drawn(*arms: list) -> Figure:
    rates = analyse_learning_rates(group_runs(study_of_arms(*arms).runs))
    assert rates is not None
    with matplotlib.rc_context(RC):
        figure = learning_rate_figure("study", rates)
        figure.draw_without_rendering()
    return figure


def curves(axes: Axes) -> list[list[float]]:
    lines = [line for line in axes.lines if len(np.asarray(line.get_xdata())) > 1]
    return [np.asarray(line.get_ydata()).tolist() for line in lines if line.get_linestyle() != "--"]


def test_a_curve_is_the_mean_of_the_losses_and_never_above_the_initial_one() -> None:
    first = drawn(runs_by_rate(PRE), runs_by_rate(NONE, "none", "any")).axes[0]
    pre, none = [one for one in curves(first) if len(one) >= 2 and one[0] != INITIAL]
    assert pre == pytest.approx([2.05, 1.6, INITIAL])
    assert none == pytest.approx([2.55, 2.0])
    assert first.get_xscale() == "log"
    assert "at initialization 4.00" in [text.get_text() for text in first.texts]


def test_what_diverged_stands_above_with_how_many() -> None:
    first = drawn(runs_by_rate(PRE), runs_by_rate(NONE, "none", "any")).axes[0]
    crosses = [line for line in first.lines if line.get_marker() == "x"]
    assert [np.asarray(line.get_xdata())[0] for line in crosses] == [1e-2, 1e-1]
    assert all(np.asarray(line.get_ydata())[0] > INITIAL for line in crosses)
    assert "1/2" in [text.get_text() for text in first.texts]


def test_below_stand_the_tuned_loss_and_the_sensitivity_best_first() -> None:
    _, tuned, sensitivity = drawn(runs_by_rate(NONE, "none", "any"), runs_by_rate(PRE)).axes
    assert [label.get_text() for label in tuned.get_yticklabels()] == ["rmsnorm · pre", "none"]
    assert [text.get_text() for text in tuned.texts] == ["at 1e-2", "at 1e-3"]
    means = [float(np.asarray(line.get_xdata())[0]) for line in sensitivity.lines
             if len(np.asarray(line.get_xdata())) == 1]  # fmt: skip
    assert means[0] == pytest.approx(((7.5 / 3 - 1.5) + (7.8 / 3 - 1.7)) / 2)


def test_other_settings_are_panels_with_shared_axes() -> None:
    arms = [runs_by_rate(PRE, model={"depth": depth}) for depth in (2, 4, 8)]
    axes = drawn(*arms).axes[:3]
    assert [one.get_title("left") for one in axes] == ["depth=2", "depth=4", "depth=8"]
    assert len({one.get_ylim() for one in axes}) == 1


def test_of_many_combinations_the_best_are_shown_and_the_rest_counted() -> None:
    arms = [
        runs_by_rate({rate: [loss + width / 9 for loss in losses] for rate, losses in PRE.items()},
              model={"width": width})
        for width in range(30)
    ]  # fmt: skip
    figure = drawn(*arms)
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles[:12] == [f"width={width}" for width in range(12)]
    assert "18 combinations of settings" in figure.subfigs[2].texts[0].get_text()


def test_nothing_that_finished_is_still_drawn() -> None:
    lost = {rate: [None] for rate in PRE}
    tuned = drawn(runs_by_rate(lost)).axes[1]
    assert [text.get_text() for text in tuned.texts] == ["none"]
    drawn(runs_by_rate(lost, initial=None))


def test_a_study_over_three_rates_gets_the_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheet, "save_figure", lambda figure, folder, name: [folder / name])
    two = {rate: losses for rate, losses in PRE.items() if rate < 1e-1}
    studies = [study_of_arms(runs_by_rate(losses)) for losses in (PRE, two)]
    names = [
        [path.name for path in draw_all_figures(analyse_study(study), tmp_path)]
        for study in studies
    ]
    assert [one.count("learning_rate") for one in names] == [1, 0]


def test_panels_without_a_best_rate_or_a_sensitivity_have_no_scale_and_say_why() -> None:
    lost: dict[float, list[float | None]] = {rate: [None, None] for rate in PRE}
    rates = analyse_learning_rates(group_runs(study_of_arms(runs_by_rate(lost)).runs))
    assert rates is not None
    figure = figures.learning_rate_figure("study", rates)
    _, tuned, sensitivity = figure.axes
    assert (tuned.get_xlabel(), sensitivity.get_xlabel()) == (
        *("no arm has a best rate", "no arm has one"),
    )
    assert [list(axes.get_xticks()) for axes in (tuned, sensitivity)] == [[], []]


def test_the_table_has_best_rate_tuned_loss_sensitivity_and_stability() -> None:
    from rich.console import Console

    study = study_of_arms(runs_by_rate(PRE), runs_by_rate(NONE, "none", "any"))
    result = analyse_study(study)
    assert result.rates is not None
    console = Console(width=80, record=True, file=StringIO())
    console.print(rates_table(result.rates, result.look))
    first, second = [line for line in console.export_text().splitlines() if "·" in line or
                     line.startswith(" none")]  # fmt: skip
    assert first.split()[3:5] == ["1e-2", "1.6000"]
    assert "0.1" in first.split()
    assert second.split()[1] == "1e-3"
    assert "3 of 6" in second
