"""What every norm in conf/norm promises, whatever it computes: a new file is tested by being there.

Shapes, widths, dtypes and sizes of the input are drawn; a width that a norm refuses is left out.
"""

from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.testing import assert_close

from network_comparison import perturb_parameters
from normlab import config
from normlab.errors import ConfigError
from normlab.norms import norm_factory

FILES = {path.stem: path for path in sorted((config.conf_folder() / "norm").glob("*.yaml"))}
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
TRAINED = [torch.float32, torch.bfloat16]

# Few, since each is compiled: with and without what remains after a kernel's wide registers.
WIDTHS = (1, 3, 16, 33)

NORMS = pytest.mark.parametrize("name", FILES)
LEADING = st.lists(st.integers(1, 4), max_size=3)
SIZES = st.sampled_from([0.0, *(10.0**exponent for exponent in range(-6, 7))])
SEEDS = st.integers(0, 2**31)
few = settings(deadline=None, max_examples=15, derandomize=True)


@cache
def norms(name: str) -> list[tuple[int, nn.Module]]:
    """The norm at every one of the widths that it takes, away from its start."""
    build = norm_factory(OmegaConf.load(FILES[name]))
    built = []
    for width in WIDTHS:
        try:
            built.append((width, perturb_parameters(build(width))))
        except ConfigError:
            continue
    return built


def drawn(draw: Any, name: str, dtypes: list[torch.dtype]) -> tuple[nn.Module, Tensor]:
    """A norm of some width, with parameters as in mixed precision, and an input for it."""
    width, norm = draw.draw(st.sampled_from(norms(name)))
    dtype = draw.draw(st.sampled_from(dtypes))
    generator = torch.Generator().manual_seed(draw.draw(SEEDS))
    x = torch.randn(*draw.draw(LEADING), width, generator=generator, dtype=torch.float64)
    largest = torch.finfo(dtype).max
    x = (draw.draw(SIZES) * x).clamp(-largest, largest).to(dtype)
    return deepcopy(norm).double() if dtype == torch.float64 else deepcopy(norm), x


def tolerance(x: Tensor) -> dict[str, float]:
    """A few roundings of x's dtype: a kernel may take the last tokens by another path."""
    return {"rtol": 8 * torch.finfo(x.dtype).eps, "atol": 8 * torch.finfo(x.dtype).eps}


@NORMS
@few
@given(draw=st.data())
def test_shape_and_dtype_are_kept_and_the_input_is_left_alone(name: str, draw: Any) -> None:
    norm, x = drawn(draw, name, DTYPES)
    before = x.clone()
    first, second = norm(x), norm(x)
    assert first.shape == x.shape
    assert first.dtype == x.dtype
    assert torch.equal(x, before)
    assert torch.equal(first, second)


@NORMS
@few
@given(draw=st.data())
def test_what_is_finite_stays_finite_and_so_do_all_gradients(name: str, draw: Any) -> None:
    norm, x = drawn(draw, name, TRAINED)
    x.requires_grad_()
    y = norm(x)
    y.sum().backward()
    assert y.isfinite().all()
    for tensor in (x, *norm.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.dtype == tensor.dtype


@NORMS
@few
@given(draw=st.data())
def test_a_token_is_the_same_among_others_in_any_order_and_alone(name: str, draw: Any) -> None:
    norm, x = drawn(draw, name, DTYPES)
    tokens = x.reshape(-1, x.shape[-1])
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))
    y = norm(x).reshape(tokens.shape)
    assert_close(norm(tokens[order]), y[order], **tolerance(x))
    assert_close(torch.stack([norm(token) for token in tokens]), y, **tolerance(x))


@NORMS
@few
@given(draw=st.data())
def test_memory_laid_out_otherwise_gives_the_same(name: str, draw: Any) -> None:
    norm, x = drawn(draw, name, DTYPES)
    apart = torch.stack((x, -x), -1).flatten(-2)[..., ::2]
    turned = x.movedim(-1, 0).contiguous().movedim(0, -1)
    for same in (apart, turned, x.expand(2, *x.shape)[1]):
        assert torch.equal(same, x)
        assert_close(norm(same), norm(x), **tolerance(x))


@NORMS
@few
@given(draw=st.data())
def test_a_copy_and_what_is_loaded_from_a_file_are_the_same_norm(
    name: str, draw: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    norm, x = drawn(draw, name, DTYPES)
    file = tmp_path_factory.getbasetemp() / f"{name}.pt"
    torch.save(norm.state_dict(), file)
    fresh = norm_factory(OmegaConf.load(FILES[name]))(x.shape[-1])
    fresh = fresh.double() if x.dtype == torch.float64 else fresh
    fresh.load_state_dict(torch.load(file))
    assert torch.equal(deepcopy(norm)(x), norm(x))
    assert torch.equal(fresh(x), norm(x))
