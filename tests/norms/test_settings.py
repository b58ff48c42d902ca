"""A norm's numbers are read at every call, as torch's own norms read them, by kernels too."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from normlab.norms import (
    Formula,
    GroupNorm,
    LayerNorm,
    PartialRMSNorm,
    RMSNorm,
    ScaleNorm,
    UnitOffsetRMSNorm,
)

WIDTH = 8
NORMS: dict[str, Callable[..., nn.Module]] = {
    "LayerNorm.eps": LayerNorm,
    "RMSNorm.eps": RMSNorm,
    "UnitOffsetRMSNorm.eps": UnitOffsetRMSNorm,
    "PartialRMSNorm.eps": lambda width, **settings: PartialRMSNorm(width, 0.5, **settings),
    "PartialRMSNorm.part": PartialRMSNorm,
    "ScaleNorm.eps": ScaleNorm,
    "GroupNorm.eps": GroupNorm,
    "GroupNorm.groups": GroupNorm,
}
VALUES = {"eps": (1e-5, 2.0), "part": (0.5, 0.25), "groups": (4, 2)}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_setting_that_is_changed_counts_from_the_next_call(name: str, dtype: torch.dtype) -> None:
    setting = name.rpartition(".")[2]
    before, after = VALUES[setting]
    x = torch.randn(3, 4, WIDTH, generator=torch.Generator().manual_seed(0)).to(dtype)
    norm = NORMS[name](WIDTH, **{setting: before})
    old = norm(x)
    setattr(norm, setting, after)
    changed = norm(x)
    assert not torch.allclose(changed, old)
    assert torch.equal(changed, NORMS[name](WIDTH, **{setting: after})(x))
    x.requires_grad_(True)
    norm(x).square().sum().backward()
    mine = x.grad.clone()
    x.grad = None
    NORMS[name](WIDTH, **{setting: after})(x).square().sum().backward()
    assert torch.equal(mine, x.grad)


@pytest.mark.parametrize("kind", [RMSNorm, UnitOffsetRMSNorm])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_order_of_casts_that_is_none_is_refused_at_the_next_call(
    kind: Callable[..., nn.Module], dtype: torch.dtype
) -> None:
    norm = kind(WIDTH)
    norm.cast = "lama"
    with pytest.raises(
        ValueError, match=r"did you mean llama\? it must be one of gemma, llama, none"
    ):
        norm(torch.ones(1, WIDTH, dtype=dtype))


def test_layernorms_settings_are_torchs() -> None:
    ours, torchs = LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
    x = torch.randn(5, WIDTH)
    for eps in (1e-5, 3.0, 0.0, -1e-6):
        ours.eps = torchs.eps = eps
        torch.testing.assert_close(ours(x), torchs(x))
    ours.bias = torchs.bias = None
    torch.testing.assert_close(ours(x), torchs(x))


def test_a_gain_of_another_shape_is_refused_and_not_read_past_its_end() -> None:
    for norm in (LayerNorm(WIDTH), RMSNorm(WIDTH), GroupNorm(WIDTH)):
        norm.gain = nn.Parameter(torch.ones(WIDTH // 2))
        with pytest.raises(RuntimeError):
            norm(torch.randn(5, WIDTH))


def test_a_formula_is_what_it_was_built_with() -> None:
    gain = {"gain": {"init": 1, "per": "feature"}}
    norm = Formula(WIDTH, "gain * x / (mean(abs(x)) + eps)", gain, {"eps": 1e-5})
    for norm_ in (norm, copy.deepcopy(norm)):
        for name in ("eps", "expression"):
            with pytest.raises(AttributeError, match=f"^{name} of a Formula .* another Formula"):
                setattr(norm_, name, 2.0)
        norm_.gain = nn.Parameter(torch.full((WIDTH,), 3.0))
        x = torch.randn(5, WIDTH)
        torch.testing.assert_close(norm_(x), 3 * x / (x.abs().mean(-1, keepdim=True) + 1e-5))


def test_a_compiled_norm_follows_its_settings() -> None:
    norm = RMSNorm(WIDTH)
    compiled = torch.compile(norm, backend="eager", fullgraph=True)
    x = torch.randn(5, WIDTH)
    for eps in (1e-5, 2.0):
        norm.eps = eps
        torch.testing.assert_close(compiled(x), norm(x))
