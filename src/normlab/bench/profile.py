"""`profile`: where the time of a training step goes, by kind of operator."""

from functools import partial

from normlab.analysis.spread import Spread, spread
from normlab.bench.contender import Samples, interleave
from normlab.bench.process import Process
from normlab.bench.result import Bar, Panel, Result, Row, Settings, Table, column
from normlab.bench.shapes import SHAPES, chosen
from normlab.bench.step import PRECISIONS

STEP = "ms a step"


def run(settings: Settings) -> Result:
    """Profile our model in the bare loop at every shape asked for, in both precisions."""
    usual = ["nano"] if settings.quick else ["nano", "recipe"]
    names = chosen(settings.shapes, list(SHAPES), usual)
    rounds = settings.times(5, 2)
    return evaluated(interleave(contenders(names, settings), rounds, progress=settings.progress))


def contenders(names: list[str], settings: Settings) -> list[Process]:
    """A process for every shape and precision."""
    process = partial(Process, function="normlab.bench.profiling:profiled")
    return [
        process(
            f"{name} {label}",
            arguments={
                "overrides": [
                    *SHAPES[name].overrides(),
                    f"trainer.precision={precision}",
                    *settings.overrides,
                ]
            },
            turn={"steps": SHAPES[name].steps},
            threads=settings.threads,
        )
        for name in names
        for label, precision in PRECISIONS.items()
    ]


def evaluated(samples: Samples) -> Result:
    """Shares of a step by kind of operator, a column a contender."""
    kinds = [key for key in next(iter(samples.values()))[0] if key != STEP]
    found = {
        kind: {name: _percent(column(rounds, kind)) for name, rounds in samples.items()}
        for kind in kinds
    }
    times = {name: spread(column(rounds, STEP)) for name, rounds in samples.items()}
    rows = [Row(f"{kind}, %", values) for kind, values in found.items()]
    rows.append(Row(STEP, times))
    panels = [
        Panel(
            name,
            "% of a step",
            bars=tuple(Bar(kind, found[kind][name], "ours") for kind in kinds),
            whole=100,
        )
        for name in samples
    ]
    return Result(
        "profile",
        "Where a training step goes",
        notes=(
            "torch.profiler around the bare loop: time on the thread that calls, without what is "
            "called in turn; products are those of attention too, softmax with masks and the loss. "
            "ms a step without the profiler, in the block before.",
        ),
        tables=(Table("share of a step", tuple(samples), tuple(rows), "operators"),),
        panels=tuple(panels),
        samples=samples,
    )


def _percent(shares: list[float]) -> Spread:
    return spread([100 * share for share in shares])
