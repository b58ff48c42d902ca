"""`study` and `start`: whole commands, four runs as one study and the time to an answer."""

import tempfile
from pathlib import Path

from harness import Contender, Settings, TimedCommand, interleave
from models import NANO, SHAPES, TINY, Shape
from normlab.analysis.statistics import Spread, quartile_spread, ratio_spread
from normlab.archive import tags
from normlab.archive.events import read_events
from normlab.archive.record import EVENT_FILES
from report import Json, add_bars, add_goal, add_table, column, new_result, spread_of

TRAIN = "{root}/train.py"
ARMS = ("norm=rmsnorm,layernorm", "placement=pre,post")
RUNS = 4
STUDY, SEQUENTIAL = "the study, by default", "one after the other, all threads"
MOST_STUDY = 0.75

HELP, FIRST_STEP = "train.py --help", "README's command, to its first step"
MOST_SECONDS = {HELP: 0.7, FIRST_STEP: 4.0}
# README's first command, but what it logs is in the file at once and not after 30 s.
README_COMMAND = ("-m", *ARMS, "trainer.log_every=1", "logger.flush_seconds=0")


def measure_study(settings: Settings) -> Json:
    """Four runs from an empty folder to the figures, side by side and one after the other."""
    shape = SHAPES[settings.choose_shapes(list(SHAPES), [NANO.name], [NANO.name])[0]]
    steps = 300 if not settings.quick else 100 if shape is NANO else 4
    words = study_words(shape, steps)
    contenders = [
        TimedCommand(STUDY, words, threads=settings.threads),
        TimedCommand(SEQUENTIAL, [*words, "jobs=1"], threads=settings.threads),
    ]
    samples = interleave(contenders, settings.choose_rounds(3, 1), settings.progress, warmup=0)
    tokens, sequential = RUNS * steps * shape.tokens, column(samples[SEQUENTIAL], "seconds")
    over = ratio_spread(column(samples[STUDY], "seconds"), sequential)
    title = "Four runs, from the command to the figures"
    result = new_result("study", title, samples, f"python train.py {' '.join(words[1:-1])}")
    table = add_table(
        result,
        f"{RUNS} runs of {steps} steps, {shape.name}",
        "command",
        samples,
        {
            "seconds": spread_of("seconds"),
            "tokens/s, start and figures included": lambda blocks: quartile_spread(
                [tokens / seconds for seconds in column(blocks, "seconds")]
            ),
            "over one by one": lambda blocks: ratio_spread(column(blocks, "seconds"), sequential),
        },
        lambda name: "ours" if name == STUDY else "other",
    )
    add_goal(result, f"{STUDY} over {SEQUENTIAL}", over, most=MOST_STUDY)
    add_bars(result, table, "seconds")
    return result


def study_words(shape: Shape, steps: int) -> list[str]:
    """The command after `python`."""
    length = (f"trainer.max_steps={steps}", f"trainer.val_every={steps}")
    return [TRAIN, "-m", *ARMS, *shape.overrides, *length, "output_dir={folder}"]


def measure_start(settings: Settings) -> Json:
    """Seconds until a command answers, and until README's first command trains."""
    with tempfile.TemporaryDirectory() as folder:
        settings.progress("training a small study to redraw")
        # Without its last word, the new folder of each block: plot.py needs the study later.
        small = [*study_words(TINY, 20)[:-1], "study=small", f"output_dir={folder}"]
        TimedCommand("a small study", small).run_block()
        contenders = start_contenders(f"{folder}/small", settings.threads)
        # The warm-up round fills the file caches.
        samples = interleave(contenders, settings.choose_rounds(7, 3), settings.progress)
    result = new_result(
        "start",
        "From the command to its answer",
        samples,
        "The first step is there when its loss is in an event file of the run, looked for every "
        f"10 ms while `train.py {' '.join(README_COMMAND)}` goes on from an empty folder; "
        "everything before it counts: imports, checks, the plan, the validation at "
        "initialization.",
        "Whole processes, from their start; file caches are warm.",
    )
    table = add_table(
        result,
        "whole commands",
        "command",
        samples,
        {"seconds": spread_of("seconds")},
        lambda name: "limit" if name.startswith("python") else "ours",
    )
    add_bars(result, table, "seconds")
    for row in table["rows"]:
        if most := MOST_SECONDS.get(row["name"]):
            value = Spread(**row["values"]["seconds"])
            add_goal(result, f"{row['name']}, seconds", value, most=most)
    return result


def start_contenders(study: str, threads: int | None) -> list[Contender]:
    """The commands that are timed; plot.py redraws the study."""
    first_step = [TRAIN, *README_COMMAND, "output_dir={folder}"]
    return [
        TimedCommand("python -c pass", ["-c", "pass"]),
        TimedCommand("python -c 'import torch'", ["-c", "import torch"]),
        TimedCommand(HELP, [TRAIN, "--help"]),
        TimedCommand("train.py --cfg job", [TRAIN, "--cfg", "job"]),
        TimedCommand("train.py norm=no_such", [TRAIN, "norm=no_such"], code=2),
        TimedCommand("plot.py, a study of 4 runs", ["{root}/scripts/plot.py", study]),
        TimedCommand(FIRST_STEP, first_step, threads=threads, until=has_trained),
    ]


def has_trained(folder: Path) -> bool:
    """Whether an event file of a run below the folder holds the loss of a training step."""
    runs = {path.parent for path in folder.rglob(EVENT_FILES)}
    return any(tags.TRAIN_LOSS in read_events(run).scalars for run in runs)
