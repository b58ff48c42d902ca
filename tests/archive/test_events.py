import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto
from torch.utils.tensorboard import SummaryWriter

from normlab.archive.events import read_events

LOSS = "train/loss"


def write(folder: Path, points: dict[int, float] | list[tuple[int, float]], **writer: int) -> Path:
    """One event file of its own; returns its path."""
    before = set(folder.glob("*")) if folder.exists() else set()
    with SummaryWriter(str(folder), **writer) as open_writer:
        for step, value in points.items() if isinstance(points, dict) else points:
            open_writer.add_scalar(LOSS, value, step)
    (made,) = set(folder.glob("*")) - before
    return made


def records(path: Path) -> list[tuple[int, int]]:
    """Start and end of every record, from the format's definition."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        end = at + 16 + struct.unpack_from("<Q", data, at)[0]
        found.append((at, end))
        at = end
    return found


def test_values_and_steps_equal_those_of_the_event_accumulator(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(0, 3000, 3):
            writer.add_scalar(LOSS, rng.normal(), step)
            writer.add_scalar("probe/rms/block_00", rng.lognormal(sigma=20), step, new_style=True)
    reference = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0, "tensors": 0})
    reference.Reload()

    events = read_events(tmp_path)

    expected = reference.Scalars(LOSS)
    series = events.scalars[LOSS]
    np.testing.assert_array_equal(series.steps, [point.step for point in expected])
    np.testing.assert_array_equal(series.values, [point.value for point in expected])
    tensors = [p.tensor_proto.float_val[0] for p in reference.Tensors("probe/rms/block_00")]
    np.testing.assert_array_equal(events.scalars["probe/rms/block_00"].values, tensors)
    assert (series.steps.dtype, series.values.dtype) == (np.int64, np.float64)
    assert events.left_out == []


def test_more_than_ten_thousand_points_are_all_kept(tmp_path: Path) -> None:
    write(tmp_path, {step: float(step) for step in range(10_500)})
    series = read_events(tmp_path).scalars[LOSS]
    np.testing.assert_array_equal(series.steps, np.arange(10_500))
    np.testing.assert_array_equal(series.values, np.arange(10_500))


def test_nan_and_infinity_come_back_and_end_the_finite_part(tmp_path: Path) -> None:
    write(tmp_path, {0: 2.0, 1: np.inf, 2: np.nan, 3: 1.0})
    series = read_events(tmp_path).scalars[LOSS]
    np.testing.assert_array_equal(series.values, [2.0, np.inf, np.nan, 1.0])
    assert series.until_divergence().values.tolist() == [2.0]


def test_of_a_repeated_step_the_later_written_wins_and_steps_increase(tmp_path: Path) -> None:
    write(tmp_path, [(0, 1.0), (2, 2.0), (1, 9.0), (2, 3.0), (1, 4.0)])
    late = write(tmp_path, {1: 7.0, 3: 8.0})
    late.rename(tmp_path / "events.out.tfevents.9999999999.host.1.0")
    series = read_events(tmp_path).scalars[LOSS]
    assert series.steps.tolist() == [0, 1, 2, 3]
    assert series.values.tolist() == [1.0, 7.0, 3.0, 8.0]


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("events.out.tfevents.999999999.z.1.0", "events.out.tfevents.1000000000.a.1.0"),
        ("events.out.tfevents.1700000000.a.5.9", "events.out.tfevents.1700000000.a.5.10"),
    ],
)
def test_files_are_read_in_order_of_time_not_of_spelling(
    tmp_path: Path, older: str, newer: str
) -> None:
    write(tmp_path, {0: 2.0}).rename(tmp_path / newer)
    write(tmp_path, {0: 1.0}).rename(tmp_path / older)
    assert read_events(tmp_path).scalars[LOSS].values.tolist() == [2.0]


def test_the_last_text_of_a_tag_is_kept_and_layouts_are_no_text(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_text("record", "first")
        writer.add_text("record", "zweite σ")
        writer.add_custom_scalars({"Loss": {"training": ["Multiline", [LOSS]]}})
    assert read_events(tmp_path).texts == {"record/text_summary": "zweite σ"}


def test_histograms_and_vectors_are_not_scalars(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_histogram("gain", np.arange(9), 0)
        writer.add_tensor("vector", torch.ones(3), 0)
    plain = EventFileWriter(str(tmp_path))
    vector = Summary.Value(tag="plain", tensor=make_tensor_proto([1.0, 2.0]))
    plain.add_event(Event(step=1, summary=Summary(value=[vector])))
    plain.close()
    assert read_events(tmp_path).scalars == {}


def test_an_empty_folder_gives_empty_events(tmp_path: Path) -> None:
    events = read_events(tmp_path)
    assert (events.scalars, events.texts, events.left_out) == ({}, {}, [])


def test_a_file_cut_at_any_byte_keeps_the_records_before_it(tmp_path: Path) -> None:
    path = write(tmp_path, {0: 1.0, 1: 2.0, 2: 3.0})
    data, spans = path.read_bytes(), records(path)
    for size in range(spans[-2][0], len(data)):
        path.write_bytes(data[:size])
        events = read_events(tmp_path)
        whole = sum(end <= size for _, end in spans) - 1  # the first record is the file's version
        assert events.scalars[LOSS].values.tolist() == [1.0, 2.0, 3.0][:whole]
        if size in [end for _, end in spans]:
            assert events.unfinished is None
        else:
            assert events.unfinished is not None
            assert "cut off" in events.unfinished
            assert str(path) in events.unfinished
        assert events.left_out == []


def test_no_flipped_bit_passes_as_a_number(tmp_path: Path) -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    path = write(tmp_path, dict(enumerate(values)))
    data, spans = path.read_bytes(), records(path)
    start, end = spans[2]  # the second point
    for at in range(start, end):
        for bit in (0, 7):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            events = read_events(tmp_path)
            assert events.scalars[LOSS].values.tolist() == [1.0, 3.0, 4.0], (at - start, bit)
            (sentence,) = events.left_out
            assert f"{end - start} of its {len(data)} bytes" in sentence
            assert f"byte {start} on" in sentence


def test_a_sound_frame_that_holds_no_event_is_damage(tmp_path: Path) -> None:
    writer = EventFileWriter(str(tmp_path))
    writer.add_event(Event(step=1, summary=Summary(value=[Summary.Value(tag="a", simple_value=2)])))
    writer._async_writer.write(b"\xff\xff\xff not an event")
    writer.close()
    events = read_events(tmp_path)
    assert events.scalars["a"].values.tolist() == [2.0]
    assert "16 of its" in events.left_out[0]


def test_damage_in_one_file_does_not_stop_the_next(tmp_path: Path) -> None:
    first = write(tmp_path, {0: 1.0, 1: 2.0})
    first.write_bytes(first.read_bytes()[:-3])
    late = write(tmp_path, {2: 3.0})
    late.rename(tmp_path / "events.out.tfevents.9999999999.host.1.0")
    events = read_events(tmp_path)
    assert events.scalars[LOSS].values.tolist() == [1.0, 3.0]
    assert len(events.left_out) == 1


def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1.folder").mkdir()
    assert "could not be read" in read_events(tmp_path).left_out[0]


def test_only_the_tags_that_are_asked_for_are_read(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for tag in (LOSS, "val/loss", "probe/rms/b"):
            writer.add_scalar(tag, 1.0, 3)
    events = read_events(tmp_path, {LOSS, "probe/"})
    assert events.scalars.keys() == {LOSS, "probe/rms/b"}
    assert events.last_steps == {LOSS: 3, "val/loss": 3, "probe/rms/b": 3}
    assert read_events(tmp_path, {"pro/"}).scalars == {}
