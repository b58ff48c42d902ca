"""Every norm with every placement, in a stack and alone: the same losses over 20 steps."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from normlab import config
from normlab.config.schema import TrainConfig
from normlab.data import build_source
from normlab.training.build import build_model
from normlab.training.hardware import single_thread
from normlab.training.module import LanguageModel, Pair, to_tensors
from normlab.training.stack import Stack
from normlab.training.stack_groups import build_stack_model, find_model_obstacle
from tiny_run import TINY

STEPS = 20
SMALL = (*TINY, "model.width=32", "model.context=16", f"trainer.max_steps={STEPS}")
# Two runs that differ in all that runs of a stack may differ in.
OWN = (("seed=0", "optimizer.lr=1e-3"), ("seed=1", "optimizer.lr=3e-4", "schedule.warmup=0.5"))
# Pairs that do not, and the operation in the way.
SOLO: dict[tuple[str, str], str] = {}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (config.conf_folder() / group).glob("*.yaml"))


NORMS, PLACEMENTS = options("norm"), options("placement")
SOME = [("layernorm", "pre"), ("dyt", "post"), ("rmsnorm", "siamese")]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two would wait for each other longer than they compute."""
    with single_thread():
        yield


@pytest.fixture
def pair(specified: Callable) -> Callable[[str, str], list[TrainConfig]]:
    """The configurations of two runs of a pair."""

    def combine(norm: str, placement: str) -> list[TrainConfig]:
        # A sixteenth of so few features is one: rounding grows without bound where it is near 0.
        more = ("norm.part=0.5",) if norm == "partial_rmsnorm" else ()
        chosen = specified(*SMALL, f"norm={norm}", *more).config.norm
        specs = [specified(*SMALL, f"placement={placement}", *own) for own in OWN]
        return [replace(spec.config, norm=chosen) for spec in specs]

    return combine


@pytest.fixture(scope="module")
def batches() -> list[Pair]:
    """Batches (2, B, T) of the seeds 0 and 1."""
    data = {"kind": "synthetic", "batch_size": 8, "source": "markov", "vocabulary": 8, "order": 1}
    source = build_source({**data, "concentration": 0.2, "validation_windows": 1}, 16)
    seeds = [[to_tensors(source.batch(seed, i)) for i in range(STEPS)] for seed in (0, 1)]
    return [
        (torch.stack([first[0], second[0]]), torch.stack([first[1], second[1]]))
        for first, second in zip(*seeds, strict=True)
    ]


def train_alone(
    config: TrainConfig, batches: list[Pair], row: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    module = LanguageModel(build_model(config, 8).to(dtype), config)
    made = module.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    losses = []
    for index, (tokens, targets) in enumerate(batches):
        optimizer.zero_grad()
        loss = module.training_step((tokens[row], targets[row]), index)
        loss.backward()
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def train_stacked(
    configs: list[TrainConfig], batches: list[Pair], dtype: torch.dtype = torch.float32
) -> Tensor:
    """(steps, runs)."""
    models = [build_stack_model(config, 8).to(dtype) for config in configs]
    stack = Stack(models, configs, torch.device("cpu"), "32-true")
    stack.prepare(batches[0])
    losses = []
    for batch in batches:
        stack.take_step(batch)
        losses.append(stack.losses.clone())
    return torch.stack(losses)


def largest_difference(
    configs: list[TrainConfig], batches: list[Pair], dtype: torch.dtype
) -> float:
    """Of the losses in a stack and alone, over runs and steps."""
    stacked = train_stacked(configs, batches, dtype)
    assert stacked[0, 0] != stacked[0, 1]
    alone = [train_alone(config, batches, row, dtype) for row, config in enumerate(configs)]
    return float((stacked - torch.stack(alone, dim=1)).abs().max())


def check_pair(configs: list[TrainConfig], batches: list[Pair]) -> None:
    """To 1e-3 in fp32; where rounding grows faster, to 1e-6 in fp64."""
    if largest_difference(configs, batches, torch.float32) > 1e-3:
        assert largest_difference(configs, batches, torch.float64) < 1e-6


@pytest.mark.parametrize(("norm", "placement"), SOME, ids=["-".join(some) for some in SOME])
def test_a_pair_has_the_losses_that_it_has_alone(
    norm: str, placement: str, pair: Callable, batches: list[Pair]
) -> None:
    check_pair(pair(norm, placement), batches)


@pytest.mark.slow
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_norm_of_a_placement_has_the_losses_that_it_has_alone(
    placement: str, pair: Callable, batches: list[Pair]
) -> None:
    for norm in NORMS:
        configs = pair(norm, placement)
        obstacle = find_model_obstacle(configs[0])
        assert obstacle == SOLO.get((norm, placement), "")
        if not obstacle:
            check_pair(configs, batches)


def test_almost_all_pairs_stack() -> None:
    assert len(SOLO) <= len(NORMS) * len(PLACEMENTS) / 16
