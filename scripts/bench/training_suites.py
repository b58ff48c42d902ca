"""`step`, `profile` and `scaling`: what a training step costs, where it goes, how it grows."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import numpy as np
from scipy import stats

import training_loops as loops
from harness import Block, Contender, RunBlock, Samples, Settings, WorkerProcess, interleave
from models import NANO, PEERS, SHAPES, TINY, Shape, is_installed
from normlab.analysis.statistics import Spread, quartile_spread, ratio_spread
from report import Json, add_bars, add_goal, add_table, column, new_result, spread_of

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
RUN, PROBED, LOOP = "normlab", "normlab, probes on", "our model, bare loop"
LAYERNORM, MATMULS, COPY = "… with layernorm", "matmuls alone", "copy"
PROBED_STEPS = 100  # conf/probes/on.yaml measures once in so many
# Of the run in bf16 over the fastest peer in fp32, then over that in the same precision.
SPEED_GOALS: dict[str, tuple[float, dict[str, float]]] = {
    "nano": (2.2, {"fp32": 1.1, "bf16": 1.25}),
    "recipe": (2.8, {"bf16": 1.2}),
}
MOST_OVERHEAD, MOST_RMSNORM = 1.03, 1.0
STEP_MS = "ms a step"

# The sizes of each axis around nano, and those of --quick.
AXES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "depth": ((1, 2, 4, 8, 16), (1, 4, 8)),
    "width": ((64, 128, 256, 512, 1024), (64, 128, 256)),
    "context": ((32, 64, 128, 256, 512), (32, 64, 128)),
    "vocabulary": ((65, 1024, 4096, 16384, 32768), (65, 1024, 4096)),
}
UNITS = {"ms": STEP_MS, "mib": "memory, MiB"}
HEAD = NANO.width // NANO.heads  # features


def measure_step(settings: Settings) -> Json:
    """A step of normlab, of other packages, in a plain loop, and of the matrix products alone."""
    result = new_result(
        "step",
        "A training step",
        {},
        "Forward, backward, clipping at 1 and fused AdamW, batch drawn in the step; each contender "
        "in a process of its own, a block of each in turn; median and quartiles over rounds.",
        *([f"normlab's with {' '.join(settings.overrides)}."] if settings.overrides else []),
    )
    for package in sorted({package for package, _ in PEERS.values()}):
        if not is_installed(package):
            result["notes"].append(f"{package} is not installed, and left out.")
    for name in settings.choose_shapes(list(SHAPES), ["nano", "recipe"], ["nano"]):
        shape = SHAPES[name]
        rounds = settings.choose_rounds(*((9, 3) if shape.steps > 1 else (3, 1)))
        samples = interleave(step_contenders(shape, settings), rounds, settings.progress)
        evaluate_step(result, shape, samples)
    return result


def step_contenders(shape: Shape, settings: Settings) -> list[Contender]:
    """Everything that is timed at a shape, in the order in which it takes turns."""
    contenders: list[Contender] = []

    def add_worker(
        name: str, set_up: Callable[..., RunBlock], steps: int = shape.steps, **arguments: object
    ) -> None:
        arguments["steps"] = steps
        contenders.append(WorkerProcess(name, set_up, arguments, settings.threads))

    for label, precision in PRECISIONS.items():
        ours = [*shape.overrides, f"trainer.precision={precision}", *settings.overrides]
        log_interval = min(10, shape.steps)
        add_worker(f"{RUN}, {label}", loops.train_run, overrides=ours, log_interval=log_interval)
        if shape.steps > 1:  # so many steps of a large model would take minutes
            probed = [*ours, "probes=on"]
            name = f"{PROBED}, {label}"
            add_worker(name, loops.train_run, PROBED_STEPS, overrides=probed, log_interval=10)
        add_worker(f"{LOOP}, {label}", loops.train_plain, overrides=ours)
        add_worker(f"{LAYERNORM}, {label}", loops.train_plain, overrides=[*ours, "norm=layernorm"])
        for peer, (package, _) in PEERS.items():
            if is_installed(package):
                name = f"{peer}, {label}"
                add_worker(name, loops.train_peer, shape=shape, peer=peer, precision=precision)
        add_worker(f"{MATMULS}, {label}", loops.multiply_matrices, shape=shape, precision=precision)
    add_worker(COPY, loops.copy_memory, 2)
    return contenders


def evaluate_step(result: Json, shape: Shape, samples: Samples) -> None:
    """Add the tables, goals and panels of a shape to the result."""
    times = {key: column(blocks, "ms") for key, blocks in samples.items()}
    least_half, least_same = SPEED_GOALS.get(shape.name, (None, {}))
    fastest, speeds = {}, []

    def time_over(reference: str) -> Callable[[Sequence[Block]], Spread]:
        return lambda blocks: ratio_spread(times[reference], column(blocks, "ms"))

    def add_ratio(what: str, over: str, under: str, **bound: float | None) -> None:
        add_goal(result, f"{shape.name}: {what}", ratio_spread(times[over], times[under]), **bound)

    for label in PRECISIONS:
        blocks = {
            key.removesuffix(f", {label}"): samples[key] for key in samples if key.endswith(label)
        }
        run, loop, matmuls = (f"{name}, {label}" for name in (RUN, LOOP, MATMULS))
        columns = {
            STEP_MS: spread_of("ms"),
            "tokens/s": lambda blocks: quartile_spread(
                [1000 * shape.tokens / b["ms"] for b in blocks]
            ),
            "peak memory, MiB": lambda blocks: quartile_spread([max(column(blocks, "rss_mib"))]),
            "share of the matmul limit": time_over(matmuls),
        }
        peers = [f"{peer}, {label}" for peer in PEERS if peer in blocks]
        if peers:
            # By the median over rounds; ratios are then taken to that peer inside each round.
            fastest[label] = min(peers, key=lambda key: quartile_spread(times[key]).median)
            columns["× fastest peer"] = time_over(fastest[label])
            what = f"tokens/s of normlab in {label} over {fastest[label]}"
            add_ratio(what, fastest[label], run, least=least_same.get(label))
        add_ratio(f"the whole run over the bare loop, {label}", run, loop, most=MOST_OVERHEAD)
        if PROBED in blocks:
            what = f"the whole run with probes over the bare loop, {label}"
            add_ratio(what, f"{PROBED}, {label}", loop, most=MOST_OVERHEAD)
        what = f"a step with rmsnorm over one with layernorm, {label}"
        add_ratio(what, loop, f"{LAYERNORM}, {label}", most=MOST_RMSNORM)
        title = f"{shape.name}, {label}"
        add_bars(
            result, add_table(result, title, "contender", blocks, columns, step_owner), STEP_MS
        )
        flops = sum(product.flops for product in shape.list_products())
        speeds.append(
            f"{quartile_spread([flops / ms / 1e6 for ms in times[matmuls]])} GFLOP/s in {label}"
        )
    if len(fastest) == len(PRECISIONS) > 1:
        what = "tokens/s of normlab in bf16 over the fastest peer in fp32"
        add_ratio(what, fastest["fp32"], f"{RUN}, bf16", least=least_half)
    copied = quartile_spread([2 * loops.COPY_BYTES / ms / 1e6 for ms in times[COPY]])
    result["notes"].append(
        f"{shape.name}: {shape.depth} blocks, {shape.heads} heads, width {shape.width}, context "
        f"{shape.context}, batch {shape.batch}, vocabulary {shape.vocabulary}; this machine's "
        f"matmuls at these sizes: {', '.join(speeds)}; it copies {copied} GB/s."
    )
    result["samples"] |= {f"{shape.name}: {key}": blocks for key, blocks in samples.items()}


def step_owner(name: str) -> str:
    """Whose a row of `step` is."""
    return "peer" if name in PEERS else "limit" if name == MATMULS else "ours"


def measure_profile(settings: Settings) -> Json:
    """Shares of a step by kind of operator, of normlab's model in the plain loop."""
    contenders = []
    for name in settings.choose_shapes(list(SHAPES), ["nano", "recipe"], ["nano"]):
        for label, precision in PRECISIONS.items():
            shape = SHAPES[name]
            ours = [*shape.overrides, f"trainer.precision={precision}", *settings.overrides]
            arguments = {"overrides": ours, "steps": shape.steps}
            contenders.append(
                WorkerProcess(f"{name} {label}", loops.profile_plain, arguments, settings.threads)
            )
    samples = interleave(contenders, settings.choose_rounds(5, 2), settings.progress)
    shares = {
        # The default binds this kind; else every lambda would see the last.
        kind: lambda blocks, kind=kind: quartile_spread(
            [100 * share for share in column(blocks, kind)]
        )
        for kind in loops.OPERATORS
    }
    result = new_result(
        "profile",
        "Where a training step goes",
        samples,
        "torch.profiler around the bare loop: time on the thread that calls, without what is "
        "called in turn; products are those of attention too, softmax with masks and the loss. "
        "ms a step without the profiler, in the block before.",
    )
    columns = shares | {STEP_MS: spread_of(STEP_MS)}
    table = add_table(result, "share of a step, %", "model", samples, columns)
    for row in table["rows"]:
        bars = [{"name": kind, "kind": "ours", "value": row["values"][kind]} for kind in shares]
        panel = {"title": row["name"], "x_label": "% of a step", "bars": bars, "whole": 100}
        result["panels"].append(panel)
    return result


def measure_scaling(settings: Settings) -> Json:
    """Time and memory of a step along each axis of the model's size, with fitted exponents."""
    axes = settings.choose_shapes(list(AXES), list(AXES), list(AXES))
    shapes = {axis: vary_shape(axis, AXES[axis][settings.quick]) for axis in axes}
    different = {shape.name: shape for varied in shapes.values() for shape in varied}
    contenders = [
        WorkerProcess(
            shape.name,
            loops.train_plain,
            {"overrides": [*shape.overrides, *settings.overrides], "steps": 5},
            settings.threads,
        )
        for shape in (*different.values(), TINY)
    ]
    samples = interleave(contenders, settings.choose_rounds(5, 2), settings.progress)
    # Python, torch and the allocator's first arenas are in each process alike.
    base = column(samples.pop(TINY.name), "rss_mib")
    for blocks in samples.values():
        for block, mib in zip(blocks, base, strict=True):
            block["mib"] = max(0.1, block["rss_mib"] - mib)  # zero has no logarithm
    result = new_result(
        "scaling",
        "Cost and memory of a training step by size",
        samples,
        "A plain loop around our model at its default precision; nano, and one size changed; batch "
        f"{NANO.batch}, heads of {HEAD} features. Memory is the peak of the process above that of "
        "one that trains a model of almost nothing. Exponent: slope of the logarithms, 95 % "
        "interval in brackets; where cost is a sum of terms it is a mean over the range, no law.",
        *([f"With {' '.join(settings.overrides)}."] if settings.overrides else []),
    )
    exponents: Json = {
        "title": "fitted exponents",
        "first": "by",
        "columns": [*UNITS.values()],
        "rows": [],
    }
    result["tables"].append(exponents)
    columns = {unit: spread_of(quantity) for quantity, unit in UNITS.items()}
    columns["parameters, M"] = lambda blocks: quartile_spread([blocks[0]["parameters"] / 1e6])
    for axis, varied in shapes.items():
        sizes = {str(getattr(shape, axis)): samples[shape.name] for shape in varied}
        table = add_table(result, f"by {axis}", axis, sizes, columns)
        x, lines = [float(size) for size in sizes], []
        for unit in UNITS.values():
            y = [row["values"][unit] for row in table["rows"]]
            fit = asdict(fit_exponent(x, [value["median"] for value in y]))
            lines.append({"name": unit, "x": x, "y": y, "exponent": fit})
        fits = {line["name"]: line["exponent"] for line in lines}
        name = f"{axis}, {x[0]:g} to {x[-1]:g}"
        exponents["rows"].append({"name": name, "kind": "ours", "values": fits})
        result["panels"].append(
            {"title": f"By {axis}", "x_label": axis, "y_label": "ms a step; MiB", "lines": lines}
        )
    return result


def vary_shape(axis: str, sizes: Sequence[int]) -> list[Shape]:
    """Nano with one size changed, and with heads of as many features."""
    shapes = [replace(NANO, **{axis: size}) for size in sizes]  # type: ignore[arg-type]
    shapes = [replace(shape, heads=shape.width // HEAD) for shape in shapes]
    return [s if s == NANO else replace(s, name=f"{axis} {getattr(s, axis)}") for s in shapes]


def fit_exponent(x: Sequence[float], y: Sequence[float]) -> Spread:
    """The slope of log y against log x, with its 95 % t-interval; of two points, without."""
    fit = stats.linregress(np.log(x), np.log(y))
    slope, freedom = float(fit.slope), len(x) - 2
    half = float(stats.t.ppf(0.975, freedom) * fit.stderr) if freedom > 0 else 0.0
    return Spread(slope, slope - half, slope + half, len(x))
