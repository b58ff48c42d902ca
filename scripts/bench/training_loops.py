"""What trains in worker processes: a plain loop, normlab's own run, the machine's limits.

Each function sets itself up and returns what does a block of so many steps. The plain loop is the
same around every model: batches of the same source drawn in the step, autocast or not, mean
cross-entropy, clipping at 1, fused AdamW.
"""

import contextlib
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from harness import Block, RunBlock, read_peak_memory
from models import PEERS, MatrixProduct, Shape
from normlab.config.run_spec import RunSpec
from normlab.data import Source, build_source
from normlab.errors import NormlabError
from normlab.model.gpt import count_parameters
from normlab.study.composition import compose_specs
from normlab.training.build import build_model
from normlab.training.hardware import resolve_hardware

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}
COPY_BYTES = 2**28  # larger than any cache
# Kinds of operators, each named by the first pattern that matches. KernelFunction is the autograd
# function of normlab's own kernels.
OPERATORS = {
    "products": r"aten::(mm|addmm|bmm|baddbmm|_scaled_dot_product\w*|mkldnn\w*)$",
    "norms": r"KernelFunction|layer_norm|rms_norm",
    "GELU": r"gelu",
    "softmax": r"softmax|where|masked_fill|cross_entropy|nll_loss",
    "AdamW and clipping": r"adamw|Optimizer|_foreach|clip",
    "casts and copies": r"aten::(copy_|_to_copy|clone|cat|contiguous)$",
    "the rest, small calls": "",
}

TrainSteps = Callable[[int], None]


def compose_run(overrides: Sequence[str]) -> RunSpec:
    """The run that these overrides make, as train.py reads them; of two for one key, the later.

    Raises:
        ConfigError: it cannot be trained.
    """
    last = {override.partition("=")[0]: override for override in overrides}
    return compose_specs([*last.values()])[0]


def make_plain_loop(
    model: nn.Module, source: Source, precision: str, accumulate: int = 1
) -> TrainSteps:
    """A function that trains so many further steps, and fails where the loss is not finite."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=True
    )
    batches = (source.batch(0, index) for index in count())
    half = precision == "bf16-mixed"

    def train_step() -> Tensor:
        for _ in range(accumulate):
            batch = next(batches)
            inputs, targets = torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)
            with torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext():
                # (B, T) → (B, T, V).
                logits = model(inputs)
                # (B·T, V), in fp32 as normlab computes its loss.
                loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
            (loss / accumulate).backward()  # type: ignore[no-untyped-call]
        # With foreach, as normlab's own training clips.
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    def train_steps(number: int) -> None:
        for _ in range(number):
            loss = train_step()
        # Once a block: reading the loss at each step would wait for it.
        if not loss.item() < 20:
            raise NormlabError(f"its loss is {loss.item()}, so it does not train")

    return train_steps


def time_steps(do_steps: TrainSteps, steps: int, **constants: float) -> RunBlock:
    """A block of so many steps, with milliseconds a step and the memory's peak."""

    def run_block() -> Block:
        began = time.perf_counter()
        do_steps(steps)
        seconds = time.perf_counter() - began
        return {"ms": 1000 * seconds / steps, "rss_mib": read_peak_memory(), **constants}

    return run_block


def train_peer(shape: Shape, peer: str, precision: str, steps: int) -> RunBlock:
    """A plain loop around another package's model, with the tokens that normlab's runs get."""
    torch.manual_seed(0)
    spec = compose_run(shape.overrides)
    source = build_source(spec.plain["data"], shape.context)
    return time_steps(make_plain_loop(PEERS[peer][1](shape), source, precision), steps)


def build_configured_model(overrides: Sequence[str]) -> tuple[nn.Module, TrainSteps]:
    """Normlab's model, and a plain loop around it."""
    spec = compose_run(overrides)
    hardware = resolve_hardware(spec.config.trainer)
    source = build_source(spec.plain["data"], spec.config.model.context)
    model = build_model(spec.config, source.vocabulary)
    accumulate = spec.config.trainer.accumulate
    return model, make_plain_loop(model, source, hardware.precision, accumulate)


def train_plain(overrides: Sequence[str], steps: int) -> RunBlock:
    """Normlab's model without Lightning, logging and records."""
    model, train_steps = build_configured_model(overrides)
    return time_steps(train_steps, steps, parameters=count_parameters(model))


def train_run(overrides: Sequence[str], log_interval: int, steps: int) -> RunBlock:
    """A run as train.py makes it, timed from its first line in the display to its last but one."""
    # Here, because Lightning's memory is not that of the other contenders.
    from normlab.training.run import train

    class TimingDisplay:
        def __init__(self) -> None:
            self.times: list[float] = []

        def update(self, step: int, loss: float, tokens_per_second: float) -> None:
            self.times.append(time.perf_counter())

        def say(self, sentence: str) -> None:
            """Nobody reads it."""

    def run_block() -> Block:
        # Without the first interval, which warms up, and the last, which ends in a validation.
        display, end = TimingDisplay(), steps + 2 * log_interval
        length = [
            # One validation, in the last interval, and no saved state: neither is part of a step.
            f"trainer.max_steps={end}",
            f"trainer.val_every={end}",
            "trainer.save_seconds=1e9",
        ]
        with tempfile.TemporaryDirectory() as folder:
            places = [f"trainer.log_every={log_interval}", f"output_dir={folder}"]
            spec = compose_run([*overrides, *length, *places])
            record = train(spec, "bench", display)
        if record.state != "finished":
            raise NormlabError(record.reason or record.state)
        seconds = display.times[-2] - display.times[0]
        return {"ms": 1000 * seconds / steps, "rss_mib": read_peak_memory()}

    return run_block


def profile_plain(overrides: Sequence[str], steps: int) -> RunBlock:
    """The plain loop: each kind of operator's share of the thread that calls them."""
    _, train_steps = build_configured_model(overrides)
    time_block = time_steps(train_steps, steps)

    def run_block() -> Block:
        ms = time_block()["ms"]
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            train_steps(steps)
        spent = dict.fromkeys(OPERATORS, 0.0)
        for event in profiler.key_averages():
            # Self time: that of an operator's callees is counted at the callees.
            spent[classify_operator(event.key)] += event.self_cpu_time_total
        total = sum(spent.values())
        return {"ms a step": ms, **{kind: time / total for kind, time in spent.items()}}

    return run_block


def classify_operator(operator: str) -> str:
    """The kind of an operator that torch's profiler names."""
    return next(kind for kind, pattern in OPERATORS.items() if re.search(pattern, operator))


def multiply_matrices(shape: Shape, precision: str, steps: int) -> RunBlock:
    """All matrix products of a training step, forward and backward, and nothing else."""
    # Operands and results are there before the clock starts: only torch's kernels are timed.
    work = [
        operands
        for product in shape.list_products()
        for operands in make_operands(product, DTYPES[precision]) * product.repeats
    ]

    def do_steps(number: int) -> None:
        for _ in range(number):
            for left, right, out in work:
                torch.matmul(left, right, out=out)

    return time_steps(do_steps, steps)


def make_operands(product: MatrixProduct, dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
    """Operands and results of y = x·w, dx = dy·wᵀ, dw = xᵀ·dy, in the right dtype and layout."""
    batch = (product.batch,) if product.batch > 1 else ()
    x = torch.randn(*batch, product.rows, product.inner).to(dtype)
    w = torch.randn(*batch, product.inner, product.columns).to(dtype)
    dy = torch.randn(*batch, product.rows, product.columns).to(dtype)
    y, dx, dw = (torch.empty_like(tensor) for tensor in (dy, x, w))
    return [(x, w, y), (dy, w.mT, dx), (x.mT, dy, dw)]


def copy_memory(steps: int) -> RunBlock:
    """Copies of a tensor of `COPY_BYTES`."""
    source = torch.zeros(COPY_BYTES // 4)
    target = torch.ones_like(source)

    def do_steps(number: int) -> None:
        for _ in range(number):
            target.copy_(source)

    return time_steps(do_steps, steps)
