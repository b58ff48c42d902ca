import struct
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from every_figure import draw_all_figures
from normlab.analysis import figures, panels, sheet
from normlab.analysis.arms import group_runs
from normlab.analysis.curves import loss_limits, mean_curve
from normlab.analysis.result import FigurePlan, analyse_study, plan_figures
from normlab.analysis.statistics import running_mean, smoothing_window
from normlab.analysis.style import RC
from normlab.archive import tags
from normlab.archive.study import Study, read_study

NAMES = ["comparison", "training_loss", "validation_loss", "final_validation_loss"]


def panel(figure: Figure, title: str = "") -> Axes:
    (found,) = [axes for axes in figure.axes if axes.get_title("left") == title]
    return found


def legend(figure: Figure) -> list[str]:
    (only,) = [legend for part in figure.subfigs for legend in part.legends]
    return [text.get_text() for text in only.get_texts()]


def note(figure: Figure) -> str:
    return figure.subfigs[2].texts[0].get_text()


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def plan_of(study: Study) -> FigurePlan:
    return plan_figures(study.name, group_runs(study.runs))


BUILDS = {
    "comparison": figures.comparison_figure,
    "training_loss": partial(figures.loss_figure, title="Training loss", tag=tags.TRAIN_LOSS),
    "validation_loss": partial(
        figures.loss_figure, title="Validation loss", tag=tags.VALIDATION_LOSS
    ),
    "final_validation_loss": figures.final_validation_loss_figure,
}


def build(study: Study, name: str) -> Figure:
    with matplotlib.rc_context(RC):
        figure = BUILDS[name](plan_of(study))
        figure.draw_without_rendering()
        return figure


@pytest.fixture
def four_arms(maker: Any) -> Study:
    for seed in range(3):
        maker.run("rmsnorm", "pre", seed, level=1.52)
        maker.run("layernorm", "pre", seed, level=1.55)
        maker.run("layernorm", "post", seed, level=1.6, diverge_at=230 if seed == 1 else None)
    maker.run("none", "any", 0, diverge_at=120)
    return read_study(maker.folder)


def test_every_figure_is_written_wide_enough_and_the_same_every_time(
    maker: Any, tmp_path: Path
) -> None:
    maker.run(steps=100)
    study = read_study(maker.folder)
    first, second = tmp_path / "first", tmp_path / "second"
    files = draw_all_figures(analyse_study(study), first)
    assert [path.name for path in files] == [
        f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")
    ]
    assert sorted(first.iterdir()) == sorted(files)  # no drafts left
    for path in first.glob("*.png"):
        width, height = struct.unpack(">II", path.read_bytes()[16:24])
        assert width >= 1600
        assert height < 1.5 * width
    draw_all_figures(analyse_study(study), second)
    for path in files:
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name
    assert b"<dc:date>" not in (first / "comparison.svg").read_bytes()


def test_the_legend_names_every_arm_and_how_it_ended(four_arms: Study) -> None:
    expected = [
        "layernorm · post (1 of 3 diverged at step 230)",
        "layernorm · pre",
        "rmsnorm · pre",
        "none (diverged at step 120)",
    ]
    assert legend(build(four_arms, "comparison")) == expected
    assert legend(build(four_arms, "training_loss")) == expected


def test_a_line_is_the_mean_over_finished_seeds_of_the_running_mean(four_arms: Study) -> None:
    axes = panel(build(four_arms, "training_loss"))
    (line,) = [line for line in axes.lines if line.get_label() == "rmsnorm · pre"]
    runs = [run for run in four_arms.runs if run.record.norm == "rmsnorm"]
    values = np.stack([run.events.scalars[tags.TRAIN_LOSS].values for run in runs])
    window = smoothing_window(501)
    expected = np.mean([running_mean(one, window) for one in values], axis=0)
    shown = np.asarray(line.get_ydata())
    assert len(shown) == 501 - window // 2
    np.testing.assert_allclose(shown, expected[: len(shown)])
    assert line.get_color() == "#0072B2"


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_running_mean_is_named_where_the_run_is_long_enough_for_one(
    seeds: int, maker: Any
) -> None:
    for seed in range(seeds):
        maker.run("rmsnorm", "pre", seed, steps=500)
        maker.run("rmsnorm", "post", seed, steps=50)
    study = read_study(maker.folder)
    for placement, named in (("pre", True), ("post", False)):
        runs = [run for run in study.runs if run.record.placement == placement]
        figure = build(Study(study.folder, runs), "training_loss")
        assert ("running mean" in note(figure)) == named


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ((3e-3,), ""),
        (
            (3e-3, 1e-2),
            "Only lr=3e-3 is shown; training_loss, validation_loss and final_validation_loss show "
            "the other rates too.",
        ),
        (
            (1e-3, 3e-3, 1e-2),
            "Only lr=3e-3 is shown; the figure learning_rate has each arm at its own best rate.",
        ),
    ],
)
def test_the_comparison_of_a_study_says_which_of_several_learning_rates_it_shows(
    rates: tuple[float, ...],
    said: str,
    maker: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for rate in rates:
        for norm in ("rmsnorm", "layernorm"):
            level = 1.5 + abs(rate - 3e-3)
            maker.run(norm, config={"optimizer": {"lr": rate}}, level=level, steps=100)
    drawn: dict[str, Figure] = {}

    def save(figure: Figure, folder: Path, name: str) -> list[Path]:
        drawn[name] = figure
        return []

    monkeypatch.setattr(sheet, "save_figure", save)
    draw_all_figures(analyse_study(read_study(maker.folder)), tmp_path)
    assert ("learning_rate" in drawn) == (len(rates) == 3)
    words = note(drawn["comparison"])
    assert ("is shown" in words) == bool(said)
    assert said in words.replace("\n", " ")


def test_a_rate_that_no_name_has_is_said_too(maker: Any) -> None:
    """Of many settings few name a facet, and its title has those alone."""
    for at, rate in enumerate((1e-3, 3e-3), 1):
        settings = {"model": {"depth": at, "width": at, "heads": at}, "optimizer": {"lr": rate}}
        maker.run(config=settings, steps=100)
    figure = build(read_study(maker.folder), "comparison")
    assert "lr" not in figure.subfigs[0].texts[0].get_text()
    assert "is shown; training_loss" in note(figure)


def test_a_band_spans_the_seeds_and_one_seed_shows_what_was_measured(four_arms: Study) -> None:
    axes = panel(build(four_arms, "training_loss"))
    assert len(axes.collections) == 3  # the arms with several finished seeds
    arm = next(arm for arm in group_runs(four_arms.runs) if arm.name == "layernorm · pre")
    found = mean_curve(arm.runs, tags.VALIDATION_LOSS)
    assert found is not None
    assert (found.low <= found.mean).all()
    assert (found.mean <= found.high).all()
    values = [run.events.scalars[tags.VALIDATION_LOSS].values for run in arm.runs]
    np.testing.assert_array_equal(found.high, np.max(values, axis=0))


def test_faint_behind_a_single_seed_stand_the_measured_values(maker: Any) -> None:
    maker.run()
    study = read_study(maker.folder)
    axes = panel(build(study, "training_loss"))
    (faint,) = [line for line in axes.lines if (line.get_alpha() or 1) < 0.3]
    raw = study.runs[0].events.scalars[tags.TRAIN_LOSS].values
    np.testing.assert_array_equal(faint.get_ydata(), raw[: len(np.asarray(faint.get_ydata()))])


def test_a_cross_marks_the_last_finite_step_of_a_diverged_run(four_arms: Study) -> None:
    for name in ("training_loss", "validation_loss"):
        axes = panel(build(four_arms, name))
        crosses = [line for line in axes.lines if line.get_marker() == "x"]
        assert sorted(np.asarray(line.get_xdata())[0] for line in crosses) == [119, 229]
        low, high = axes.get_ylim()
        assert all(low < np.asarray(line.get_ydata())[0] < high for line in crosses)


@pytest.mark.parametrize("name", ["comparison", "training_loss", "validation_loss"])
def test_a_run_is_drawn_up_to_the_step_at_which_it_diverged(name: str, maker: Any) -> None:
    """Some steps follow, because losses are read in groups."""
    record = maker.run("rmsnorm", "post", steps=0, state="diverged", name="late")
    record.step, record.diverged_step = 30, 20
    record.write(maker.folder / record.name)
    with SummaryWriter(str(maker.folder / record.name)) as writer:
        for step in range(1, 30):
            writer.add_scalar(tags.TRAIN_LOSS, 2.0 + step, step)
        writer.add_scalar(tags.VALIDATION_LOSS, 90.0, 30)
    maker.run(steps=50)
    figure = build(read_study(maker.folder), name)
    panels_of_steps = [axes for axes in figure.axes if axes.get_xlabel() == panels.STEP_LABEL]
    for axes in panels_of_steps:
        (cross,) = [line for line in axes.lines if line.get_marker() == "x"]
        assert list(np.asarray(cross.get_xdata())) == [20]
        assert not cross.get_clip_on()  # at the edge of a panel it is whole
        (alone,) = [
            line for line in axes.lines
            if line.get_alpha() == 0.8 and line.get_color() == cross.get_color()
        ]  # fmt: skip
        is_training = axes.get_title("left") != "Validation loss" and name != "validation_loss"
        assert max(np.asarray(alone.get_xdata())) == (20 if is_training else 0)
        # Of one validation there is no line, and so a mark.
        assert (alone.get_marker() in ("", "None")) == is_training


@pytest.mark.parametrize("several", [False, True])
def test_where_every_run_diverged_the_final_losses_have_no_scale_and_say_why(
    several: bool, maker: Any
) -> None:
    for rate in (1e-3, 1e-2) if several else (1e-3,):
        maker.run("rmsnorm", config={"optimizer": {"lr": rate}}, diverge_at=60, floor=0.5)
        maker.run("none", "any", config={"optimizer": {"lr": rate}}, diverge_at=20, floor=0.5)
    study = read_study(maker.folder)
    for figure, title in (
        (build(study, "comparison"), "Final validation loss"),
        (build(study, "final_validation_loss"), "lr=1e-2" if several else ""),
    ):
        axes = panel(figure, title)
        assert axes.get_xlabel() == "no run has finished"
        assert list(axes.get_xticks()) == []
        assert not [text for text in texts(axes) if "floor" in text]
        assert {"diverged at step 60", "diverged at step 20"} <= {*texts(axes)}


def test_a_spike_does_not_press_the_other_curves_flat(four_arms: Study) -> None:
    arms = group_runs(four_arms.runs)
    highest = max(np.nanmax(run.events.scalars[tags.TRAIN_LOSS].values) for run in four_arms.runs)
    low, high = loss_limits(arms)
    assert highest > 6
    assert 3.2 < high < 3.5  # the loss at initialization is 3.2
    assert low < 1.43


def test_a_higher_loss_at_initialization_is_shown_unless_it_is_extreme(maker: Any) -> None:
    for number, initial in enumerate((3.0, 3.0, 4.5, 40.0)):
        record = maker.run(seed=number, name=f"run{number}", steps=0)
        with SummaryWriter(str(maker.folder / record.name)) as writer:
            for tag in (tags.TRAIN_LOSS, tags.VALIDATION_LOSS):
                writer.add_scalar(tag, initial, 0)
    _, high = loss_limits(group_runs(read_study(maker.folder).runs))
    assert 4.5 < high < 5.0


def test_the_floor_is_drawn_and_named(four_arms: Study) -> None:
    figure = build(four_arms, "comparison")
    words = {
        "Training loss": " of the validation windows",
        "Validation loss": ": no model can do better",
    }
    for title, meaning in words.items():
        axes = panel(figure, title)
        assert f"floor 1.43{meaning}" in texts(axes)
        assert any(list(line.get_ydata()) == [1.43, 1.43] for line in axes.lines)
        assert axes.get_xlabel() == "optimizer step"
    assert panel(figure, "Training loss").get_ylabel() == "loss (nats per token)"
    final = panel(figure, "Final validation loss")
    assert "floor 1.43" in texts(final)
    assert final.get_xlabel() == "loss (nats per token)"


def test_without_a_known_floor_none_is_drawn(maker: Any) -> None:
    maker.run(floor=None, steps=100)
    figure = build(read_study(maker.folder), "comparison")
    assert not [text for axes in figure.axes for text in texts(axes) if "floor" in text]


def test_final_losses_stand_best_first_with_every_seed(four_arms: Study) -> None:
    axes = panel(build(four_arms, "final_validation_loss"))
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["rmsnorm · pre", "layernorm · pre", "layernorm · post", "none"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is at the top
    seeds = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()) > 1]  # type: ignore[arg-type]
    assert [len(np.asarray(line.get_xdata())) for line in seeds] == [2, 3, 3]
    losses = [r.record.final.val_loss for r in four_arms.runs if r.record.norm == "rmsnorm"]
    assert f"{np.mean(losses):.4f} ± " in " ".join(texts(axes))
    assert "diverged at step 120" in texts(axes)
    low, high = axes.get_xlim()
    assert all(low < x < high for line in seeds for x in np.asarray(line.get_xdata()))


def test_the_mean_of_the_runs_that_are_left_says_how_many_diverged(maker: Any) -> None:
    for lr in (1e-3, 3e-3, 1e-2):
        maker.run("rmsnorm", "post", 0, level=2.5, config={"optimizer": {"lr": lr}})
        for seed in range(3):
            diverge_at = 60 if lr == 1e-2 and seed else None
            changes = {"diverge_at": diverge_at, "config": {"optimizer": {"lr": lr}}}
            maker.run("none", "pre", seed, **changes)
    figure = build(read_study(maker.folder), "final_validation_loss")
    told = [text for axes in figure.axes for text in texts(axes) if "diverged" in text]
    assert told == ["2 of 3 diverged"]
    assert "2 of 3 diverged" in texts(panel(figure, "lr=1e-2"))


def test_an_interval_of_two_seeds_does_not_press_the_dots_together(maker: Any) -> None:
    for seed in range(2):
        maker.run("rmsnorm", "pre", seed, level=1.5)
        maker.run("layernorm", "pre", seed, level=1.52)
    arms = group_runs(read_study(maker.folder).runs)
    values = [value for arm in arms for value in arm.final_losses]
    low, high = panels.final_limits(arms)
    assert high - low < 6 * (max(values) - min(values))


def test_other_settings_become_panels_with_shared_axes(maker: Any) -> None:
    for lr in (1e-3, 3e-3, 1e-2):
        for norm in ("rmsnorm", "layernorm"):
            maker.run(norm, config={"optimizer": {"lr": lr}}, level=1.5 + abs(lr - 3e-3))
    maker.run("rmsnorm", "post", config={"optimizer": {"lr": 1e-2}}, diverge_at=60)
    study = read_study(maker.folder)
    for name in NAMES[1:]:
        figure = build(study, name)
        assert [axes.get_title("left") for axes in figure.axes] == ["lr=1e-3", "lr=3e-3", "lr=1e-2"]
        assert len({axes.get_ylim() for axes in figure.axes}) == 1
        assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert legend(build(study, "training_loss"))[-1] == "diverged"
    title = build(study, "comparison").subfigs[0].texts[0].get_text()
    assert title == "study: lr=3e-3, the best of 3 combinations"


def test_losses_on_other_data_are_not_compared_and_the_same_text_elsewhere_is(maker: Any) -> None:
    for norm in ("rmsnorm", "layernorm"):
        for lr in (1e-3, 3e-3):
            data = {"kind": "text", "path": f"{norm}.txt"}
            maker.run(norm, config={"optimizer": {"lr": lr}, "data": data})
    study = read_study(maker.folder)
    for digests, rank in ((("a", "a"), "the best of"), (("a", "b"), "one of")):
        for run in study.runs:
            run.record.data_digest = digests[run.record.norm == "rmsnorm"]
        title = build(study, "comparison").subfigs[0].texts[0].get_text()
        assert title.endswith(f"{rank} 4 combinations")


def test_of_more_than_a_dozen_panels_the_best_are_drawn_and_the_rest_named(maker: Any) -> None:
    for width in range(1, 15):
        maker.run(
            config={"model": {"width": width}}, level=2 - width / 50, steps=50, name=f"w{width}"
        )
    planned = plan_of(read_study(maker.folder))
    assert [facet.title for facet in planned.facets] == [f"width={k}" for k in range(3, 15)]
    (sentence,) = planned.left_out
    assert "width=1; width=2" in sentence


def test_a_study_of_which_nothing_is_left_to_draw_is_still_drawn(
    maker: Any, tmp_path: Path
) -> None:
    record = maker.run(state="failed", steps=50)
    for path in (maker.folder / record.name).glob("events*"):
        path.unlink()
    study = read_study(maker.folder)
    assert len(draw_all_figures(analyse_study(study), tmp_path / "figures")) == 8
    assert legend(build(study, "training_loss")) == ["rmsnorm · pre (failed)"]
    note = build(study, "final_validation_loss").subfigs[2].texts[0].get_text()
    assert note == "Final losses: no run has finished."


def test_nothing_in_a_figure_overlaps_its_legend(four_arms: Study) -> None:
    figure = build(four_arms, "comparison")
    figure.canvas.draw()
    header = figure.subfigs[0]
    box = header.legends[0].get_window_extent()
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= header.texts[0].get_window_extent().y0
    assert all(box.y0 >= axes.get_tightbbox().y1 for axes in figure.axes)


@pytest.mark.parametrize(("start", "end", "cut"), [(2.0, 1.5, True), (5.5, 1.5, False)])
def test_a_first_fall_that_would_press_the_rest_flat_is_cut_and_said(
    start: float, end: float, cut: bool, maker: Any
) -> None:
    record = maker.run(floor=None, steps=0)
    with SummaryWriter(str(maker.folder / record.name)) as writer:
        for step in range(200):
            value = 6.0 if step < 10 else start + (end - start) * step / 200
            writer.add_scalar(tags.TRAIN_LOSS, value, step)
            writer.add_scalar(tags.VALIDATION_LOSS, value, step)
    study = read_study(maker.folder)
    _, high = loss_limits(group_runs(study.runs))
    assert (high < 2.5) == cut
    figure = build(study, "training_loss")
    sheet.fix_layout(figure)
    words = [text for text in texts(panel(figure)) if "above the axis" in text]
    assert words == ["↑ starts at 6.00, above the axis"] * cut


def test_a_panel_says_how_far_a_run_rises_above_it(maker: Any) -> None:
    maker.run("rmsnorm", level=1.5)
    maker.run("none", diverge_at=230)
    study = read_study(maker.folder)
    for name in ("training_loss", "validation_loss"):
        figure = build(study, name)
        sheet.fix_layout(figure)
        lines = [line for line in panel(figure).lines if len(line.get_xydata()) > 2]  # type: ignore[arg-type]
        highest = max(max(line.get_ydata()) for line in lines if line.get_alpha() != 0.16)  # type: ignore[type-var]
        (words,) = [text for text in texts(panel(figure)) if "above the axis" in text]
        assert words == f"↑ rises to {highest:.2f}, above the axis"


def test_a_loss_that_rises_after_its_start_stays_in_the_panel(maker: Any) -> None:
    record = maker.run(floor=None, steps=0)
    with SummaryWriter(str(maker.folder / record.name)) as writer:
        for step in range(200):
            value = 3.0 + 1.5 * (step / 100 if step < 100 else 2 - step / 50)
            for tag in (tags.TRAIN_LOSS, tags.VALIDATION_LOSS):
                writer.add_scalar(tag, value, step)
    _, high = loss_limits(group_runs(read_study(maker.folder).runs))
    assert high > 4.4


def test_of_many_arms_the_best_are_drawn_and_that_is_said(maker: Any) -> None:
    for number in range(45):
        maker.run(f"norm{number:02d}", level=1.5 + number / 10, steps=50)
    study = read_study(maker.folder)
    planned = plan_of(study)
    assert len(planned.arms) == 20
    assert {arm.norm for arm in planned.arms} == {f"norm{number:02d}" for number in range(20)}
    assert "20 of 45 arms" in planned.left_out[0]
    assert len(legend(build(study, "training_loss"))) == 20
    ranking = build(study, "final_validation_loss")
    assert len(panel(ranking).get_yticks()) == 40
    assert "the 40 of 45 arms" in ranking.subfigs[2].texts[0].get_text()


def test_an_interval_that_goes_on_beyond_the_panel_ends_in_an_arrowhead(maker: Any) -> None:
    for seed, level in enumerate((1.5, 1.8)):
        maker.run("rmsnorm", "pre", seed, level=level)
    axes = panel(build(read_study(maker.folder), "final_validation_loss"))
    heads = [float(one.get_offsets()[0][0]) for one in axes.collections]  # type: ignore[index]
    assert heads == pytest.approx(sorted(axes.get_xlim()))
    lines = [line.get_xdata() for line in axes.lines if line.get_linestyle() == "-"]
    assert all(axes.get_xlim()[0] <= x <= axes.get_xlim()[1] for line in lines for x in line)


def test_of_equal_curves_none_hides_another(maker: Any) -> None:
    for norm in ("rmsnorm", "gemma", "layernorm"):
        maker.run(norm, level=1.5 if norm != "layernorm" else 2.5, name=f"run-{norm:>9}")
    study = read_study(maker.folder)
    study.runs[0].events = study.runs[1].events  # the same numbers
    figure = build(study, "validation_loss")
    sheet.fix_layout(figure)
    curves = [line for line in panel(figure).lines if len(line.get_xdata()) > 2]  # type: ignore[arg-type]
    same = [line for line in curves if min(line.get_ydata()) < 2]  # type: ignore[type-var]
    assert len(curves) == 3
    assert len(same) == 2
    assert same[0].get_linewidth() > 1.5 * same[1].get_linewidth()
    assert "inside a wider one" in note(figure)


def test_where_no_curves_coincide_no_note_says_so(maker: Any) -> None:
    for norm, level in (("rmsnorm", 1.5), ("gemma", 1.9)):
        maker.run(norm, level=level)
    study = read_study(maker.folder)
    first, second = (run.events.scalars for run in study.runs)
    first[tags.VALIDATION_LOSS] = second[tags.VALIDATION_LOSS]
    for name, some in (("training_loss", False), ("validation_loss", True), ("comparison", True)):
        figure = build(study, name)
        sheet.fix_layout(figure)
        assert ("inside a wider one" in note(figure)) == some


def test_seeds_of_one_colour_that_coincide_need_no_note(maker: Any) -> None:
    for seed in range(2):
        maker.run("none", seed=seed, diverge_at=120)
    study = read_study(maker.folder)
    study.runs[1].events = study.runs[0].events
    figure = build(study, "validation_loss")
    sheet.fix_layout(figure)
    assert "inside a wider one" not in note(figure)
