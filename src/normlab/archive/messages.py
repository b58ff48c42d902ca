"""Records of event files through protobuf: texts, starts of a continued run, tensors, and so on."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto import event_pb2, types_pb2  # type: ignore[import-untyped]

from normlab.archive.checksums import Places
from normlab.archive.frames import Stretch
from normlab.archive.points import Contents, Points

_Written = tuple[int, int, float, float]  # number of the record, step, value, wall time


def read_messages(
    buffer: bytes, spans: Iterable[tuple[int, int, int]], into: Contents
) -> Iterator[tuple[str, tuple[Places, Points]]]:
    """Read records, given as (number, start, end); all but the points goes `into` the contents.

    Yields each tag with the numbers of its records and their points.
    """
    written: dict[str, list[_Written]] = defaultdict(list)
    for number, start, end in spans:
        try:
            event = event_pb2.Event.FromString(buffer[start:end])
        except DecodeError:
            into.unreadable.append(Stretch(start, end))
            continue
        if event.HasField("session_log") and event.session_log.status == event_pb2.SessionLog.START:
            into.resumed_at = event.step
        for value in event.summary.value:
            scalar = _scalar(value, into.texts)
            if scalar is not None:
                written[value.tag].append((number, event.step, scalar, event.wall_time))
    for tag, points in written.items():
        numbers, steps, values, times = zip(*points, strict=True)
        yield (
            tag,
            (
                np.array(numbers, np.int64),
                Points(
                    np.array(steps, np.int64),
                    np.array(values, np.float64),
                    np.array(times, np.float64),
                ),
            ),
        )


def _scalar(value: Any, texts: dict[str, str]) -> float | None:
    """The number that a value holds; None where it is a text, which goes into `texts`, or more."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor":
        return None
    plugin = value.metadata.plugin_data.plugin_name
    if value.tensor.dtype == types_pb2.DT_STRING:
        if plugin == "text" and value.tensor.string_val:
            text = b"\n".join(value.tensor.string_val)
            texts[value.tag] = text.decode("utf-8", errors="replace")
        return None
    if plugin not in ("", "scalars"):
        return None
    # A shape is a claim, and an array of that shape would be made before anybody looks at it.
    if math.prod(dim.size for dim in value.tensor.tensor_shape.dim) != 1:
        return None
    # Seldom needed, and 0.3 s to import.
    from tensorboard.util.tensor_util import make_ndarray  # type: ignore[import-untyped]

    try:
        with np.errstate(all="ignore"):  # a number beyond its own type is infinite
            return float(make_ndarray(value.tensor).item())
    # Several numbers, none that a curve could be made of, or a type that there is not.
    except (TypeError, ValueError, KeyError, OverflowError):
        return None
