"""Which runs of a study can be one stack, and what stands in the way of the others.

Runs of a stack differ in numbers that are tensors, or that become one: seed, learning rate, betas,
weight decay, warm-up and schedule, clipping, the initial weights, and arguments of a norm that are
parameters or buffers of its module. Everything else is the same for all of them: it decides shapes,
or is a constant inside the model.

Attention in a stack is the explicit product, also where a run alone takes SDPA. Under torch.vmap
inside a CUDA graph SDPA gave NaN in every run without an error (torch 2.11, bf16), and
torch.compile has no rule for its kernels there.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from normlab.archive.record import NEUTRAL_KEYS
from normlab.config.run_spec import RunSpec
from normlab.config.schema import AttentionKernel, TrainConfig
from normlab.errors import ConfigError, describe_error
from normlab.model.contract import CONTEXT, VOCABULARY
from normlab.model.gpt import GPT
from normlab.model.initialization import Embedding, Linear
from normlab.training.build import build_model
from normlab.training.cuda_graph import compare_results
from normlab.training.hardware import single_thread
from normlab.training.stack import Stack

# What the runs of a stack may differ in. A name stands for all keys below it.
_KEYS_THAT_MAY_DIFFER = (
    *("seed", "optimizer", "schedule", "model.init"),
    *("trainer.gradient_clip", "trainer.divergence_limit"),
)
_KEYS_COMPARED_BY_MODEL = ("norm", "placement")

# Gradients may differ by this, relative to the largest of the model, where they should be 0.
ROUNDING = 1e-5

# Values of a key without which no run can be in a stack, and why.
_REQUIRED: dict[str, tuple[Callable[[TrainConfig], bool], str]] = {
    "model.dropout": (
        lambda config: config.model.dropout == 0,
        "random numbers would depend on the other runs of the stack",
    ),
    "model.attention": (
        lambda config: config.model.attention is not AttentionKernel.sdpa,
        "a stack computes attention by the explicit product",
    ),
    "trainer.accumulate": (
        lambda config: config.trainer.accumulate == 1,
        "a step of a stack is one batch",
    ),
    "trainer.gradient_checkpointing": (
        lambda config: not config.trainer.gradient_checkpointing,
        "torch.utils.checkpoint does not work under torch.vmap",
    ),
    "trainer.precision": (
        lambda config: config.trainer.precision != "16-mixed",
        "each run would need a gradient scale of its own",
    ),
    "trainer.compile": (
        lambda config: config.trainer.compile != "graphs",
        "a stack captures its own CUDA graph",
    ),
    "probes.every": (
        lambda config: config.probes.every is None,
        "probes read the modules of a single model",
    ),
}


@dataclass(frozen=True)
class StackPlan:
    """How the runs of a study can be trained.

    Attributes:
        groups: indices of runs that can share a stack; each run that can be in one is in one group.
        obstacles: for every other run, by its index, what stands in the way: one sentence.
    """

    groups: list[list[int]]
    obstacles: dict[int, str]


@single_thread()
def plan_stacks(specs: Sequence[RunSpec]) -> StackPlan:
    """Put runs that can share a stack into groups; each model is tried once."""
    groups: dict[int, list[int]] = defaultdict(list)
    leaders: list[tuple[RunSpec, list[Any]]] = []  # the first run of each group, its structure
    obstacles: dict[int, str] = {}
    tried: dict[str, tuple[str, list[Any]]] = {}  # by network: what stands in the way, structure
    for index, spec in enumerate(specs):
        obstacle = find_setting_obstacle(spec.config)
        structure: list[Any] = []
        if not obstacle:
            network = repr((spec.config.norm, spec.config.placement, spec.config.model))
            if network not in tried:
                model = build_stack_model(spec.config, VOCABULARY)
                tried[network] = find_model_obstacle(spec.config), describe_structure(model)
            obstacle, structure = tried[network]
        if obstacle:
            obstacles[index] = obstacle
            continue
        for number, (leader, expected) in enumerate(leaders):
            if structure == expected and not _find_setting_difference(leader, spec):
                groups[number].append(index)
                break
        else:
            groups[len(leaders)].append(index)
            leaders.append((spec, structure))
    return StackPlan(list(groups.values()), obstacles)


def find_setting_obstacle(config: TrainConfig) -> str:
    """The key of a run that keeps it out of any stack, in a sentence; empty where none does."""
    for key, (is_allowed, reason) in _REQUIRED.items():
        if not is_allowed(config):
            value = attrgetter(key)(config)
            return f"{key}={getattr(value, 'value', value)} cannot be in a stack: {reason}"
    return ""


def find_difference(first: RunSpec, second: RunSpec) -> str:
    """The key that keeps two runs out of one stack; empty where they can share one."""
    return _find_setting_difference(first, second) or _find_model_difference(first, second)


def _find_setting_difference(first: RunSpec, second: RunSpec) -> str:
    if first.config.data != second.config.data:
        return f"data.{_first_difference(first.plain['data'], second.plain['data'])}"
    ignored = (*NEUTRAL_KEYS, *_KEYS_THAT_MAY_DIFFER, *_KEYS_COMPARED_BY_MODEL, "data")
    return _first_difference(first.plain, second.plain, lambda key: not _is_below(key, ignored))


def _find_model_difference(first: RunSpec, second: RunSpec) -> str:
    """The key by which the models of two runs differ in more than the values of tensors."""
    key = _first_difference(
        first.plain, second.plain, lambda key: _is_below(key, _KEYS_COMPARED_BY_MODEL)
    )
    same_init = first.config.model.init == second.config.model.init
    if not key and same_init:
        return ""
    if describe_structure(build_stack_model(first.config, VOCABULARY)) == describe_structure(
        build_stack_model(second.config, VOCABULARY)
    ):
        return ""
    return key or "model.init"


def build_stack_model(config: TrainConfig, vocabulary: int) -> GPT:
    """The model of a run as it is in a stack: the same weights, and explicit attention."""
    model = replace(config.model, attention=AttentionKernel.explicit)
    return build_model(replace(config, model=model), vocabulary)


def describe_structure(model: nn.Module) -> list[Any]:
    """All that two models of one stack must agree in: everything but the values of tensors."""
    parts: list[Any] = []
    for name, module in model.named_modules():
        # Not vars(module): a formula leaves out of its state the functions that it was compiled
        # to, and two of these are never equal.
        state = dict(module.__getstate__())
        tensors = [
            (kind, key, value.shape, value.dtype)
            for kind in ("_parameters", "_buffers")
            for key, value in state.pop(kind).items()
            if value is not None
        ]
        state.pop("_modules")
        if isinstance(module, Linear | Embedding):
            state.pop("std")  # only the initial weights follow from it
        parts.append((name, type(module), tensors, _comparable(state)))
    return parts


def find_model_obstacle(config: TrainConfig) -> str:
    """Why models of this configuration cannot be stacked, with the operation; empty if they can.

    Two of them are tried on a few tokens: the losses and gradients of the stack have to be those of
    each alone.
    """
    small = replace(config, model=replace(config.model, context=min(CONTEXT, config.model.context)))
    configs = [replace(small, seed=seed) for seed in (0, 1)]
    generator = torch.Generator().manual_seed(0)
    tokens, targets = torch.randint(VOCABULARY, (2, 2, 2, small.model.context), generator=generator)
    models = [build_stack_model(config, VOCABULARY) for config in configs]
    try:
        stack = Stack(models, configs, torch.device("cpu"), "32-true")
        losses, gradients = stack.losses_and_gradients((tokens, targets))
    except (RuntimeError, TypeError, ValueError, NotImplementedError, AttributeError) as error:
        return f"its model cannot be mapped over runs ({describe_error(error, 200)})"
    for row, model in enumerate(models):
        loss = nn.functional.cross_entropy(model(tokens[row]).flatten(0, 1), targets[row].flatten())
        parameters = dict(model.named_parameters())
        alone = torch.autograd.grad(loss, [parameters[name] for name in gradients])
        stacked = [gradient[row] for gradient in gradients.values()]
        floor = ROUNDING * max(float(gradient.abs().max()) for gradient in alone)
        if problem := compare_results([losses[row], *stacked], [loss, *alone], floor):
            return f"its model computes something else when it is mapped over runs ({problem})"
    return ""


def check_explicit_request(size: int, specs: Sequence[RunSpec], plan: StackPlan) -> None:
    """Refuse `trainer.stack=N` where no two runs can share a stack. Raises ConfigError."""
    if len(specs) < 2 or any(len(group) > 1 for group in plan.groups):
        return
    reason = next(iter(plan.obstacles.values()), "")
    if not reason:
        key = find_difference(specs[0], specs[1])
        allowed = ", ".join(_KEYS_THAT_MAY_DIFFER)
        reason = f"they differ in {key}, and runs of a stack can differ in {allowed}"
    raise ConfigError(
        f"trainer.stack={size} cannot stack these {len(specs)} runs: {reason}; leave trainer.stack "
        f"out to train them one by one."
    )


def _is_below(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _first_difference(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    is_compared: Callable[[str], bool] = lambda key: True,
) -> str:
    """The first nested key without the same value in both; empty if there is none."""
    flat, other = _flatten(first), _flatten(second)
    missing = object()
    for key in {**flat, **other}:
        if is_compared(key) and flat.get(key, missing) != other.get(key, missing):
            return key
    return ""


def _comparable(value: Any) -> Any:
    """A module's attribute as something that == can decide; a tensor by its content."""
    if isinstance(value, Tensor):
        return ("tensor", value.shape, value.dtype, value.tolist())
    if isinstance(value, Mapping):
        return {key: _comparable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_comparable(item) for item in value]
    return value
