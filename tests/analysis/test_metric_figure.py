"""One figure of any scalar: its curves, its file, and the sentence where it is not there."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from normlab.analysis.figures import metric_figure
from normlab.analysis.plot import main
from normlab.analysis.style import RC
from normlab.archive.study import read_study

TAG = "probe/stream_rms/block_01/attention"


def log(run: Path, tag: str, values: list[float]) -> None:
    with SummaryWriter(str(run)) as writer:
        for step, value in enumerate(values):
            writer.add_scalar(tag, value, 10 * step)


@pytest.fixture
def probed(maker: Any) -> Any:
    """Three seeds of one arm that logged 1, 2, 3 times the step, and one arm that did not."""
    for seed in range(3):
        record = maker.run(seed=seed, steps=50)
        log(maker.folder / record.name, TAG, [(seed + 1) * (step + 1.0) for step in range(20)])
    maker.run("layernorm", steps=50)
    return maker


def drawn(folder: Path, tag: str = TAG) -> Figure:
    with matplotlib.rc_context(RC):
        figure = metric_figure(read_study(folder, {tag}), tag)
        figure.draw_without_rendering()
    return figure


def test_a_curve_is_the_mean_over_seeds(probed: Any) -> None:
    (axes,) = drawn(probed.folder).axes
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_ydata(), 2.0 * np.arange(1, 21))
    assert axes.get_ylabel() == TAG
    assert axes.get_xlabel() == "optimizer step"


def test_the_note_says_what_is_measured_and_who_did_not_log_it(probed: Any) -> None:
    note = drawn(probed.folder).subfigs[2].texts[0].get_text()
    assert "1 of 4 runs did not log it" in note
    assert "Root mean square of the residual stream" in note


def test_values_far_apart_get_a_logarithmic_axis(maker: Any) -> None:
    run = maker.folder / maker.run(steps=50).name
    log(run, "a", [1.0, 100.0])
    log(run, "b", [0.0, 100.0])
    assert drawn(maker.folder, "a").axes[0].get_yscale() == "log"
    assert drawn(maker.folder, "b").axes[0].get_yscale() == "linear"


def test_where_a_run_diverged_is_marked(maker: Any) -> None:
    record = maker.run(diverge_at=30)
    log(maker.folder / record.name, "a", [1.0, 2.0, float("nan")])
    crosses = [line for line in drawn(maker.folder, "a").axes[0].lines if line.get_marker() == "x"]
    assert [float(np.asarray(line.get_xdata())[0]) for line in crosses] == [10]


def test_a_metric_that_is_not_there_is_one_sentence_with_those_that_are(
    probed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = next(probed.folder.glob("rmsnorm*"))
    log(run, "probe/stream_rms/block_02/attention", [1.0])
    with pytest.raises(SystemExit) as left:
        main([str(probed.folder), "--metric", "val/los"])
    assert left.value.code == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    sites = f"{TAG} (1 more sites), train/loss, val/loss."
    assert f"logged val/los; did you mean val/loss? give one of {sites}" in said


def test_the_command_draws_it_and_says_where(
    probed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(probed.folder), "--metric", "val/loss"])
    assert "figures/metrics/val_loss.png" in capsys.readouterr().out
    assert not (probed.folder / "runs.csv").exists()


@pytest.mark.parametrize("flag", ["--margin", "--target"])
def test_what_means_nothing_to_a_metric_is_refused(
    flag: str, probed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(probed.folder), "--metric", "val/loss", flag, "0.1"])
    assert left.value.code == 2
    assert f"normlab: {flag} 0.1 is about validation losses" in capsys.readouterr().err
    assert not (probed.folder / "figures").exists()


def test_a_metric_of_arms_that_the_other_figures_leave_out_is_drawn(
    maker: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for at in range(21):
        record = maker.run(f"norm{at:02}", level=1.5 + at / 10, steps=50)
    log(maker.folder / record.name, TAG, [1.0, 2.0])
    main([str(maker.folder), "--metric", TAG])
    assert "figures/metrics/" in capsys.readouterr().out
    figure = drawn(maker.folder)
    assert len(figure.axes[0].lines) == 1
    assert "20 of 21 runs did not log it" in figure.subfigs[2].texts[0].get_text()
