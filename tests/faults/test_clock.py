"""A clock that goes back between a stop and the way on: the curves are still in order."""

import signal
from collections.abc import Callable
from pathlib import Path

from faulted import STUDY, Process, records
from normlab.archive import tags
from normlab.archive.events import read_events
from same import points

# Python imports it by itself when it starts.
BACKWARDS = """
import time
now = time.time
time.time = lambda: now() - 86400
"""


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
    assert any(record.resumed_at for record in records(study).values())
    for run in study.glob("*/run.json"):
        assert_shown_in_order(run.parent)
    whole_again(study, whole)


def assert_shown_in_order(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    shown = [event.step for event in accumulator.Scalars(tags.TRAIN_LOSS)]
    assert shown == read_events(run).scalars[tags.TRAIN_LOSS].steps.tolist()
    assert shown == points(run, tags.TRAIN_LOSS) == list(range(len(shown)))
