"""How long a training step takes with LayerNorm and with RMSNorm, each ratio in a new process."""

import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from normlab.config.run_spec import RunSpec
from normlab.study.composition import compose_specs

_NORMS = ("layernorm", "rmsnorm")
_OVERRIDES = ("data=synthetic", "model=nanogpt", "placement=pre")
_WARMUP_STEPS = 5
# Steps in a row of one model, and how often each has its turn.
_BLOCK, _TURNS = 4, 12


def measure_in_new_processes(processes: int) -> list[float]:
    """LayerNorm's seconds a step over RMSNorm's, for each of so many processes, one at a time."""
    # A task a process; Python refuses `max_tasks_per_child` with fork.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        return list(pool.map(time_step_ratio, range(processes)))


def time_step_ratio(seed: int) -> float:
    """LayerNorm's median seconds a step over RMSNorm's, the models in turn in this process."""
    from normlab.norms.timing import median_milliseconds

    specs = compose_specs(*([*_OVERRIDES, f"norm={norm}", f"seed={seed}"] for norm in _NORMS))
    calls = {norm: build_training_step(spec) for norm, spec in zip(_NORMS, specs, strict=True)}
    for call in calls.values():
        for _ in range(_WARMUP_STEPS):
            call()
    times: dict[str, list[float]] = {norm: [] for norm in _NORMS}
    for turn in range(_TURNS):
        # Who goes first alternates: what the first of a pair leaves in the caches helps the second.
        for norm in _NORMS if turn % 2 else reversed(_NORMS):
            times[norm].append(median_milliseconds(calls[norm], _BLOCK))
    layer, rms = (statistics.median(times[norm]) for norm in _NORMS)
    return layer / rms


def build_training_step(spec: RunSpec) -> Callable[[], None]:
    """A function that trains a run's model by a step in fp32, each time on the same batch.

    A step is forward, backward, clipping and AdamW's update; the batch is made here, once.
    """
    import torch

    from normlab.data import build_source
    from normlab.training.build import build_model
    from normlab.training.module import LanguageModel, to_tensors

    source = build_source(spec.plain["data"], spec.config.model.context)
    module = LanguageModel(build_model(spec.config, source.vocabulary), spec.config)
    optimizer = module.configure_optimizers()["optimizer"]
    batch = to_tensors(source.batch(spec.config.seed, 0))

    def take_step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(module.training_step(batch, 0))
        module.configure_gradient_clipping(optimizer)
        optimizer.step()

    return take_step
