"""What is remembered of event files never changes what is read of them."""

import os
import stat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto
from torch.utils.tensorboard import SummaryWriter

from normlab.archive import cache, events
from normlab.archive.cache import CACHE_FOLDER
from normlab.archive.durable import clear_drafts
from normlab.archive.events import Events, read_events
from normlab.archive.folder import is_run, read_study
from normlab.archive.record import RunRecord

NAMES = [f"events.out.tfevents.{clock}.host.1.0" for clock in (9, 10)]
LOSS = "train/loss"


def told(found: Events) -> list[Any]:
    """Everything that was read, to the bit."""
    scalars = {
        tag: [array.tobytes() for array in (one.steps, one.values, one.wall_times)]
        for tag, one in found.scalars.items()
    }
    return [list(scalars.items()), found.last_steps, found.texts, found.left_out, found.unfinished]


def append(path: Path, values: list[float], step: int, *, resumed: bool = False) -> None:
    with path.open("ab") as file:
        writer = RecordWriter(file)
        if resumed:
            start = SessionLog(status=SessionLog.START)
            writer.write(Event(step=step, session_log=start).SerializeToString())
            tensor = make_tensor_proto(f"resumed at {step} with {values[0]}")
            text = Summary.Value(tag=f"text {step % 3}", tensor=tensor)
            text.metadata.plugin_data.plugin_name = "text"
            writer.write(Event(summary=Summary(value=[text])).SerializeToString())
        for number, value in enumerate(values):
            tag = (LOSS, "val/loss")[number % 2]
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            event = Event(wall_time=1.0 + number, step=step + number, summary=summary)
            writer.write(event.SerializeToString())


values = st.lists(st.floats(width=32), min_size=1, max_size=40)
steps = st.integers(-2, 300)
names = st.sampled_from(NAMES)
change = st.one_of(
    st.tuples(st.just("append"), names, values, steps),
    st.tuples(st.just("resume"), names, values, steps),
    st.tuples(st.just("append what is no event"), names),
    st.tuples(st.just("truncate"), names, st.floats(0, 1)),
    st.tuples(st.just("rewrite the end"), names, st.floats(0, 1)),
    st.tuples(st.just("flip"), names, st.floats(0, 1, exclude_max=True)),
    st.tuples(st.just("flip in the cache"), st.floats(0, 1, exclude_max=True)),
    st.tuples(st.just("cut the cache"), st.floats(0, 1)),
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("swap")),
)


def flip(path: Path, where: float) -> None:
    """Change one byte and leave no trace of it in the file's times."""
    if path.exists() and path.stat().st_size:
        before, data = path.stat(), bytearray(path.read_bytes())
        data[int(where * len(data))] ^= 0x10
        path.write_bytes(data)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def apply(folder: Path, kept: Path, what: tuple[Any, ...]) -> None:
    path = folder / what[1] if len(what) > 1 and isinstance(what[1], str) else folder / NAMES[0]
    match what[0]:
        case "append" | "resume":
            append(path, what[2], what[3], resumed=what[0] == "resume")
        case "append what is no event":
            with path.open("ab") as file:
                RecordWriter(file).write(b"\xff\xff")
        case "truncate" if path.exists():
            os.truncate(path, int(what[2] * path.stat().st_size))
        case "rewrite the end" if path.exists():  # another run of the same steps, as long as before
            size = path.stat().st_size
            os.truncate(path, int(what[2] * size))
            path.write_bytes((path.read_bytes() + bytes(size))[:size])
        case "flip":
            flip(path, what[2])
        case "flip in the cache":
            flip(kept, what[1])
        case "cut the cache" if kept.exists():
            os.truncate(kept, int(what[1] * kept.stat().st_size))
        case "delete":
            path.unlink(missing_ok=True)
        case "swap" if all((folder / name).exists() for name in NAMES):
            (folder / NAMES[0]).rename(folder / "other")
            (folder / NAMES[1]).rename(folder / NAMES[0])
            (folder / "other").rename(folder / NAMES[1])


@settings(
    deadline=None, derandomize=True, max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(changes=st.lists(change, min_size=1, max_size=12))
def test_whatever_happens_to_the_files_the_cache_gives_what_a_fresh_read_gives(
    changes: list[tuple[Any, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    kept = tmp_path_factory.mktemp("cache") / "run.events"
    for name in NAMES:
        append(folder / name, [1.0, 2.0, 3.0], 0)
    for what in [("nothing",), *changes]:
        apply(folder, kept, what)
        fresh = told(read_events(folder))
        assert told(read_events(folder, cache=kept)) == fresh
        assert told(read_events(folder, cache=kept)) == fresh


@pytest.fixture
def read_records(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records were read, call by call."""
    counts: list[int] = []
    read = events.read_contents

    def counting(buffer: bytes, starts: Any, ends: Any) -> Any:
        counts.append(len(starts))
        return read(buffer, starts, ends)

    monkeypatch.setattr(events, "read_contents", counting)
    return counts


def test_only_what_was_added_is_read(tmp_path: Path, read_records: list[int]) -> None:
    run, kept = tmp_path / "run", tmp_path / "kept"
    run.mkdir()
    append(run / NAMES[0], [1.0] * 100, 0)
    read_events(run, cache=kept)
    assert sum(read_records) == 100
    read_records.clear()
    read_events(run, cache=kept)
    assert sum(read_records) == 0
    append(run / NAMES[0], [2.0] * 7, 100)
    append(run / NAMES[1], [2.0] * 5, 107)
    found = read_events(run, cache=kept)
    assert sum(read_records) == 12
    assert found.scalars[LOSS].steps[-1] == 111
    assert found.scalars[LOSS].values.base is None  # or it would keep all that is remembered


def test_a_cache_of_another_version_is_not_used(
    tmp_path: Path, read_records: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, kept = tmp_path / "run", tmp_path / "kept"
    run.mkdir()
    append(run / NAMES[0], [1.0] * 10, 0)
    read_events(run, cache=kept)
    read_records.clear()
    monkeypatch.setattr(cache, "__version__", "0.0")
    read_events(run, cache=kept)
    assert sum(read_records) == 10


def test_asked_for_one_tag_one_is_given_but_every_last_step_is_known(tmp_path: Path) -> None:
    append(tmp_path / NAMES[0], [1.0, 2.0, 3.0, 4.0], 0)
    for kept in (None, tmp_path / "kept", tmp_path / "kept"):
        found = read_events(tmp_path, {"val/loss"}, kept)
        assert {tag: one.values.tolist() for tag, one in found.scalars.items()} == {
            "val/loss": [2.0, 4.0]
        }
        assert found.last_steps == {LOSS: 2, "val/loss": 3}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for seed in range(2):
        folder = tmp_path / "study" / f"run{seed}"
        RunRecord(
            id=f"r{seed}", name=folder.name, norm="rmsnorm", placement="pre", data="synthetic",
            seed=seed, choices={}, config={}, step=3, state="finished",
        ).write(folder)  # fmt: skip
        with SummaryWriter(str(folder)) as writer:
            for step in range(4):
                writer.add_scalar(LOSS, step + seed, step)
                writer.add_scalar("val/loss", step, step)
    return tmp_path / "study"


def listed(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if CACHE_FOLDER not in path.parts}


def test_the_cache_stands_beside_the_runs_and_is_no_part_of_them(study: Path) -> None:
    before = listed(study)
    first = read_study(study, cached=True)
    assert listed(study) == before
    assert {path.name for path in (study / CACHE_FOLDER).iterdir()} == {
        "run0.events",
        "run1.events",
    }
    assert not is_run(study / CACHE_FOLDER)
    clear_drafts(study)
    again = read_study(study, cached=True)
    assert [told(run.events) for run in again.runs] == [told(run.events) for run in first.runs]
    assert again.left_out == first.left_out == []


def test_a_study_is_read_without_leaving_anything_unless_asked(study: Path) -> None:
    read_study(study)
    assert not (study / CACHE_FOLDER).exists()


def test_a_study_that_cannot_be_written_is_read_all_the_same(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study / CACHE_FOLDER).write_text("in the way")
    assert len(read_study(study, cached=True).runs) == 2
    (study / CACHE_FOLDER).unlink()
    study.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert len(read_study(study, cached=True).runs) == 2
    finally:
        study.chmod(stat.S_IRWXU)


def _read_often(study: Path) -> list[list[Any]]:
    for path in (study / CACHE_FOLDER).glob("*"):
        path.unlink(missing_ok=True)
    return [told(run.events) for _ in range(20) for run in read_study(study, cached=True).runs]


def test_two_processes_may_read_at_once(study: Path) -> None:
    expected = [told(run.events) for run in read_study(study).runs]
    with get_context("spawn").Pool(2) as pool:
        for found in pool.map(_read_often, [study, study]):
            assert found == expected * 20
    left = {path.name for path in (study / CACHE_FOLDER).iterdir()}
    assert left <= {"run0.events", "run1.events"}
    np.testing.assert_equal(len(read_study(study, cached=True).runs), 2)
