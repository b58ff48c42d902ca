"""A clock that goes back between a stop and the way on: the curves are still in order."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from normlab.archive import tags
from normlab.archive.events import read_events
from normlab.training.run import train
from run_equality import assert_same_run, list_steps
from study_process import STUDY, Process, read_records
from tiny_run import TINY, InterruptingDisplay, SilentDisplay

# Python imports it by itself when it starts.
BACKWARDS = """
import time
now = time.time
time.time = lambda: now() - 86400
"""


def test_a_run_that_goes_on_in_its_own_past_has_its_curves_in_order(
    specified: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = (specified(*TINY, f"output_dir={tmp_path / name}") for name in ("a", "b"))
    train(whole, "the command", SilentDisplay())
    with pytest.raises(KeyboardInterrupt):
        train(stopped, "the command", InterruptingDisplay(2))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 86400)
    train(stopped, "the command", SilentDisplay())
    assert_shown_in_order(stopped.folder)
    assert_same_run(stopped.folder, whole.folder)


@pytest.mark.slow
def test_a_clock_that_goes_back_leaves_the_curves_as_they_are(
    tmp_path: Path, whole: Path, quiet: Callable, whole_again: Callable
) -> None:
    study = tmp_path / "synthetic"
    arguments = (*STUDY, f"output_dir={tmp_path}")
    process = Process(tmp_path, *arguments, forked=True)
    assert process.until(lambda: any(study.glob("*/checkpoints/last.ckpt")))
    process.send(signal.SIGTERM)
    process.end()
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(BACKWARDS)
    ended = quiet(Process(tmp_path, *arguments, PYTHONPATH=str(tmp_path / "path")).end())
    assert ended.code == 0
    assert any(record.resumed_at for record in read_records(study).values())
    for run in study.glob("*/run.json"):
        assert_shown_in_order(run.parent)
    whole_again(study, whole)


def assert_shown_in_order(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    shown = [event.step for event in accumulator.Scalars(tags.TRAIN_LOSS)]
    assert shown == read_events(run).scalars[tags.TRAIN_LOSS].steps.tolist()
    assert shown == list_steps(run, tags.TRAIN_LOSS) == list(range(len(shown)))
