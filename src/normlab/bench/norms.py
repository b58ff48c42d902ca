"""`norms`: forward and backward of every norm of conf/norm, against torch's and a copy."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from normlab import config
from normlab.analysis.spread import Spread, ratio, spread
from normlab.bench.compose import specified
from normlab.bench.contender import REST_SECONDS, Samples
from normlab.bench.norm_timing import COPY, LAYER_NORM, MODULE, RMS_NORM
from normlab.bench.process import Process
from normlab.bench.result import (
    Goal,
    Grid,
    Kind,
    Panel,
    Result,
    Row,
    Settings,
    Table,
    column,
)
from normlab.bench.shapes import chosen

SHAPES = {f"{tokens}x{width}": (tokens, width) for tokens, width in (
    (768, 128), (1024, 512), (4096, 384), (8192, 1024), (16, 16),
)}  # fmt: skip
STANDARD = list(SHAPES)[:4]
QUICK = ["768x128", "1024x512"]
DTYPES = ("fp32", "bf16")
# Read x, write y; read x and dy, write dx. A copy is two.
PASSES, COPY_PASSES = 5, 2
MOST_RMSNORM, MOST_OTHERS, WIDE = 1.0, 2.0, 512
# glibc maps fresh pages for every large tensor, unless told to keep them.
ALLOCATORS = {
    "pages fresh": {},
    "pages kept": {
        "MALLOC_MMAP_THRESHOLD_": str(2**31),
        "MALLOC_TRIM_THRESHOLD_": str(2**33),
    },
}


@dataclass(frozen=True)
class Setup:
    """A process that measures all shapes."""

    threads: int | None
    allocator: str

    def __str__(self) -> str:
        threads = {None: "all threads", 1: "1 thread"}.get(self.threads)
        return f"{threads or f'{self.threads} threads'}, {self.allocator}"


def run(settings: Settings) -> Result:
    """Measure every shape in fp32 and bf16: all threads and one, both ways to get memory."""
    shapes = chosen(settings.shapes, list(SHAPES), QUICK if settings.quick else STANDARD)
    setups = _setups(settings)
    rounds = settings.times(7, 5)
    kept: Samples = {}
    for setup in setups:
        process = Process(
            str(setup),
            "normlab.bench.norm_timing:measure",
            {"norms": configurations()},
            threads=setup.threads,
            environment=ALLOCATORS[setup.allocator],
        )
        try:
            process.start()
            for shape, dtype in _cases(shapes):
                settings.progress(f"{setup}, {shape} {dtype}")
                kept[f"{setup}: {shape} {dtype}"] = _rounds(process, shape, dtype, rounds)
        finally:
            process.stop()
    return evaluated(kept, setups, shapes)


def _setups(settings: Settings) -> list[Setup]:
    if settings.threads is not None:
        return [Setup(settings.threads, allocator) for allocator in ALLOCATORS]
    kept = [Setup(threads, "pages kept") for threads in (None, 1)]
    return kept if settings.quick else [Setup(None, "pages fresh"), *kept]


def configurations() -> dict[str, Any]:
    """Every norm of conf/norm but `none`, as a run's configuration has it."""
    files = sorted((config.conf_folder() / "norm").glob("*.yaml"))
    names = [file.stem for file in files if file.stem != "none"]
    return {name: specified([f"norm={name}"]).plain["norm"] for name in names}


def _cases(shapes: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((shape, dtype) for shape in shapes for dtype in DTYPES)


def _rounds(process: Process, shape: str, dtype: str, rounds: int) -> list[dict[str, float]]:
    """All norms in turn, that many times; the first round is for warming up."""
    tokens, width = SHAPES[shape]
    found = []
    for number in range(-1, rounds):
        time.sleep(REST_SECONDS)
        turn = {"tokens": tokens, "width": width, "dtype": dtype, "first": number < 0}
        found.append(process.ask(turn))
    return found[1:]


def evaluated(kept: Samples, setups: Sequence[Setup], shapes: Sequence[str]) -> Result:
    """Tables of ratios and distances, and the goals, from samples by set-up and case."""
    names = _names(kept)
    tables, panels = [], []
    for setup in setups:
        cases = {f"{s} {d}": kept[f"{setup}: {s} {d}"] for s, d in _cases(shapes)}
        rows = [
            Row(name, {case: _over(cases[case], name, LAYER_NORM) for case in cases}, kind(name))
            for name in names
        ]
        times = {case: spread(column(cases[case], LAYER_NORM)) for case in cases}
        rows.append(Row(f"{LAYER_NORM}, ms", times))
        tables.append(
            Table(f"time over {LAYER_NORM}'s, {setup}", tuple(cases), tuple(rows), "norm")
        )
        values = tuple(tuple(row.values[case].median for case in cases) for row in rows[:-1])
        heads = tuple(case.replace(" ", "\n") for case in cases)
        title = f"Time over {LAYER_NORM}'s: {setup}"
        panels.append(Panel(title, grid=Grid(tuple(names), heads, values)))
    tables.append(_distances(kept, setups, shapes))
    notes = (
        "Forward and backward of one norm, gradients of the input and the parameters; all norms "
        "in one process, a block of each in turn, of which the median call counts; ratios inside a "
        "round. Half precision: input "
        f"in bf16, parameters in fp32 ({RMS_NORM} and {MODULE}: in bf16).",
        f"The limit is {PASSES} passes over the tensor at the speed of a copy, which is "
        f"{COPY_PASSES}. Pages fresh: glibc's defaults, which map and zero new pages for every "
        "large tensor; kept: MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ raised.",
    )
    goals = _goals(kept, setups, shapes, names)
    return Result(
        "norms", "Norms, forward and backward", notes, tuple(tables), goals, tuple(panels), kept
    )


def _names(kept: Samples) -> list[str]:
    """The catalogue's fast ones first, as they come, then torch's."""
    theirs = [RMS_NORM, MODULE, COPY]
    found = next(iter(kept.values()))[0]
    ours = [name for name in found if name not in (*theirs, LAYER_NORM)]
    first = ("rmsnorm", "layernorm")
    return [*first, *(name for name in ours if name not in first), *theirs]


def kind(name: str) -> Kind:
    """Whose a line is."""
    if name == COPY:
        return "limit"
    return "peer" if name in (LAYER_NORM, RMS_NORM, MODULE) else "ours"


def _over(rounds: Sequence[dict[str, float]], name: str, other: str) -> Spread:
    return ratio(column(rounds, name), column(rounds, other))


def _distances(kept: Samples, setups: Sequence[Setup], shapes: Sequence[str]) -> Table:
    """How many times the copy limit the two norms and torch's take."""
    names = ("rmsnorm", "layernorm", LAYER_NORM, RMS_NORM)
    rows = []
    for setup in setups:
        for shape, dtype in _cases(shapes):
            rounds = kept[f"{setup}: {shape} {dtype}"]
            copies = [ms * PASSES / COPY_PASSES for ms in column(rounds, COPY)]
            values = {name: ratio(column(rounds, name), copies) for name in names}
            limit = {"limit, ms": spread(copies)}
            rows.append(Row(f"{shape} {dtype}, {setup}", limit | values))
    return Table("time over the copy limit's", ("limit, ms", *names), tuple(rows), "case")


def _goals(
    kept: Samples, setups: Sequence[Setup], shapes: Sequence[str], names: Sequence[str]
) -> tuple[Goal, ...]:
    """RMSNorm where it is wide, and the slowest of the others, in each set-up."""
    goals = []
    for setup in setups:
        for shape, dtype in _cases(shapes):
            rounds = kept[f"{setup}: {shape} {dtype}"]
            case = f"{shape} {dtype}, {setup}"
            if SHAPES[shape][1] >= WIDE:
                value = _over(rounds, "rmsnorm", LAYER_NORM)
                goals.append(Goal(f"rmsnorm over {LAYER_NORM}, {case}", value, most=MOST_RMSNORM))
            others = [name for name in names if kind(name) == "ours" and name != "rmsnorm"]
            worst = max(others, key=lambda name: _over(rounds, name, LAYER_NORM).median)
            value = _over(rounds, worst, LAYER_NORM)
            goals.append(Goal(f"slowest other, {worst}, {case}", value, most=MOST_OTHERS))
    return tuple(goals)
