"""`norms`: forward and backward of every norm of conf/norm, against torch's and a copy."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from harness import Block, RunBlock, Samples, Settings, WorkerProcess, interleave
from normlab import config
from normlab.analysis.statistics import quartile_spread, ratio_spread
from normlab.norms import norm_factory
from normlab.norms.timing import build_gradient_call
from report import ComputeNumber, Json, add_goal, add_table, column, new_result, spread_of
from training_loops import compose_run

# By name: tokens and width. The first two are those of --quick, the last is for tests.
SHAPES = {
    f"{tokens}x{width}": (tokens, width)
    for tokens, width in ((768, 128), (1024, 512), (4096, 384), (8192, 1024), (16, 16))
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
COPY, LAYER_NORM, RMS_NORM, MODULE = "copy", "F.layer_norm", "F.rms_norm", "nn.LayerNorm"
# Read x, write y; read x and dy, write dx. A copy is two.
PASSES, COPY_PASSES = 5, 2
MOST_RMSNORM, MOST_SLOWEST, WIDE = 1.0, 2.0, 512
BLOCK_SECONDS = 0.005
# glibc maps fresh pages for every large tensor, unless its thresholds are raised.
ALLOCATORS: dict[str, dict[str, str]] = {
    "pages fresh": {},
    "pages kept": {
        "MALLOC_MMAP_THRESHOLD_": str(2**31),
        "MALLOC_TRIM_THRESHOLD_": str(2**33),
    },
}


def time_norms(shapes: Sequence[str]) -> RunBlock:
    """In a worker: a block is every norm at every shape and dtype, in turn, in milliseconds."""
    configs = compose_norms(list_norms())
    threads = torch.get_num_threads()
    timers = {
        f"{shape} {dtype}: {name}": Timer("call()", globals={"call": call}, num_threads=threads)
        for shape, dtype in product(shapes, DTYPES)
        for name, call in list_calls(configs, *SHAPES[shape], DTYPES[dtype]).items()
    }

    def run_block() -> Block:
        # The median of blocks that repeat the call until the clock's own cost is nothing.
        return {
            name: 1000 * timer.blocked_autorange(min_run_time=BLOCK_SECONDS).median
            for name, timer in timers.items()
        }

    return run_block


def list_norms() -> list[str]:
    """The names of conf/norm, without that of no norm."""
    files = (config.conf_folder() / "norm").glob("*.yaml")
    return sorted({file.stem for file in files} - {"none"})


def compose_norms(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The configurations of these norms, by name."""
    return {name: compose_run([f"norm={name}"]).plain["norm"] for name in names}


def list_calls(
    configs: Mapping[str, Mapping[str, Any]],
    tokens: int,
    width: int,
    dtype: torch.dtype,
    device: str = "cpu",
    compiles: bool = False,
) -> dict[str, Callable[[], object]]:
    """Forward and backward by name of the norm, and a copy of the input.

    `compiles`: the norms of the configurations are compiled, at their first call.
    """
    torch.manual_seed(0)
    x = torch.randn(tokens, width, dtype=dtype, device=device, requires_grad=True)
    dy = torch.randn(tokens, width, dtype=dtype, device=device)
    copied = torch.empty_like(dy)
    gain, bias = (torch.ones(width, device=device, requires_grad=True) for _ in range(2))
    # torch's layer_norm takes a gain of fp32 beside x in bf16, on a CPU; its rms_norm does not.
    half_gain = torch.ones(width, dtype=dtype, device=device, requires_grad=True)
    calls: dict[str, Callable[[], object]] = {COPY: lambda: copied.copy_(dy)}

    def add_call(
        name: str, function: Callable[[Tensor], Tensor], parameters: Iterable[Tensor]
    ) -> None:
        calls[name] = build_gradient_call(function, [x, *parameters], x, dy)

    add_call(LAYER_NORM, lambda x: F.layer_norm(x, (width,), gain, bias), [gain, bias])
    add_call(RMS_NORM, lambda x: F.rms_norm(x, (width,), half_gain), [half_gain])
    module = nn.LayerNorm(width, dtype=dtype, device=device)
    add_call(MODULE, module, module.parameters())
    for name, settings in configs.items():
        norm = norm_factory(settings)(width).to(device)
        add_call(name, torch.compile(norm) if compiles else norm, norm.parameters())
    return calls


def measure_norms(settings: Settings) -> Json:
    """Every shape in fp32 and bf16: all threads and one, both ways to get memory."""
    shapes = settings.choose_shapes(list(SHAPES), list(SHAPES)[:4], list(SHAPES)[:2])
    setups: list[tuple[int | None, str]] = [(None, "pages kept"), (1, "pages kept")]
    if settings.threads is not None:
        setups = [(settings.threads, allocator) for allocator in ALLOCATORS]
    elif not settings.quick:
        setups.insert(0, (None, "pages fresh"))
    titles = {None: "all threads", 1: "1 thread"}
    workers = [
        WorkerProcess(
            f"{titles.get(threads, f'{threads} threads')}, {allocator}",
            time_norms,
            {"shapes": shapes},
            threads=threads,
            environment=ALLOCATORS[allocator],
        )
        for threads, allocator in setups
    ]
    # The allocator's settings hold for a process, so each set-up has one, and they take turns.
    rounds = interleave(workers, settings.choose_rounds(7, 5), settings.progress)
    samples: Samples = {}
    for setup, blocks in rounds.items():
        for case in dict.fromkeys(key.partition(": ")[0] for key in blocks[0]):
            start = f"{case}: "
            samples[f"{setup}: {case}"] = [
                {key.removeprefix(start): ms for key, ms in block.items() if key.startswith(start)}
                for block in blocks
            ]
    return evaluate_norms(samples)


def evaluate_norms(samples: Samples) -> Json:
    """Ratios to F.layer_norm and to the copy limit, from samples by `<set-up>: <shape> <dtype>`."""
    result = new_result(
        "norms",
        "Norms, forward and backward",
        samples,
        "Forward and backward of one norm, gradients of the input and the parameters; all norms "
        "in one process, a block of each in turn; ratios inside a round. Half precision: input "
        f"in bf16, parameters in fp32 ({RMS_NORM} and {MODULE}: in bf16).",
        f"The limit is {PASSES} passes over the tensor at the speed of a copy, which is "
        f"{COPY_PASSES}. Pages fresh: glibc's defaults, which map and zero new pages for every "
        "large tensor; kept: MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ raised.",
    )
    names = set(next(iter(samples.values()))[0])
    compared = sorted(names - {COPY, LAYER_NORM, RMS_NORM, MODULE, "rmsnorm"})
    rows = ["rmsnorm", *compared, RMS_NORM, MODULE, COPY]
    setups: dict[str, Samples] = defaultdict(dict)
    for key, blocks in samples.items():
        setup, _, case = key.partition(": ")
        setups[setup][case] = blocks
    for setup, cases in setups.items():
        ratios = {
            name: [
                {
                    case: block[name] / block[LAYER_NORM]
                    for case, block in zip(cases, blocks, strict=True)
                }
                for blocks in zip(*cases.values(), strict=True)
            ]
            for name in rows
        }
        title = f"time over {LAYER_NORM}'s, {setup}"
        columns = {case: spread_of(case) for case in cases}
        add_table(result, title, "norm", ratios, columns, norm_owner)
        grid = {
            "rows": rows,
            "columns": [case.replace(" ", "\n") for case in cases],
            "values": [[columns[case](ratios[name]).median for case in cases] for name in rows],
        }
        result["panels"].append({"title": title, "grid": grid})
        for case in cases:
            values = {name: columns[case](blocks) for name, blocks in ratios.items()}
            if int(case.split()[0].partition("x")[2]) >= WIDE:
                what = f"rmsnorm over {LAYER_NORM}, {case}, {setup}"
                add_goal(result, what, values["rmsnorm"], most=MOST_RMSNORM)
            slowest = max(compared, key=lambda name: values[name].median)
            what = f"slowest other, {slowest}, {case}, {setup}"
            add_goal(result, what, values[slowest], most=MOST_SLOWEST)
    columns = {"limit, ms": lambda blocks: quartile_spread(compute_limits(blocks))}
    for name in ("rmsnorm", "layernorm", LAYER_NORM, RMS_NORM):
        columns[name] = time_over_limit(name)
    add_table(result, "time over the copy limit's", "case", samples, columns)
    return result


def compute_limits(blocks: Sequence[Block]) -> list[float]:
    """Milliseconds of the passes that a norm cannot do without, at the speed of a copy."""
    return [ms * PASSES / COPY_PASSES for ms in column(blocks, COPY)]


def time_over_limit(name: str) -> ComputeNumber:
    """A column: the time of a norm over the copy limit."""
    # Made here and not in the loop, where every lambda would see the last name.
    return lambda blocks: ratio_spread(column(blocks, name), compute_limits(blocks))


def norm_owner(name: str) -> str:
    """Whose a row of `norms` is."""
    return "limit" if name == COPY else "peer" if name in (RMS_NORM, MODULE) else "ours"
