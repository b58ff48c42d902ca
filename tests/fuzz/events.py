"""Event files, bent at random: records that are whole and say what no run says, and damage."""

import random
import struct
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

STEPS = (0, 1, 3, 6, -1, 2**62, -(2**63), 10**9)
FLOATS = (0.0, -1.0, 1e38, float("nan"), float("inf"), 2.5)
TAGS = (
    "train/loss",
    "val/loss",
    "train/lr",
    "perf/tokens_per_second",
    "x",
    "",
    "\x1b]0;x\x07",
    "=1",
)


def bend_events(dice: random.Random, run: Path) -> None:
    """One to three things wrong with a run's event file."""
    path = dice.choice(sorted(run.glob("events*")))
    records = _split(path.read_bytes())
    for _ in range(dice.choice((1, 1, 2, 3))):
        at = dice.randrange(len(records))
        kind = dice.randrange(6)
        if kind == 0:
            records.insert(at, _event(dice))
        elif kind == 1:
            records[at] = _changed(dice, records[at])
        elif kind == 2:
            records[at : at + dice.choice((1, 5))] = []
            records = records or [_event(dice)]
        elif kind == 3:
            records += records[at : at + 20]
        elif kind == 4:
            dice.shuffle(records)
        else:
            records.insert(at, dice.randbytes(dice.choice((0, 1, 40, 4000))))
    content = b"".join(map(_frame, records))
    if dice.random() < 0.4:
        content = _damaged(dice, content)
    path.write_bytes(content)


def _split(content: bytes) -> list[bytes]:
    records, at = [], 0
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        records.append(content[at + 12 : at + 12 + length])
        at += 16 + length
    return records


def _frame(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    checks = [struct.pack("<I", masked_crc32c(part)) for part in (length, record)]
    return length + checks[0] + record + checks[1]


def _event(dice: random.Random) -> bytes:
    value = Summary.Value(tag=dice.choice(TAGS))
    kind = dice.randrange(4)
    if kind == 0:
        value.simple_value = dice.choice(FLOATS)
    else:
        # A tensor that claims a type, a shape and a content that do not fit each other.
        value.tensor.dtype = dice.choice((0, 1, 2, 7, 19, 99))
        for _ in range(dice.choice((0, 1, 2, 40))):
            value.tensor.tensor_shape.dim.add(size=dice.choice((0, 1, -1, 10**18, 2**62)))
        if kind == 1:
            value.tensor.float_val.append(dice.choice(FLOATS))
        elif kind == 2:
            value.tensor.string_val.append(dice.randbytes(dice.choice((0, 10, 60_000))))
        else:
            value.tensor.tensor_content = dice.randbytes(dice.choice((0, 3, 4, 8)))
        value.metadata.plugin_data.plugin_name = dice.choice(("scalars", "text", "hparams", "x"))
    return Event(
        wall_time=dice.choice((0.0, 1e300, float("nan"), -1.0)),
        step=dice.choice(STEPS),
        summary=Summary(value=[value]),
    ).SerializeToString()


def _changed(dice: random.Random, record: bytes) -> bytes:
    """The same record with another step, tag or value, or with changed bytes."""
    try:
        event = Event.FromString(record)
    except DecodeError:
        return dice.randbytes(20)
    if event.summary.value and dice.random() < 0.7:
        value = event.summary.value[0]
        choice = dice.randrange(3)
        if choice == 0:
            value.tag = dice.choice(TAGS)
        elif choice == 1:
            event.step = dice.choice(STEPS)
        else:
            value.simple_value = dice.choice(FLOATS)
        return event.SerializeToString()
    content = bytearray(record or b"x")
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    return bytes(content)


def _damaged(dice: random.Random, content: bytes) -> bytes:
    content = bytearray(content)
    if dice.random() < 0.5:
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        return bytes(content)
    return bytes(content[: dice.randrange(len(content))])
