"""What runs in the workers of `step` and `scaling`: a plain loop around a model.

All loops are the same: batches of the same source drawn in the step, autocast or not, mean
cross-entropy, clipping at 1, fused AdamW.
"""

import contextlib
import resource
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.bench.compose import specified
from normlab.bench.peers import PEERS
from normlab.bench.shapes import Shape
from normlab.bench.worker import Turns, peak_mib
from normlab.data import Batch, Source, build_source
from normlab.errors import NormlabError
from normlab.model.gpt import count_parameters
from normlab.training.build import build_model
from normlab.training.hardware import resolve_hardware

HALF = "bf16-mixed"

Steps = Callable[[int], None]


def peer(turns: Turns, shape: dict[str, Any], name: str, precision: str) -> None:
    """A plain loop around another package's model; turns say how many `steps`."""
    size = Shape(**shape)
    torch.manual_seed(0)
    _, build_peer = PEERS[name]
    loop(turns, build_peer(size), tokens(size), precision)


def bare(turns: Turns, overrides: list[str], limit_mib: float | None = None) -> None:
    """A plain loop around our model, without Lightning, logging and records.

    With a limit, what would hold more memory than that fails to get it.
    """
    if limit_mib is not None:
        limit = int(limit_mib * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    loop(turns, *_ours(overrides))


def trained_steps(turns: Turns, overrides: list[str]) -> Iterator[tuple[dict[str, Any], Steps]]:
    """The turns of a plain loop around our model, each with what trains so many steps."""
    steps = _steps(*_ours(overrides))
    for turn in turns:
        yield turn, steps


def _ours(overrides: list[str]) -> tuple[nn.Module, Source, str, int]:
    """Our model, its data, its precision, and how many batches a step takes."""
    spec = specified(overrides)
    hardware = resolve_hardware(spec.config.trainer)
    source = build_source(spec.plain["data"], spec.config.model.context)
    model = build_model(spec.config, source.vocabulary)
    return model, source, hardware.precision, spec.config.trainer.accumulate


def tokens(shape: Shape) -> Source:
    """The tokens that normlab's runs of this shape get."""
    return build_source(
        {
            "kind": "synthetic",
            "source": "random",
            "vocabulary": shape.vocabulary,
            "batch_size": shape.batch,
            "validation_windows": 1,
        },
        shape.context,
    )


def loop(
    turns: Turns,
    model: nn.Module,
    source: Source,
    precision: str,
    accumulate: int = 1,
) -> None:
    """Train for as many steps as each turn asks, and report milliseconds a step and memory."""
    steps = _steps(model, source, precision, accumulate)
    parameters = count_parameters(model)
    for turn in turns:
        began = time.perf_counter()
        steps(turn["steps"])
        seconds = time.perf_counter() - began
        turns.report(
            ms=1000 * seconds / turn["steps"],
            rss_mib=peak_mib(),
            parameters=parameters,
        )


def _steps(model: nn.Module, source: Source, precision: str, accumulate: int) -> Steps:
    """A function that trains so many further steps, and falls where the loss is none."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=True
    )
    batches = (source.batch(0, index) for index in count())

    def steps(number: int) -> None:
        for _ in range(number):
            loss = _step(model, optimizer, batches, precision == HALF, accumulate)
        nats = loss.item()
        if not nats < 20:
            raise NormlabError(f"its loss is {nats}, so it does not train")

    return steps


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    half: bool,
    accumulate: int,
) -> Tensor:
    for _ in range(accumulate):
        batch = next(batches)
        inputs, targets = torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)
        with torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext():
            logits = model(inputs)
            loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        (loss / accumulate).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()
