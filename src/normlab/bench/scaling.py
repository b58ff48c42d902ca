"""`scaling`: what a step costs and holds as the model grows, and the largest that fits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from normlab.analysis.spread import Spread, spread
from normlab.bench.contender import Samples, interleave
from normlab.bench.process import Process
from normlab.bench.result import Line, Panel, Result, Row, Settings, Table, column
from normlab.bench.shapes import NANO, TINY, Shape, chosen
from normlab.errors import NormlabError

# The sizes of each axis, around nano; the second is what --quick takes.
AXES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "depth": ((1, 2, 4, 8, 16), (1, 4, 8)),
    "width": ((64, 128, 256, 512, 1024), (64, 128, 256)),
    "context": ((32, 64, 128, 256, 512), (32, 64, 128)),
    "vocabulary": ((65, 1024, 4096, 16384, 32768), (65, 1024, 4096)),
}
LARGEST = "largest"
HEAD = NANO.width // NANO.heads  # features
_STEPS = 5
_UNITS = {"ms": "ms a step", "mib": "memory, MiB"}
_LEAST_MIB = 0.1  # what counts as nothing has no logarithm

# The family that is searched: so many blocks, and so many heads of so many features.
GIB, QUICK_GIB = 8.0, 1.5
_HEAD, _CONTEXT, _FIRST, _MOST = 64, 256, 4, 64


def run(settings: Settings) -> Result:
    """Measure every axis asked for, and search for the largest model."""
    parts = chosen(settings.shapes, [*AXES, LARGEST], [*AXES, LARGEST])
    axes = [axis for axis in parts if axis in AXES]
    shapes = {axis: along(axis, AXES[axis][settings.quick]) for axis in axes}
    every = {shape.name: shape for found in shapes.values() for shape in found}
    samples = _measure(every, settings) if every else {}
    lines = {axis: _lines(axis, shapes[axis], samples) for axis in axes}
    tables = [_exponents(lines)] if axes else []
    tables += [_sizes(axis, shapes[axis], samples) for axis in axes]
    notes = [
        "A plain loop around our model at its default precision; nano, and one size changed; batch "
        f"{NANO.batch}, heads of {HEAD} features. Memory is the peak of the process above that of "
        "one that trains a model of almost nothing. Exponent: slope of the logarithms, 95 % "
        "interval in brackets; where cost is a sum of terms it is a mean over the range, no law.",
        *([f"With {' '.join(settings.overrides)}."] if settings.overrides else []),
    ]
    if LARGEST in parts:
        table, note = _largest(settings)
        tables.append(table)
        notes.append(note)
    panels = [Panel(f"By {axis}", axis, "ms a step; MiB", lines=lines[axis]) for axis in axes]
    title = "Cost and memory of a training step by size"
    return Result("scaling", title, tuple(notes), tuple(tables), (), tuple(panels), samples)


def along(axis: str, sizes: Sequence[int]) -> list[Shape]:
    """Nano with one size changed, and with heads of as many features."""
    found = []
    for size in sizes:
        changed: dict[str, Any] = {axis: size}
        shape = replace(NANO, **changed)
        shape = replace(shape, heads=shape.width // HEAD)
        same = shape == NANO
        found.append(shape if same else replace(shape, name=f"{axis} {size}"))
    return found


def _measure(shapes: Mapping[str, Shape], settings: Settings) -> Samples:
    contenders = [
        Process(
            name,
            "normlab.bench.loops:bare",
            {"overrides": [*shape.overrides(), *settings.overrides]},
            {"steps": _STEPS},
            settings.threads,
        )
        for name, shape in {**shapes, TINY.name: TINY}.items()
    ]
    samples = interleave(contenders, settings.times(5, 2), progress=settings.progress)
    nothing = column(samples[TINY.name], "rss_mib")
    return {
        name: [
            one | {"mib": max(_LEAST_MIB, one["rss_mib"] - least)}
            for one, least in zip(samples[name], nothing, strict=True)
        ]
        for name in shapes
    }


def _lines(axis: str, shapes: Sequence[Shape], samples: Samples) -> tuple[Line, ...]:
    x = tuple(float(getattr(shape, axis)) for shape in shapes)
    lines = []
    for quantity, unit in _UNITS.items():
        y = tuple(spread(column(samples[shape.name], quantity)) for shape in shapes)
        lines.append(Line(unit, x, y, exponent(x, [one.median for one in y])))
    return tuple(lines)


def exponent(x: Sequence[float], y: Sequence[float]) -> Spread:
    """The slope of log y against log x, with its 95 % t-interval; of two points, without."""
    fit = stats.linregress(np.log(x), np.log(y))
    slope, freedom = float(fit.slope), len(x) - 2
    half = float(stats.t.ppf(0.975, freedom) * fit.stderr) if freedom > 0 else 0.0
    return Spread(slope, slope - half, slope + half, len(x))


def _exponents(lines: Mapping[str, Sequence[Line]]) -> Table:
    rows = []
    for axis, found in lines.items():
        values = {line.name: line.exponent for line in found if line.exponent is not None}
        rows.append(Row(f"{axis}, {found[0].x[0]:g} to {found[0].x[-1]:g}", values, "ours"))
    return Table("fitted exponents", tuple(_UNITS.values()), tuple(rows), "by")


def _sizes(axis: str, shapes: Sequence[Shape], samples: Samples) -> Table:
    rows = []
    for shape in shapes:
        rounds = samples[shape.name]
        values = {unit: spread(column(rounds, quantity)) for quantity, unit in _UNITS.items()}
        values["parameters, M"] = spread([rounds[0]["parameters"] / 1e6])
        rows.append(Row(f"{getattr(shape, axis)}", values, "ours"))
    return Table(f"by {axis}", tuple(rows[0].values), tuple(rows), axis)


@dataclass
class _Trial:
    """Trains models of the family until one does not fit, and keeps what was seen."""

    settings: Settings
    gib: float
    seen: dict[int, dict[str, float]]
    reasons: list[str]

    def __call__(self, size: int) -> bool:
        """Whether the model of so many blocks and heads trains in the memory."""
        shape = family(size)
        self.settings.progress(f"{shape.depth} blocks of width {shape.width} in {self.gib:g} GiB")
        overrides = [*shape.overrides(), *self.settings.overrides]
        arguments: dict[str, Any] = {"overrides": overrides, "limit_mib": 1024 * self.gib}
        threads = self.settings.threads
        process = Process(shape.name, "normlab.bench.loops:bare", arguments, {"steps": 2}, threads)
        try:
            process.start()
            self.seen[size] = process.block()
        except NormlabError as error:
            self.reasons.append(str(error))
            return False
        finally:
            process.stop()
        return self.seen[size]["rss_mib"] <= 1024 * self.gib


def family(size: int) -> Shape:
    """So many blocks, and so many heads of 64 features; the recipe is number 6."""
    return Shape(f"size {size}", size, size, _HEAD * size, _CONTEXT, batch=1)


def largest(fits: Callable[[int], bool], first: int, most: int) -> int:
    """The largest size that fits, where all smaller ones do: doubling, then halving. 0: none."""
    low, high = 0, first
    while high < most and fits(high):
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def _largest(settings: Settings) -> tuple[Table, str]:
    gib = QUICK_GIB if settings.quick else GIB
    trial = _Trial(settings, gib, {}, [])
    size = largest(trial, 1 if settings.quick else _FIRST, _MOST)
    if not size:
        raise NormlabError(f"no model trains in {gib:g} GiB here: {trial.reasons[-1]}")
    shape, found = family(size), trial.seen[size]
    values = {
        "parameters, M": spread([found["parameters"] / 1e6]),
        "peak memory, MiB": spread([found["rss_mib"]]),
        "ms a step": spread([found["ms"]]),
    }
    name = f"{shape.depth} blocks, {shape.heads} heads, width {shape.width}"
    title = f"the largest that trains in {gib:g} GiB"
    note = (
        f"Largest model: as many blocks as heads of {_HEAD} features, context {_CONTEXT}, one "
        f"sequence a batch, in a process that is refused more than {gib:g} GiB of data; "
        f"trainer.accumulate makes larger batches in the same memory."
    )
    return Table(title, tuple(values), (Row(name, values, "ours"),), "model"), note
