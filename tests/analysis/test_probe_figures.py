"""Probes become depth × step pictures; a study without them has none, and reads none."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from every_figure import captured
from normlab.analysis import probe_figures
from normlab.analysis.arms import group_runs
from normlab.analysis.plot import REPORT_TAGS, write_study_report
from normlab.analysis.probe_figures import best_probed_arms, probe_field, probed_quantities
from normlab.analysis.result import analyse_study
from normlab.archive import tags
from normlab.archive.study import read_study

SITES = [f"block_0{l}/{name}" for l in (1, 2) for name in ("attention", "feedforward")]
STEPS = (0, 200, 400)
ON = {"probes": {"every": 200}}


def probed(maker, level=1.0, nan_from=math.inf, gains=True, **run):
    """A run whose stream RMS is level · (site's number) · (1 + step/100)."""
    record = maker.run(steps=400, config={**ON, **run.pop("config", {})}, **run)
    writer = SummaryWriter(str(maker.folder / record.name))
    for step in STEPS:
        for number, site in enumerate(SITES, 1):
            value = level * number * (1 + step / 100) if step < nan_from else math.nan
            writer.add_scalar(tags.probe_tag(tags.STREAM_RMS, site), value, step)
        writer.add_scalar(tags.probe_tag(tags.STREAM_RMS, "embedding"), 7.0, step)
        if gains:
            writer.add_scalar(tags.probe_tag("gain_mean", "block_01/attention/input"), 1.0, step)
    writer.close()
    return record


def study(maker):
    return read_study(maker.folder, REPORT_TAGS)


def test_a_field_is_the_mean_over_seeds_by_depth_and_step(maker):
    probed(maker, 1.0, seed=0)
    probed(maker, 3.0, seed=1)
    (arm,) = group_runs(study(maker).runs)
    found = probe_field(arm, tags.STREAM_RMS)
    assert found.runs == 2
    assert found.steps.tolist() == list(STEPS)
    assert found.depths.tolist() == [0, 0.5, 1, 1.5, 2]
    expected = 2.0 * np.outer([1, 2, 3, 4], [1, 3, 5])
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    assert probed_quantities([arm]) == [tags.STREAM_RMS, "gain_mean"]
    assert probe_field(arm, tags.ANGLE) is None


def test_pictures_are_drawn_with_every_arm_in_the_same_colours(maker):
    probed(maker, norm="rmsnorm")
    probed(maker, 5.0, norm="layernorm", placement="post")
    done = write_study_report(maker.folder)
    names = {path.name for path in done.figures}
    assert {"probes.png", "probes.svg", "probes_norms.png", "probes_norms.svg"} <= names
    assert "probes_sublayers.png" not in names
    svg = (maker.folder / "figures" / "probes.svg").read_text()
    assert all(word in svg for word in ("rmsnorm · pre", "layernorm · post", "stream RMS"))
    assert svg.count("<image") >= 2  # a picture an arm


def test_a_study_without_probes_has_no_such_picture(maker):
    maker.run()
    assert not [path for path in write_study_report(maker.folder).figures if "probes" in path.name]
    read = study(maker).runs[0].events.scalars
    assert not [tag for tag in read if tag.startswith(tags.PROBES)]


def test_a_diverged_arm_is_drawn_as_far_as_it_is_finite(maker, tmp_path):
    probed(maker, norm="none", diverge_at=300, nan_from=400, gains=False)
    (arm,) = group_runs(study(maker).runs)
    values = probe_field(arm, tags.STREAM_RMS).values
    assert np.isfinite(values[:, :2]).all()
    assert np.isnan(values[:, 2]).all()
    probe_figures.draw_probe_figures(analyse_study(study(maker)).plan, tmp_path / "figures")
    svg = (tmp_path / "figures" / "probes.svg").read_text()
    assert "none · pre (diverged at step 300)" in svg


def test_of_many_arms_the_best_dozen_is_drawn_and_said(maker, tmp_path):
    for number in range(15):
        probed(maker, norm=f"norm{number:02d}", level=2.0 - number / 20, gains=False)
    runs = study(maker).runs
    kept = best_probed_arms(group_runs(runs), 12)
    losses = {run.record.norm: run.record.best.val_loss for run in runs}
    assert {arm.norm for arm in kept} == set(sorted(losses, key=losses.__getitem__)[:12])
    probe_figures.draw_probe_figures(analyse_study(study(maker)).plan, tmp_path / "figures")
    svg = (tmp_path / "figures" / "probes.svg").read_text()
    assert "The 12 of 15 arms with the lowest validation loss." in svg
    assert len(set(re.findall(r"norm\d\d · pre", svg))) == 12


def test_a_run_trained_without_probes_and_again_with_them_counts_once(maker):
    maker.run(name="plain", config={})
    probed(maker, name="probed")
    (arm,) = group_runs(study(maker).runs)
    assert [run.record.name for run in arm.runs] == ["probed"]
    assert arm.settings == ()


@pytest.mark.parametrize("folder", ["there", "gone"])
def test_nothing_is_drawn_where_nothing_was_probed(folder, maker, tmp_path):
    maker.run()
    assert (
        probe_figures.draw_probe_figures(analyse_study(study(maker)).plan, Path(tmp_path / folder))
        == []
    )


def test_pictures_are_as_long_as_the_run_and_show_its_last_measurement(
    maker, monkeypatch, tmp_path
):
    probed(maker, gains=False)
    with captured(monkeypatch) as found:
        probe_figures.draw_probe_figures(analyse_study(study(maker)).plan, tmp_path)
    _, picture = found["probes"].axes
    assert picture.get_xlim() == (0, 400)
    (mesh,) = picture.collections
    assert mesh.get_coordinates()[0, :, 0].tolist() == [0, 100, 300, 400]


@pytest.mark.parametrize("ratio", [1.0, 1.3, 3.0, 11.0, 40.0, 1e4])
def test_a_colour_bar_has_two_numbers_at_least(ratio, maker, monkeypatch, tmp_path):
    for norm, level in (("rmsnorm", 1.3), ("layernorm", 1.3 * ratio)):
        record = maker.run(norm, steps=400, config=ON)
        with SummaryWriter(str(maker.folder / record.name)) as writer:
            for site, step in itertools.product(SITES, STEPS):
                writer.add_scalar(tags.probe_tag(tags.STREAM_RMS, site), level, step)
    with captured(monkeypatch) as found:
        probe_figures.draw_probe_figures(analyse_study(study(maker)).plan, tmp_path)
    bar = found["probes"].axes[0]
    found["probes"].draw_without_rendering()
    low, high = bar.get_xlim()
    words = {
        tick.label1.get_text()
        for tick in bar.xaxis.get_major_ticks()
        if low <= tick.get_loc() <= high
    }
    assert len(words - {""}) >= 2
