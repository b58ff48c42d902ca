"""Nothing stays on the CPU that a step on another device needs.

torch's meta device stands in for a GPU: it computes no numbers, and refuses tensors of two devices
in one operation as a GPU does.
"""

from collections.abc import Callable

import pytest
import torch

from normlab import config
from normlab.data import build_source
from normlab.training.build import build_model
from normlab.training.module import LanguageModel, to_tensors
from normlab.training.stack import Stack, StackBatches
from normlab.training.stack_groups import build_stack_model

META = torch.device("meta")
SMALL = (
    "data=synthetic",
    "model.depth=2",
    "model.width=16",
    "model.heads=2",
    "model.context=8",
    "model.dropout=0",
)
# Of each kind of code one; the others are tried by `make test-slow`.
OFTEN = {"layernorm", "rmsnorm", "l1", "seednorm", "post", "gpas", "mixln", "minimind", "xiong"}
OPTIONS = [
    pytest.param(f"{group}={path.stem}", marks=() if path.stem in OFTEN else pytest.mark.slow)
    for group in ("norm", "placement", "model")
    for path in sorted((config.conf_folder() / group).glob("*.yaml"))
]


@pytest.mark.parametrize("option", OPTIONS)
def test_a_step_of_a_run_and_of_a_stack(option: str, specified: Callable) -> None:
    specs = [specified(option, *SMALL, f"seed={seed}") for seed in range(2)]
    first = specs[0]
    source = build_source(first.plain["data"], first.config.model.context)
    tokens, targets = to_tensors(source.batch(0, 0))

    module = LanguageModel(build_model(first.config, source.vocabulary), first.config).to(META)
    loss = module.training_step((tokens.to(META), targets.to(META)), 0)
    torch.autograd.backward(loss)
    assert loss.device == META
    assert all(p.grad is None or p.grad.device == META for p in module.parameters())

    models = [build_stack_model(spec.config, source.vocabulary) for spec in specs]
    stack = Stack(models, [spec.config for spec in specs], META, "32-true")
    batches = StackBatches(source, stack, 4)
    stack.losses_and_gradients(batches.batch(0))
    assert stack.token_losses((tokens, targets)).device == META
    stack.select_runs([1])
    stack.take_step(batches.batch(1))
    assert stack.norms.device == META
    # The runs' own models are saved from, and tried at the end, where they were built.
    assert {p.device.type for model in models for p in model.parameters()} == {"cpu"}
