"""`study`: four runs as one command carries them out, against one after the other."""

from normlab.analysis.spread import ratio, spread
from normlab.bench.command import Command
from normlab.bench.contender import interleave
from normlab.bench.result import Bar, Goal, Panel, Result, Row, Settings, Table, column
from normlab.bench.shapes import NANO, SHAPES, Shape, chosen
from normlab.config.schema import TrainConfig

STUDY, ONE_BY_ONE = "the study, by default", "one after the other, all threads"
# What each adds to the same command. Without the key, every study goes one by one.
_ALONE = ("jobs=1",) if "jobs" in TrainConfig.__dataclass_fields__ else ()
COMMANDS: dict[str, tuple[str, ...]] = {STUDY: (), ONE_BY_ONE: _ALONE}
ARMS = ("norm=rmsnorm,layernorm", "placement=pre,post")
RUNS = 4
MOST = 0.75


def run(settings: Settings) -> Result:
    """Time both commands, from an empty folder to figures."""
    (name,) = chosen(settings.shapes, list(SHAPES), [NANO.name])[:1]
    shape, steps = SHAPES[name], 300
    if settings.quick:
        steps = 100 if shape is NANO else 4
    contenders = [
        Command(name, words(shape, steps, added), threads=settings.threads)
        for name, added in COMMANDS.items()
    ]
    samples = interleave(contenders, settings.times(3, 1), warm_up=0, progress=settings.progress)
    seconds = {name: column(rounds, "seconds") for name, rounds in samples.items()}
    trained = RUNS * steps * shape.tokens
    rows = [
        Row(
            name,
            {
                "seconds": spread(seconds[name]),
                "tokens/s, start and figures included": spread(
                    [trained / s for s in seconds[name]]
                ),
                "over one by one": ratio(seconds[name], seconds[ONE_BY_ONE]),
            },
            "ours" if name == STUDY else "other",
        )
        for name in COMMANDS
    ]
    table = Table(f"{RUNS} runs of {steps} steps, {shape.name}", tuple(rows[0].values), tuple(rows))
    bars = tuple(Bar(row.name, row.values["seconds"], row.kind) for row in rows)
    return Result(
        "study",
        "Four runs, from the command to the figures",
        notes=(f"python {' '.join(words(shape, steps, ()))}",),
        tables=(table,),
        goals=(Goal(f"{STUDY} over {ONE_BY_ONE}", rows[0].values["over one by one"], most=MOST),),
        panels=(Panel(table.title, "seconds", bars=bars),),
        samples=samples,
    )


def words(shape: Shape, steps: int, added: tuple[str, ...]) -> list[str]:
    """The command after python."""
    return [
        "{root}/train.py",
        "-m",
        *ARMS,
        *shape.overrides(),
        f"trainer.max_steps={steps}",
        f"trainer.val_every={steps}",
        "output_dir={folder}",
        *added,
    ]
