"""`step`: a training step here, elsewhere, in a plain loop, and of the matrix products alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from normlab.analysis.spread import Spread, ratio, spread
from normlab.bench.contender import Contender, Samples, interleave
from normlab.bench.peers import PEERS
from normlab.bench.process import Process, installed
from normlab.bench.result import Bar, Goal, Kind, Panel, Result, Row, Settings, Table, column
from normlab.bench.shapes import SHAPES, Shape, chosen

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
RUN, PROBED, LOOP, LAYERNORM, MATMULS = (
    "normlab",
    "normlab, probes on",
    "our model, bare loop",
    "… with layernorm",
    "matmuls alone",
)
COPY = "copy"
MOST_OVERHEAD, MOST_RMSNORM = 1.03, 1.0
PROBED_STEPS = 100  # conf/probes/on.yaml measures once in so many
# Of the run in bf16 over the fastest peer in fp32; then in the same precision, by precision.
GOALS = {
    "nano": (2.2, {"fp32": 1.1, "bf16": 1.25}),
    "recipe": (2.8, {"bf16": 1.2}),
}


def run(settings: Settings) -> Result:
    """Measure every shape asked for."""
    names = chosen(
        settings.shapes, list(SHAPES), ["nano"] if settings.quick else ["nano", "recipe"]
    )
    parts = [_shape(SHAPES[name], settings) for name in names]
    return Result(
        "step",
        "A training step",
        notes=(*_notes(settings), *(note for part in parts for note in part.notes)),
        tables=tuple(table for part in parts for table in part.tables),
        goals=tuple(goal for part in parts for goal in part.goals),
        panels=tuple(panel for part in parts for panel in part.panels),
        samples={key: value for part in parts for key, value in part.samples.items()},
    )


def _notes(settings: Settings) -> list[str]:
    missing = sorted({package for package, _ in PEERS.values() if not installed(package)})
    left_out = [f"{package} is not installed, and left out" for package in missing]
    return [
        "Forward, backward, clipping at 1 and fused AdamW, batch drawn in the step; each contender "
        "in a process of its own, a block of each in turn; median and quartiles over rounds.",
        *([f"normlab's with {' '.join(settings.overrides)}."] if settings.overrides else []),
        *left_out,
    ]


def _shape(shape: Shape, settings: Settings) -> Result:
    rounds = settings.times(*((9, 3) if shape.steps > 1 else (3, 1)))
    samples = interleave(contenders(shape, settings), rounds, progress=settings.progress)
    return evaluated(shape, samples)


def contenders(shape: Shape, settings: Settings) -> list[Contender]:
    """Everything that is measured at a shape, in the order in which it takes turns."""
    process = partial(Process, threads=settings.threads, turn={"steps": shape.steps})
    found: list[Contender] = []
    for label, precision in PRECISIONS.items():
        ours = [*shape.overrides(), f"trainer.precision={precision}", *settings.overrides]
        log_every = f"trainer.log_every={min(10, shape.steps)}"
        size = {"shape": shape.plain(), "precision": precision}
        wanted: dict[str, tuple[str, dict[str, Any]]] = {
            RUN: ("whole_run:whole", {"overrides": [log_every, *ours]}),
            LOOP: ("loops:bare", {"overrides": ours}),
            LAYERNORM: ("loops:bare", {"overrides": [*ours, "norm=layernorm"]}),
            MATMULS: ("limits:products", size),
        }
        if shape.steps > 1:  # so many of a large one would take minutes
            probed = {"overrides": ["trainer.log_every=10", *ours, "probes=on"]}
            wanted[PROBED] = ("whole_run:whole", probed)
        for name, (package, _) in PEERS.items():
            if installed(package):
                wanted[name] = ("loops:peer", {**size, "name": name})
        for name, (function, arguments) in wanted.items():
            one = process(_key(name, label), f"normlab.bench.{function}", arguments)
            found.append(replace(one, turn={"steps": PROBED_STEPS}) if name == PROBED else one)
    found.append(process(COPY, "normlab.bench.limits:copy", {}, turn={"steps": 2}))
    return found


def _key(name: str, label: str) -> str:
    return f"{name}, {label}"


def evaluated(shape: Shape, samples: Samples) -> Result:
    """Tables, goals and panels from the samples of a shape."""
    names = [RUN, PROBED, LOOP, LAYERNORM, *PEERS, MATMULS]
    tables, panels = [], []
    for label in PRECISIONS:
        there = [name for name in names if _key(name, label) in samples]
        tables.append(_table(shape, samples, label, there))
        bars = tuple(Bar(name, _ms(samples, name, label), kind(name)) for name in there)
        panels.append(Panel(f"{shape.name}, {label}", "ms a step", bars=bars))
    peak = {key: spread(column(samples[_key(MATMULS, key)], "gflops")) for key in PRECISIONS}
    peaks = ", ".join(f"{one} GFLOP/s in {label}" for label, one in peak.items())
    copied = spread(column(samples[COPY], "gb_per_second"))
    note = (
        f"{shape.name}: {shape.depth} blocks, {shape.heads} heads, width {shape.width}, context "
        f"{shape.context}, batch {shape.batch}, vocabulary {shape.vocabulary}; this machine's "
        f"matmuls at these sizes: {peaks}; it copies {copied} GB/s."
    )
    kept = {f"{shape.name}: {key}": rounds for key, rounds in samples.items()}
    return Result("step", "", (note,), tuple(tables), _goals(shape, samples), tuple(panels), kept)


def kind(name: str) -> Kind:
    """Whose a contender is."""
    if name in PEERS:
        return "peer"
    return "limit" if name == MATMULS else "ours"


def _ms(samples: Samples, name: str, label: str) -> Spread:
    return spread(column(samples[_key(name, label)], "ms"))


def _table(shape: Shape, samples: Samples, label: str, names: Sequence[str]) -> Table:
    fastest = _fastest(samples, label)
    rows = []
    for name in names:
        rounds = samples[_key(name, label)]
        times = column(rounds, "ms")
        values = {
            "ms a step": spread(times),
            "tokens/s": spread([1000 * shape.tokens / ms for ms in times]),
            "peak memory, MiB": spread([max(column(rounds, "rss_mib"))]),
            "share of the matmul limit": ratio(column(samples[_key(MATMULS, label)], "ms"), times),
        }
        if fastest is not None:
            values["× fastest peer"] = ratio(column(samples[fastest], "ms"), times)
        rows.append(Row(name, values, kind(name)))
    columns = tuple(rows[0].values)
    return Table(f"{shape.name}, {label}", columns, tuple(rows), "contender")


def _fastest(samples: Samples, label: str) -> str | None:
    """The key of the peer with the lowest median in a precision."""
    keys = [_key(name, label) for name in PEERS if _key(name, label) in samples]
    return min(keys, key=lambda key: spread(column(samples[key], "ms")).median, default=None)


def _goals(shape: Shape, samples: Samples) -> tuple[Goal, ...]:
    least, same = GOALS.get(shape.name, (None, {}))

    def over(one: str, other: str) -> Spread:
        return ratio(column(samples[one], "ms"), column(samples[other], "ms"))

    goals = []
    speed: Callable[[str], str] = f"{shape.name}: tokens/s of normlab in {{}}".format
    single = _fastest(samples, "fp32")
    if single is not None and _key(RUN, "bf16") in samples:
        what = f"{speed('bf16')} over the fastest peer in fp32"
        goals.append(Goal(what, over(single, _key(RUN, "bf16")), least=least))
    for label in PRECISIONS:
        fastest = _fastest(samples, label)
        if fastest is not None:
            what = f"{speed(label)} over {fastest}"
            goals.append(Goal(what, over(fastest, _key(RUN, label)), least=same.get(label)))
        what = f"{shape.name}: the whole run over the bare loop, {label}"
        goals.append(Goal(what, over(_key(RUN, label), _key(LOOP, label)), most=MOST_OVERHEAD))
        if (probed := _key(PROBED, label)) in samples:
            what = f"{shape.name}: the whole run with probes over the bare loop, {label}"
            goals.append(Goal(what, over(probed, _key(LOOP, label)), most=MOST_OVERHEAD))
        what = f"{shape.name}: a step with rmsnorm over one with layernorm, {label}"
        goals.append(Goal(what, over(_key(LOOP, label), _key(LAYERNORM, label)), most=MOST_RMSNORM))
    return tuple(goals)
