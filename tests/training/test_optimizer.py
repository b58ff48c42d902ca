"""The optimizer is torch's AdamW to the bit, and begins without torch's compiler."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from normlab.training.optimizer import PlainAdamW

ARGUMENTS = {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.1}


def trained(kind: type[torch.optim.AdamW], steps: int, fused: bool) -> tuple[nn.Module, object]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = kind(model.parameters(), fused=fused, **ARGUMENTS)
    for _ in range(steps):
        model(torch.randn(4, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "foreach"])
def test_it_takes_the_steps_of_torchs_own(fused: bool) -> None:
    (ours, one), (theirs, other) = (trained(k, 5, fused) for k in (PlainAdamW, torch.optim.AdamW))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not a.is_leaf or a.requires_grad
    assert isinstance(one, torch.optim.Optimizer)
    assert isinstance(other, torch.optim.Optimizer)
    states = one.state_dict(), other.state_dict()
    assert states[0]["param_groups"] == states[1]["param_groups"]
    for key, value in states[0]["state"][0].items():
        assert torch.equal(value, states[1]["state"][0][key])


def test_it_goes_on_from_a_state_of_torchs_own() -> None:
    model, theirs = trained(torch.optim.AdamW, 3, True)
    assert isinstance(theirs, torch.optim.Optimizer)
    twin = copy.deepcopy(model)
    ours = PlainAdamW(twin.parameters(), fused=True, **ARGUMENTS)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))  # it shares the tensors
    x = torch.randn(4, 8)
    for one, optimizer in ((model, theirs), (twin, ours)):
        one(x).square().mean().backward()
        optimizer.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_closure_gets_gradients() -> None:
    model = nn.Linear(3, 1)
    optimizer = PlainAdamW(model.parameters(), **ARGUMENTS)

    def closure() -> float:
        loss = model(torch.ones(2, 3)).sum()
        loss.backward()
        return float(loss)

    before = model.weight.clone()
    assert optimizer.step(closure) == pytest.approx(float(before.sum() * 2 + 2 * model.bias), 0.1)
    assert not torch.equal(model.weight, before)


@pytest.mark.parametrize(
    ("then", "loaded"),
    [("", False), ("torch.compile(model, backend='eager')(torch.ones(1, 2))", True)],
    ids=["a step", "a compiled model"],
)
def test_torchs_compiler_is_loaded_where_something_is_compiled(then: str, loaded: bool) -> None:
    code = f"""
import sys
from normlab.study import warm
warm.load()
import torch
from normlab.training.optimizer import PlainAdamW
model = torch.nn.Linear(2, 2)
optimizer = PlainAdamW(model.parameters(), fused=True)
model(torch.ones(1, 2)).sum().backward()
optimizer.step()
optimizer.zero_grad()
{then}
optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules, "torchmetrics" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(loaded), "False"]
