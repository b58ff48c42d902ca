"""Event files that are cut, damaged or still written: what was written is read, the rest told."""

import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch.utils.tensorboard import SummaryWriter

from normlab.archive import events as events_module
from normlab.archive.event_file import masked_crc32c as vectorized_crc32c
from normlab.archive.events import Events, read_events

LOSS, SPEED = "train/loss", "perf/tokens_per_second"
NAME = "events.out.tfevents.{}.host.1.0"
LAST = 12  # step of a sound file
NOTE = "a long text, " * 60  # its checksum is computed another way than that of a scalar

Written = dict[str, dict[int, float]]
property_test = settings(
    deadline=None, derandomize=True, max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


def write(folder: Path, steps: range, clock: int, shift: float = 0.0, **writer: int) -> Written:
    """One file of a run's loss and speed and a long text, named as if begun at `clock`."""
    before = set(folder.glob("*"))
    points: Written = {LOSS: {}, SPEED: {}}
    with SummaryWriter(str(folder), **writer) as open_writer:
        open_writer.add_text("note", NOTE)
        for step in steps:
            for tag, value in ((LOSS, 3 / (step + 1) + shift), (SPEED, 1e4 + step)):
                points[tag][step] = float(np.float32(value))
                open_writer.add_scalar(tag, value, step)
    (made,) = set(folder.glob("*")) - before
    made.rename(folder / NAME.format(clock))
    return points


def points_of(events: Events) -> Written:
    return {
        tag: dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))
        for tag, series in events.scalars.items()
    }


def nothing_is_made_up(found: Written, written: Written) -> bool:
    """Whether every point was written, at its step."""
    return all(points.items() <= written[tag].items() for tag, points in found.items())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Written]:
    folder = tmp_path_factory.mktemp("sound")
    written = write(folder, range(LAST + 1), 1)
    return (folder / NAME.format(1)).read_bytes(), written


def test_a_file_cut_anywhere_gives_the_points_before_and_tells_of_the_rest(
    sound: tuple[bytes, Written], tmp_path: Path
) -> None:
    data, written = sound
    path = tmp_path / NAME.format(1)
    boundaries = {0, len(data)}
    at = 0
    while at < len(data):
        at += 16 + struct.unpack_from("<Q", data, at)[0]
        boundaries.add(at)
    for size in range(len(data)):
        path.write_bytes(data[:size])
        events = read_events(tmp_path)
        found = points_of(events)
        assert nothing_is_made_up(found, written)
        assert all(list(points) == list(range(len(points))) for points in found.values())
        # Between two records nothing shows that more was to come; `run.json` knows how much.
        assert bool(events.unfinished) == (size == 0 or size not in boundaries), size
        assert not events.left_out


@property_test
@given(flips=st.lists(st.tuples(st.integers(0), st.integers(0, 7)), min_size=1, max_size=12))
def test_flipped_bits_never_give_a_number_that_was_not_written(
    flips: list[tuple[int, int]], sound: tuple[bytes, Written], tmp_path: Path
) -> None:
    data, written = sound
    damaged = bytearray(data)
    for at, bit in flips:
        damaged[at % len(data)] ^= 1 << bit
    (tmp_path / NAME.format(1)).write_bytes(damaged)
    events = read_events(tmp_path)
    found = points_of(events)
    assert nothing_is_made_up(found, written)
    assert set(events.texts.values()) <= {NOTE}
    if found != written or not events.texts:
        assert events.left_out or events.unfinished
    # A flip spoils one record, not those behind it.
    lost = sum(map(len, written.values())) - sum(map(len, found.values()))
    assert lost <= len(flips)


@property_test
@given(
    start=st.integers(0, 2000), length=st.integers(0, 400), filling=st.binary(max_size=80)
)  # fmt: skip
def test_whatever_replaces_a_stretch_the_records_around_it_are_read(
    start: int, length: int, filling: bytes, sound: tuple[bytes, Written], tmp_path: Path
) -> None:
    data, written = sound
    start %= len(data)
    damaged = data[:start] + filling + data[start + length :]
    (tmp_path / NAME.format(1)).write_bytes(damaged)
    events = read_events(tmp_path)
    found = points_of(events)
    assert nothing_is_made_up(found, written)
    if start + length < len(data) - 300:
        assert max(found[SPEED]) == LAST
    if found != written and filling:  # whole records that are gone leave no trace
        assert events.left_out or events.unfinished


@property_test
@given(content=st.binary(max_size=300))
def test_a_file_that_is_no_event_file_gives_nothing_and_is_told(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / NAME.format(1)).write_bytes(content)
    events = read_events(tmp_path)
    assert events.scalars == {}
    assert bool(events.left_out) != bool(events.unfinished)


@pytest.mark.parametrize("size", [0, 1, 59, 60, 61, 63, 64, 65, 511, 512, 513, 577, 5000])
def test_checksums_are_those_of_tensorboard(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size + 7, dtype=np.uint8)
    short = min(size, 7)
    sums = vectorized_crc32c(data, np.array([7, 0]), np.array([size, short]))
    assert sums.tolist() == [masked_crc32c(part.tobytes()) for part in (data[7:], data[:short])]


def test_a_length_beyond_all_bounds_is_damage_like_any_other(tmp_path: Path) -> None:
    written = write(tmp_path, range(3), 1)
    path = tmp_path / NAME.format(1)
    length = struct.pack("<Q", 2**63 + 5)
    giant = length + struct.pack("<I", masked_crc32c(length)) + bytes(40)
    path.write_bytes(giant + path.read_bytes())
    events = read_events(tmp_path)
    assert points_of(events) == written
    assert f"{len(giant)} of its" in events.left_out[0]


def test_a_record_of_many_megabytes_hides_nothing(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar(LOSS, 1.5, 0)
        writer.add_text("huge", "x" * 8_000_000)
        writer.add_scalar(LOSS, 1.25, 1)
    events = read_events(tmp_path)
    assert points_of(events) == {LOSS: {0: 1.5, 1: 1.25}}
    assert len(events.texts["huge/text_summary"]) == 8_000_000


def accumulated(folder: Path) -> Written:
    """The points as TensorBoard's own reader has them."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: {p.step: p.value for p in reader.Scalars(tag)} for tag in reader.Tags()["scalars"]}


def test_a_resumed_run_is_one_curve_as_tensorboard_has_it(tmp_path: Path) -> None:
    first = write(tmp_path, range(20), 1000)
    second = write(tmp_path, range(20, 35), 2000)
    third = write(tmp_path, range(35, 50), 3000)
    events = read_events(tmp_path)
    found = points_of(events)
    assert found == {tag: first[tag] | second[tag] | third[tag] for tag in first}
    assert found == accumulated(tmp_path)
    assert list(found[LOSS]) == list(range(50))
    assert (events.left_out, events.unfinished) == ([], None)


@pytest.mark.parametrize("clocks", [(3000, 2000, 1000), (2000, 3000, 1000), (1000, 3000, 2000)])
def test_a_clock_set_back_loses_nothing(clocks: tuple[int, int, int], tmp_path: Path) -> None:
    parts = []
    for clock, steps in zip(clocks, (range(10), range(10, 20), range(20, 30)), strict=True):
        parts.append(write(tmp_path, steps, clock))
    found = points_of(read_events(tmp_path))
    assert found == {tag: parts[0][tag] | parts[1][tag] | parts[2][tag] for tag in found}
    assert list(found[LOSS]) == list(range(30))


def test_of_a_step_written_twice_the_later_file_wins(tmp_path: Path) -> None:
    write(tmp_path, range(10), 1000, shift=9.0)
    second = write(tmp_path, range(5, 10), 2000)
    found = points_of(read_events(tmp_path))
    assert {step: found[LOSS][step] for step in range(5, 10)} == second[LOSS]
    assert found[LOSS][4] > 9


def test_only_the_last_file_may_be_unfinished(tmp_path: Path) -> None:
    write(tmp_path, range(5), 1000)
    write(tmp_path, range(5, 9), 2000)
    for clock in (1000, 2000):
        path = tmp_path / NAME.format(clock)
        path.write_bytes(path.read_bytes()[:-3])
    (tmp_path / NAME.format(3000)).write_bytes(b"")
    events = read_events(tmp_path)
    first, second = events.left_out
    assert NAME.format(1000) in first
    assert NAME.format(2000) in second
    assert events.unfinished is not None
    assert f"{NAME.format(3000)} is empty" in events.unfinished


def test_a_file_that_vanishes_while_reading_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = write(tmp_path, range(3), 1000)
    write(tmp_path, range(3, 6), 2000)
    read = events_module.read_bytes

    def racing(path: Path, limit: int) -> bytes:
        if path.name == NAME.format(2000):
            path.unlink()
        return read(path, limit)

    monkeypatch.setattr(events_module, "read_bytes", racing)
    events = read_events(tmp_path)
    assert points_of(events) == kept
    assert f"{NAME.format(2000)} could not be read" in events.left_out[0]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / NAME.format(1))
    (tmp_path / NAME.format(2)).symlink_to(tmp_path / NAME.format(2))
    assert len(read_events(tmp_path).left_out) == 2


def test_not_a_number_is_a_value_like_any_other(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar(LOSS, math.nan, 0)
    assert math.isnan(read_events(tmp_path).scalars[LOSS].values[0])
