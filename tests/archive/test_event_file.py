"""Reading by columns gives what TensorBoard's own loader gives, record by record."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from normlab.archive import event_file
from normlab.archive.event_file import EventFile
from normlab.archive.events import read_events

NAME = "events.out.tfevents.1.host.1.0"
# Two of one length, one that another's longer step could be taken for, and lengths of two bytes.
TAGS = ["a/loss", "b/loss", "a/loss2", "", "σ/ä", "x" * 120, "y" * 130, "z" * 20_000]
STEPS = [0, 1, 127, 128, 16_383, 16_384, 2**31, 2**62, 2**63 - 1, -1, -(2**63)]

property_test = settings(
    deadline=None, derandomize=True, max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip

scalars = st.builds(
    lambda tag, value: Summary.Value(tag=tag, simple_value=value),
    st.sampled_from(TAGS), st.floats(width=32),
)  # fmt: skip
tensors = st.builds(
    lambda tag, value: Summary.Value(tag=tag, tensor=make_tensor_proto(value)),
    st.sampled_from(TAGS), st.one_of(st.floats(), st.lists(st.floats(), min_size=2, max_size=3)),
)  # fmt: skip
events = st.builds(
    lambda values, step, wall_time: Event(
        step=step, wall_time=wall_time, summary=Summary(value=values)
    ),
    st.one_of(st.lists(scalars, min_size=1, max_size=1), st.lists(scalars | tensors, max_size=3)),
    st.sampled_from(STEPS) | st.integers(-5, 300),
    st.floats(),
)


def write(path: Path, written: list[Event]) -> list[int]:
    """Write the events; returns where each record ends."""
    ends = []
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for event in written:
            writer.write(event.SerializeToString())
            ends.append(file.tell())
    return ends


def numbers(event: Event) -> Iterator[tuple[str, float]]:
    for value in event.summary.value:
        if value.HasField("simple_value"):
            yield value.tag, value.simple_value
        elif len(value.tensor.tensor_shape.dim) == 0:
            yield value.tag, value.tensor.float_val[0]


def loaded(path: Path) -> dict[str, dict[int, float]]:
    """Tag → step → value, the last written, as TensorBoard loads the file."""
    found: dict[str, dict[int, float]] = {}
    for event in LegacyEventFileLoader(str(path)).Load():
        for tag, value in numbers(event):
            found.setdefault(tag, {})[event.step] = value
    return found


def assert_same_as_loaded(folder: Path) -> None:
    expected, found = loaded(folder / NAME), read_events(folder)
    assert list(found.scalars) == list(expected)
    for tag, points in expected.items():
        steps = sorted(points)
        series = found.scalars[tag]
        assert series.steps.tolist() == steps
        np.testing.assert_array_equal(series.values, [points[step] for step in steps])
        assert found.last_steps[tag] == steps[-1]


@property_test
@given(written=st.lists(events, min_size=1, max_size=40), cut=st.none() | st.integers(0))
def test_any_events_are_read_as_tensorboard_loads_them(
    written: list[Event], cut: int | None, tmp_path: Path
) -> None:
    path = tmp_path / NAME
    write(path, written)
    if cut is not None:
        data = path.read_bytes()
        path.write_bytes(data[: cut % len(data)])
    assert_same_as_loaded(tmp_path)


def scalar(tag: str, value: float, step: int) -> Event:
    value_ = Summary.Value(tag=tag, simple_value=value)
    return Event(wall_time=1e9 + step, step=step, summary=Summary(value=[value_]))


@pytest.mark.parametrize("seed", range(3))
def test_long_runs_whose_tags_come_irregularly_are_read_as_tensorboard_loads_them(
    seed: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    written = [Event(file_version="brain.Event:2", wall_time=1.0)]
    for step in range(6000):
        tags = ["train/loss", "train/lr"]
        tags += [f"probe/rms/block_{n:02d}" for n in range(12)] if step % 100 == 0 else []
        tags += ["val/loss", "val/best"] if rng.random() < 0.02 else []
        written += [scalar(tag, rng.lognormal(sigma=20), step) for tag in tags]
    write(tmp_path / NAME, written)
    assert_same_as_loaded(tmp_path)


def test_plain_scalars_need_no_protobuf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = Event(session_log=SessionLog(status=SessionLog.START), step=7)
    write(tmp_path / NAME, [start, *(scalar(tag, 1.5, s) for s in STEPS for tag in TAGS[:3])])
    taken: list[Any] = []
    parse = event_file._parse_messages

    def watched(buffer: bytes, records: Any, *rest: Any) -> Any:
        taken.extend(records.tolist())
        return parse(buffer, records, *rest)

    monkeypatch.setattr(event_file, "_parse_messages", watched)
    assert set(read_events(tmp_path).scalars) == set(TAGS[:3])
    assert taken == [0]


def test_two_scalars_in_one_record_are_not_taken_for_one_of_that_length(tmp_path: Path) -> None:
    both = [Summary.Value(tag=tag, simple_value=2.5) for tag in ("a", "b")]
    pair = Event(wall_time=1.0, step=5, summary=Summary(value=both))
    alone = next(
        one
        for length in range(40)
        for one in [scalar("x" * length, 1.0, 6)]
        if one.ByteSize() == pair.ByteSize()
    )
    write(tmp_path / NAME, [pair, pair, alone, scalar("b", 3.5, 7)])
    assert_same_as_loaded(tmp_path)
    assert {"a", "b"} < set(read_events(tmp_path).scalars)


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def record(tag: bytes, step: bytes) -> bytes:
    """A scalar laid out by hand, so that tag and step may be what no writer would write."""
    value = b"\x0a" + varint(len(tag)) + tag + b"\x15" + struct.pack("<f", 2.5)
    summary = b"\x0a" + varint(len(value)) + value
    head = b"\x09" + struct.pack("<d", 1.0) + b"\x10" + step
    return head + b"\x2a" + varint(len(summary)) + summary


@pytest.mark.parametrize(
    ("tag", "step"),
    [
        (b"\xff\xfe", b"\x01"),
        (b"\xed\xa0\x80", b"\x01"),
        (b"sound", b"\x81\x00"),
        (b"sound", b"\xff" * 9 + b"\x01"),
        (b"sound", b"\xff" * 9 + b"\x7f"),
        (b"sound", b"\xff" * 10 + b"\x01"),
    ],
)
def test_what_protobuf_refuses_or_takes_is_refused_or_taken(
    tag: bytes, step: bytes, tmp_path: Path
) -> None:
    content = record(tag, step)
    with (tmp_path / NAME).open("wb") as file:
        writer = RecordWriter(file)
        writer.write(content)
        writer.write(content)
    try:
        expected = [Event.FromString(content).step]
    except Exception:
        expected = []
    found = read_events(tmp_path)
    assert [step for one in found.scalars.values() for step in one.steps.tolist()] == expected
    assert bool(found.left_out) != bool(expected)


@property_test
@given(
    lengths=st.lists(st.sampled_from([0, 1, 3, 44, 45, 511, 512, 513, 5000]), max_size=30),
    seed=st.integers(0, 2**32),
    spread=st.sampled_from([1, 2, 256]),
)
def test_many_checksums_at_once_are_those_of_tensorboard(
    lengths: list[int], seed: int, spread: int
) -> None:
    rng = np.random.default_rng(seed)
    data = rng.integers(0, spread, 6000, dtype=np.uint8)
    starts = np.array([rng.integers(0, 6000 - length + 1) for length in lengths], np.int64)
    pieces = [data[at : at + length] for at, length in zip(starts, lengths, strict=True)]
    sums = event_file.masked_crc32c(data, starts, np.array(lengths, np.int64))
    assert sums.tolist() == [masked_crc32c(piece.tobytes()) for piece in pieces]


@property_test
@given(
    repeated=st.lists(st.sampled_from([40, 41, 45, 50]), min_size=1, max_size=9),
    times=st.integers(1, 1500),
    stray=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 60)), max_size=4),
)
def test_records_of_any_sizes_are_found(
    repeated: list[int], times: int, stray: list[tuple[int, int]], tmp_path: Path
) -> None:
    lengths = repeated * times
    for at, length in stray:
        lengths.insert(at % (len(lengths) + 1), length)
    one = {n: bytes(n) for n in lengths}
    framed = {
        n: struct.pack("<Q", n)
        + struct.pack("<I", masked_crc32c(struct.pack("<Q", n)))
        + content
        + struct.pack("<I", masked_crc32c(content))
        for n, content in one.items()
    }
    buffer = b"".join(framed[n] for n in lengths)
    bounds = np.cumsum([0, *(n + 16 for n in lengths)])
    file = EventFile(len(buffer))
    starts, ends = event_file._find_records(np.frombuffer(buffer, np.uint8), file)
    np.testing.assert_array_equal(starts, bounds[:-1] + 12)
    np.testing.assert_array_equal(ends, bounds[1:] - 4)
    assert (file.damaged, file.cut_at) == ([], None)
