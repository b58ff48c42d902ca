"""The formulas of docs/learn/derivation.md, as they stand there, give autograd's gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from learn_content.learn_pages import LEARN, code_blocks

EPS = 1e-2  # large enough that a formula which forgets it is seen
SHAPE = (6, 8)


def page_function(name: str) -> Callable[..., tuple[Tensor, ...]]:
    """A function that a block of the page defines."""
    for block in code_blocks(LEARN / "derivation.md", "python"):
        namespace: dict[str, Any] = {"print": lambda *words: None}
        if f"def {name}" in block.code:
            exec(block.code, namespace)
            return namespace[name]  # type: ignore[no-any-return]
    raise AssertionError(f"derivation.md has no {name}")


def random_token_batch(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_the_gradient_of_rmsnorm_is_autograds(shift: float) -> None:
    x, gain = random_token_batch(*SHAPE), random_token_batch(SHAPE[1])
    upstream = random_token_batch(5, *SHAPE)[0].detach()
    shifted = x + shift
    F.rms_norm(shifted, gain.shape, gain, EPS).backward(upstream)
    grad_x, grad_gain = page_function("rmsnorm_backward")(shifted, gain, EPS, upstream)
    torch.testing.assert_close(grad_x, x.grad)
    torch.testing.assert_close(grad_gain, gain.grad)


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_the_gradient_of_layernorm_is_autograds(shift: float) -> None:
    x, gain = random_token_batch(*SHAPE), random_token_batch(SHAPE[1])
    bias = torch.zeros(SHAPE[1], dtype=torch.float64, requires_grad=True)
    upstream = random_token_batch(5, *SHAPE)[0].detach()
    shifted = x + shift
    F.layer_norm(shifted, gain.shape, gain, bias, EPS).backward(upstream)
    gradients = page_function("layernorm_backward")(shifted, gain, EPS, upstream)
    for gradient, parameter in zip(gradients, (x, gain, bias), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


@pytest.mark.parametrize(("norm", "removed"), [("rmsnorm_backward", 1), ("layernorm_backward", 2)])
def test_so_many_directions_are_lost(norm: str, removed: int) -> None:
    x = random_token_batch(1, 16).detach()
    rows = [
        page_function(norm)(x, torch.ones(16, dtype=torch.float64), 0.0, unit[None])[0][0]
        for unit in torch.eye(16, dtype=torch.float64)
    ]
    values = torch.linalg.svdvals(torch.stack(rows))
    assert (values < 1e-9 * values[0]).sum() == removed
    torch.testing.assert_close(values[: 16 - removed], values[0].expand(16 - removed))
