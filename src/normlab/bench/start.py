"""`start`: how long until a command answers, and until the sentence trains."""

import subprocess
import sys
import tempfile
from pathlib import Path

from normlab.analysis.spread import spread
from normlab.bench.command import Command, root, trained
from normlab.bench.contender import interleave
from normlab.bench.result import Bar, Goal, Kind, Panel, Result, Row, Settings, Table, column
from normlab.bench.shapes import TINY
from normlab.bench.study import ARMS
from normlab.errors import NormlabError

HELP, FIRST = "train.py --help", "the sentence, to its first step"
CFG, WRONG, PLOT = "train.py --cfg job", "train.py norm=no_such", "plot.py, a study of 4 runs"
PYTHON, TORCH = "python -c pass", "python -c 'import torch'"
# The sentence as it stands, but what it logs is in the file at once and not after 30 s.
SENTENCE = ("-m", *ARMS, "trainer.log_every=1", "logger.flush_seconds=0")
WARM_UP = 1  # rounds that fill the file caches
MOST = {HELP: 0.7, FIRST: 4.0}


def run(settings: Settings) -> Result:
    """Time all of them in turn, each a fresh process with warm file caches."""
    with tempfile.TemporaryDirectory() as folder:
        settings.progress("training a small study to redraw")
        study = _study(Path(folder))
        commands, rounds = contenders(study, settings.threads), settings.times(7, 3)
        samples = interleave(commands, rounds, WARM_UP, progress=settings.progress)
    times = {name: spread(column(rounds, "seconds")) for name, rounds in samples.items()}
    kinds: dict[str, Kind] = {PYTHON: "limit", TORCH: "limit"}
    rows = [Row(name, {"seconds": time}, kinds.get(name, "ours")) for name, time in times.items()]
    bars = tuple(Bar(name, time, kinds.get(name, "ours")) for name, time in times.items())
    goals = [Goal(f"{name}, seconds", times[name], most=most) for name, most in MOST.items()]
    note = (
        f"The first step is there when its loss is in an event file of the run, looked for every "
        f"10 ms while `train.py {' '.join(SENTENCE)}` goes on from an empty folder; everything "
        f"before it counts: imports, checks, the plan, the validation at initialisation."
    )
    return Result(
        "start",
        "From the command to its answer",
        notes=(note, "Whole processes, from their start; file caches are warm."),
        tables=(Table("seconds", ("seconds",), tuple(rows), "command"),),
        goals=tuple(goals),
        panels=(Panel("Whole commands", "seconds", bars=bars),),
        samples=samples,
    )


def contenders(study: Path, threads: int | None) -> list[Command]:
    """Every command that is timed; `study` is one to redraw."""
    train = "{root}/train.py"
    return [
        Command(PYTHON, ["-c", "pass"]),
        Command(TORCH, ["-c", "import torch"]),
        Command(HELP, [train, "--help"]),
        Command(CFG, [train, "--cfg", "job"]),
        Command(WRONG, [train, "norm=no_such", "output_dir={folder}"], code=2),
        Command(PLOT, ["{root}/scripts/plot.py", str(study)]),
        Command(FIRST, [train, *SENTENCE, "output_dir={folder}"], threads=threads, until=trained),
    ]


def _study(folder: Path) -> Path:
    words = [*TINY.overrides(), "trainer.max_steps=20", "trainer.val_every=10", "study=small"]
    done = subprocess.run(
        [sys.executable, root() / "train.py", "-m", *ARMS, *words, f"output_dir={folder}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NormlabError(f"a small study could not be trained: {done.stderr.strip()}")
    return folder / "small"
