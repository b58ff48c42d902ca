"""All that is measured on a GPU, in one command and under ten minutes.

    python scripts/bench/gpu.py

Each row of the table "The GPU" in docs/performance.md is measured in turn, and the table is written
with the card's name, after every row. A row that fails, or for which the time is up, says so; the
others stay.
`--rows 2,5` measures some of them, and leaves the others as they were.
"""

import gc
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from torch.utils.benchmark import Timer

from command_suites import ARMS, TRAIN
from harness import ROOT, TimedCommand
from norm_suite import (
    COPY,
    COPY_PASSES,
    MODULE,
    PASSES,
    RMS_NORM,
    compose_norms,
    list_calls,
    list_norms,
)
from normlab.archive.files import write_text
from normlab.archive.study import Run, read_study
from normlab.config.run_spec import RunSpec
from normlab.data import build_source
from normlab.errors import CommandParser, ConfigError, NormlabError, report_user_errors
from normlab.text import one_line
from normlab.training.hardware import resolve_hardware
from normlab.training.stack import Stack, StackBatches
from normlab.training.stack_groups import build_stack_model
from report import split_page
from training_loops import compose_run

PAGE = ROOT / "docs" / "performance.md"
BUDGET_SECONDS = 570.0
OPEN = "open"


@dataclass(frozen=True)
class Size:
    """How much is measured: `FULL`, or less in a test on a CPU."""

    device: str
    overrides: tuple[str, ...]  # of every run
    study: tuple[str, ...]  # of the study of many runs
    stack: int
    steps: int
    shapes: tuple[tuple[int, int], ...]  # tokens and width
    norms: int | None  # how many norms of the catalogue; None: all
    compiles: bool


FULL = Size(
    device="cuda",
    overrides=("trainer=gpu",),
    study=("sweep=lr", "seed=0,1,2,3,4,5,6,7"),
    stack=64,
    steps=100,
    shapes=((768, 128), (16384, 384), (16384, 2048)),
    norms=None,
    compiles=True,
)


@dataclass(frozen=True)
class Row:
    """A row of the table: what is measured, what is aimed at, and how it is measured."""

    what: str
    aim: str
    measure: Callable[[Size], str]


def time_many_runs(size: Size) -> str:
    """A learning-rate study with eight seeds."""
    seconds, runs = run_study(*ARMS, *size.study, *size.overrides)
    return f"{seconds:.0f} s ({len(runs)} runs)"


def run_study(*overrides: str) -> tuple[float, Sequence[Run]]:
    """Seconds of a study in a process of its own, and its runs with a result."""
    with tempfile.TemporaryDirectory() as folder:
        words = [TRAIN, "-m", *overrides, f"output_dir={folder}"]
        seconds = TimedCommand("the study", words).run_block()["seconds"]
        (study,) = Path(folder).iterdir()
        return seconds, read_study(study).runs


def measure_stack(size: Size, runs: int, compiled: bool) -> str:
    """Run-steps a second of a stack at the nano shape."""
    stack, batches = build_stack(size, runs)
    # Captures the CUDA graph, about a second that is no part of a step.
    stack.prepare(batches.batch(0))
    if compiled:
        began = time.perf_counter()
        stack.compile_step()
        note = f"; compiled in {time.perf_counter() - began:.0f} s"
    else:
        note = "" if stack.graph else f"; no graph: {stack.graph_problem}"
    prepared = [batches.batch(index) for index in range(8)]
    for batch in prepared:  # the first steps are slower
        stack.take_step(batch)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        for index in range(size.steps):
            stack.take_step(prepared[index % len(prepared)])
        stack.losses.sum().item()  # waits for the device
        seconds.append((time.perf_counter() - began) / size.steps)
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    speeds = f"{runs / middle:,.0f} ({runs / high:,.0f}–{runs / low:,.0f})"
    return f"{speeds}, {runs} run{'s' * (runs > 1)}{note}"


def build_stack(size: Size, runs: int) -> tuple[Stack, StackBatches]:
    """A stack of runs that differ in seed and learning rate."""
    specs: list[RunSpec] = [
        compose_run([*size.overrides, f"seed={seed % 8}", f"optimizer.lr={1e-4 * (1 + seed)}"])
        for seed in range(runs)
    ]
    first = specs[0]
    source = build_source(first.plain["data"], first.config.model.context)
    hardware = resolve_hardware(first.config.trainer)
    models = [build_stack_model(spec.config, source.vocabulary) for spec in specs]
    configs = [spec.config for spec in specs]
    stack = Stack(models, configs, torch.device(hardware.device), hardware.precision)
    return stack, StackBatches(source, stack, first.config.trainer.max_steps)


def compare_own_norms(size: Size) -> str:
    """Ratios of rmsnorm and layernorm to torch's own, forward and backward, bf16."""
    # On a GPU torch's layer_norm takes parameters in the dtype of its input, as the module has.
    references = {"rmsnorm": RMS_NORM, "layernorm": MODULE}
    configs = compose_norms(references)
    parts = []
    for tokens, width in size.shapes:
        calls = list_calls(configs, tokens, width, torch.bfloat16, size.device)
        for name, reference in references.items():
            ratio = time_call(calls[name]) / time_call(calls[reference])
            parts.append(f"{name} {tokens}×{width} {ratio:.2f}")
    return "; ".join(parts)


def measure_bandwidth(size: Size) -> str:
    """The catalogue's norms, compiled, as a share of the time that copies alone would take."""
    configs = compose_norms(list_norms()[: size.norms])
    calls = list_calls(configs, *size.shapes[-1], torch.bfloat16, size.device, size.compiles)
    limit = PASSES / COPY_PASSES * time_call(calls[COPY])
    shares = {}
    for name in configs:
        # All norms that are formulas share the code of one `forward`, and torch stops compiling it
        # anew after 8 times.
        torch.compiler.reset()
        shares[name] = limit / time_call(calls[name])
    least, most = (choose(shares, key=lambda name: shares[name]) for choose in (min, max))
    return f"{least} {shares[least]:.2f} to {most} {shares[most]:.2f} of the copy limit"


def time_call(call: Callable[[], object]) -> float:
    """Seconds of a call, the median of several measurements."""
    # torch's Timer waits for the device whenever it reads the clock.
    timer = Timer("call()", globals={"call": call})
    return float(timer.blocked_autorange(min_run_time=0.05).median)


def train_published_recipe(size: Size) -> str:
    """Train nanoGPT's recipe for TinyShakespeare on a GPU."""
    overrides = ("experiment=nanogpt_gpu", "trainer=gpu", "trainer.compile=graphs", "seed=0")
    _, runs = run_study(*overrides)
    record = runs[0].record
    if record.best.val_loss is None:
        raise NormlabError(f"the run has no validation loss: {record.reason}")
    speed = (record.tokens_per_second or 0) / 1e6
    return f"{record.best.val_loss:.4f} / {speed:.2f}M"


ROWS = (
    Row(
        "the README's command, from start to figures",
        "≤ 25 s",
        lambda size: f"{run_study(*ARMS, *size.overrides)[0]:.0f} s",
    ),
    Row(
        "run-steps a second at nano shape, stack, not compiled",
        "≥ 5,000",
        lambda size: measure_stack(size, size.stack, False),
    ),
    Row(
        "run-steps a second at nano shape, stack, compiled",
        "≥ 13,000",
        lambda size: measure_stack(size, size.stack, size.compiles),
    ),
    Row(
        "steps a second of one run at nano shape, not compiled",
        "≥ 500",
        lambda size: measure_stack(size, 1, False),
    ),
    Row("224 runs: two norms, two placements, seven rates, eight seeds", "≤ 120 s", time_many_runs),
    Row(
        "rmsnorm, layernorm, × torch's own, forward and backward, bf16", "≤ 1.05", compare_own_norms
    ),
    Row("any norm, compiled, forward and backward, bf16", "≥ 0.5", measure_bandwidth),
    Row(
        "nanoGPT's GPU recipe: best validation loss / tokens a second",
        "≤ 1.47 / ≥ 2.55M",
        train_published_recipe,
    ),
)


def measure_rows(
    size: Size, numbers: Sequence[int], budget: float, store: Callable[[dict[int, str]], None]
) -> dict[int, str]:
    """The results of rows by their number, from 1; a row that fails says why.

    `store` is called with the result of each row as soon as there is one.
    """
    began, results = time.monotonic(), {}
    for number in numbers:
        row = ROWS[number - 1]
        if time.monotonic() - began > budget:
            results[number] = f"{OPEN}: no time was left"
            store({number: results[number]})
            continue
        print(f"{number}/{len(ROWS)}  {row.what}", flush=True)
        try:
            results[number] = row.measure(size)
        except (RuntimeError, ValueError, OSError, NormlabError) as error:
            reason = one_line(error, 150).replace("|", "/")
            results[number] = f"{OPEN}: failed ({type(error).__name__}: {reason})"
        # The next row has all of the card's memory.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        print(f"     {results[number]}", flush=True)
        store({number: results[number]})
    return results


def write_table(page: Path, card: str, results: dict[int, str]) -> None:
    """Write results into the table of the page; rows without a result stay as they are.

    Raises:
        NormlabError: the page has no such table, or cannot be written.
    """
    before, table, after = split_page(page, "<!-- gpu table -->\n", "<!-- end -->")
    # A row that is not measured now keeps its result, and the card and the day of that result.
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \| ([^|]*) \|$", table, re.MULTILINE)
    measured = {int(number): (result, where) for number, result, where in rows}
    today = f"{card}, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}"
    measured |= {number: (result, today) for number, result in results.items()}
    lines = ["| row | what | aim | measured | on |", "|---:|---|---:|---|---|"]
    for number, row in enumerate(ROWS, 1):
        result, where = measured.get(number, (OPEN, "–"))
        lines.append(f"| {number} | {row.what} | {row.aim} | {result} | {where} |")
    write_text(page, before + "\n".join(lines) + "\n" + after)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = CommandParser(prog="gpu.py", description="Measure all rows of docs/performance.md.")
    parser.add_argument("--rows", default="", help="numbers of rows, 1,2,5; all without it")
    with report_user_errors():
        options = parser.parse_args(arguments)
        numbers = read_rows(options.rows)
        if not torch.cuda.is_available():
            raise ConfigError(
                "no NVIDIA GPU can be used here, and every row is measured on one; run this on a "
                "machine that has one, with a CUDA build of torch."
            )
        card = torch.cuda.get_device_name()
        results = measure_rows(FULL, numbers, BUDGET_SECONDS, partial(write_table, PAGE, card))
        print(json.dumps(results, indent=1))


def read_rows(text: str) -> list[int]:
    """The rows of `--rows`. Raises ConfigError."""
    words = [word for word in text.split(",") if word]
    for word in words:
        if not word.isdecimal() or not 1 <= int(word) <= len(ROWS):
            raise ConfigError(
                f"--rows {word} is not a row number; rows are numbers from 1 to {len(ROWS)}."
            )
    return [int(word) for word in words] or list(range(1, len(ROWS) + 1))


if __name__ == "__main__":
    main()
