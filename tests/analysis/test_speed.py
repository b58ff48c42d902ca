"""Speeds are compared where they are steady over a run, and else called not comparable."""

from typing import Any

import numpy as np
import pytest
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from normlab.analysis.arms import group_runs
from normlab.analysis.plot import REPORT_TAGS, write_study_report
from normlab.analysis.summary import speeds_of_parts, summarise_arms
from normlab.analysis.terminal_tables import summary_table
from normlab.archive import tags
from normlab.archive.events import Events, Series
from normlab.archive.steadiness import speed_variation
from normlab.archive.study import Run, read_study

STEADY, DISTURBED = [20_000.0] * 20, [22_406.0] * 10 + [12_654.0] * 10


def timed_run(maker: Any, norm: str, speeds: list[float]) -> None:
    """A run with a measured speed every ten steps."""
    record = maker.run(norm, steps=200, tokens_per_second=float(np.mean(speeds)))
    with SummaryWriter(str(maker.folder / record.name)) as writer:
        for at, speed in enumerate(speeds, 1):
            writer.add_scalar(tags.TOKENS_PER_SECOND, speed, 10 * at - 1)


def printed(maker: Any) -> str:
    console = Console(width=140)
    with console.capture() as captured:
        console.print(
            summary_table(summarise_arms(group_runs(read_study(maker.folder, REPORT_TAGS).runs)))
        )
    return captured.get()


def test_a_disturbed_speed_is_not_comparable_and_stays_in_the_csv(maker: Any) -> None:
    timed_run(maker, "rmsnorm", STEADY)
    timed_run(maker, "layernorm", DISTURBED)
    text = printed(maker)
    assert "20,000" in text
    assert "not comparable" in text
    assert "17,530" not in text
    write_study_report(maker.folder)
    page = (maker.folder / "report.html").read_text()
    assert page.count("not comparable</td>") == 2  # its arm's row and its run's
    assert "17,530" not in page
    assert "17530.0" in (maker.folder / "runs.csv").read_text()


@pytest.mark.parametrize("speeds", [DISTURBED, STEADY[:9]], ids=["disturbed", "short"])
def test_where_no_speed_is_comparable_there_is_no_column_and_the_caption_says_it(
    speeds: list[float], maker: Any
) -> None:
    timed_run(maker, "rmsnorm", speeds)
    text = printed(maker)
    assert "tok/s" not in text
    assert "not comparable" in text


def test_runs_of_an_arm_that_are_each_steady_must_agree(maker: Any) -> None:
    for seed, speed in enumerate((22_406.0, 12_654.0)):
        record = maker.run("rmsnorm", seed=seed, steps=200, tokens_per_second=speed)
        with SummaryWriter(str(maker.folder / record.name)) as writer:
            for at in range(1, 21):
                writer.add_scalar(tags.TOKENS_PER_SECOND, speed, 10 * at - 1)
    assert "not comparable" in printed(maker)


def test_parts_are_equal_in_steps_however_the_run_was_measured() -> None:
    # 100 steps at 10 a second, then 100 at 20: measured in pieces of 10, 20 and 5 steps.
    pieces = [10] * 10 + [20] * 4 + [5] * 4
    steps = np.cumsum(pieces) - 1
    speeds = np.where(steps < 100, 10.0, 20.0)
    series = Series(steps, speeds)
    run = Run(None, None, Events({tags.TOKENS_PER_SECOND: series}))  # type: ignore[arg-type]
    assert speeds_of_parts(run) == pytest.approx([10.0] * 5 + [20.0] * 5)


def test_variation_is_over_the_means_of_equal_parts() -> None:
    assert speed_variation([1.0, 3.0] * 20) == pytest.approx(0.0)  # noise inside the parts
    assert speed_variation([1.0] * 20 + [3.0] * 20) == pytest.approx(np.std([1, 3] * 5, ddof=1) / 2)
    assert np.isnan(speed_variation([1.0, 1.0]))
