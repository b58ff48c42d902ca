"""Every norm in conf/norm is found here by being there, and held to an equation written apart."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from normlab import config
from normlab.errors import ConfigError
from normlab.norms import norm_factory

FILES = {path.stem: path for path in sorted((config.conf_folder() / "norm").glob("*.yaml"))}
WIDTH = 48


def rms(x: Tensor, part: Tensor, eps: float) -> Tensor:
    return x / ((part**2).sum(-1, keepdim=True) / part.shape[-1] + eps) ** 0.5


def centred(x: Tensor) -> Tensor:
    return x - x.sum(-1, keepdim=True) / x.shape[-1]


def whole(x: Tensor) -> Tensor:
    """With the feature that CRMSNorm leaves out: the one that makes the mean zero."""
    return torch.cat([x, -x.sum(-1, keepdim=True)], dim=-1)


def extreme(width: int) -> float:
    """1803.01814's constant of the L-infinity norm."""
    return 0.5 * (1 + math.sqrt(math.pi * math.log(4))) / math.sqrt(2 * math.log(width))


def normal_cdf(x: Tensor) -> Tensor:
    return torch.special.ndtr(x)


# Parameters by name, as float64; what the paper says.
EQUATIONS: dict[str, Callable[[Tensor, dict[str, Tensor]], Tensor]] = {
    "none": lambda x, p: x,
    "layernorm": lambda x, p: rms(centred(x), centred(x), 1e-5) * p["gain"] + p["bias"],
    "layernorm_nobias": lambda x, p: rms(centred(x), centred(x), 1e-5) * p["gain"],
    "rmsnorm": lambda x, p: rms(x, x, 1e-5) * p["gain"],
    "partial_rmsnorm": lambda x, p: rms(x, x[..., : WIDTH // 16], 1e-5) * p["gain"],
    "gemma_rmsnorm": lambda x, p: rms(x, x, 1e-6) + rms(x, x, 1e-6) * p["offset"],
    "groupnorm": lambda x, p: (
        torch.cat([rms(centred(g), centred(g), 1e-5) for g in x.split(WIDTH // 4, -1)], -1)
        * p["gain"] + p["bias"]
    ),
    "scalenorm": lambda x, p: p["gain"] * x / ((x * x).sum(-1, keepdim=True) ** 0.5).clamp(1e-5),
    "dyt": lambda x, p: (
        p["gain"] * (1 - 2 / (1 + (2 * p["alpha"] * x).exp())) + p["bias"]
    ),
    "dyt_nobias": lambda x, p: p["gain"] * (1 - 2 / (1 + (2 * p["alpha"] * x).exp())),
    "derf_gpt2": lambda x, p: (
        p["gain"] * (2 * normal_cdf((p["alpha"] * x + p["shift"]) * 2**0.5) - 1)
    ),
    "l1": lambda x, p: (
        p["gain"] * x / ((math.pi / 2) ** 0.5 * (x.norm(1, -1, keepdim=True) / WIDTH + 1e-5))
    ),
    "linf": lambda x, p: (
        p["gain"] * x / (extreme(WIDTH) * x.norm(math.inf, -1, keepdim=True) + 1e-5)
    ),
    "simple_rmsnorm": lambda x, p: rms(x, x, 1e-6),
    "crmsnorm": lambda x, p: rms(whole(x), whole(x), 1e-5)[..., :-1] * p["gain"],
    "derf": lambda x, p: (
        p["gain"] * (2 * normal_cdf((p["alpha"] * x + p["shift"]) * 2**0.5) - 1) + p["bias"]
    ),
    "isru": lambda x, p: (
        p["gain"] * (p["alpha"] * x + p["shift"]).atan().sin() + p["bias"]
    ),
    "dyisru": lambda x, p: (
        p["gain"] * WIDTH**0.5 * (x / p["beta"] ** 0.5).atan().sin() + p["bias"]
    ),
    "seednorm": lambda x, p: (
        rms(x, x, 1e-5) * (p["gain"] + p["a"] * (x @ p["b"]).tanh().unsqueeze(-1))
    ),
    "bhyt": lambda x, p: (
        p["gain"] * (1 - 2 / (1 + (0.2 * p["scale"] * rms(x, x, 1e-6)).exp()))
    ),
}  # fmt: skip


@pytest.fixture(params=FILES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def norm_of(name: str) -> nn.Module:
    return norm_factory(OmegaConf.load(FILES[name]))(WIDTH)


def stirred(norm: nn.Module) -> nn.Module:
    """The same norm with parameters that are no longer what they started as."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return norm


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(0)).double()


def test_every_file_has_an_equation_to_be_held_to() -> None:
    assert EQUATIONS.keys() == FILES.keys()


def test_output_and_gradients_are_the_papers(name: str, x: Tensor) -> None:
    norm = stirred(norm_of(name).double())
    parameters: dict[str, Any] = dict(norm.named_parameters())
    x.requires_grad_(True)
    weights = torch.randn_like(x)
    wanted = [x, *parameters.values()]
    expected = EQUATIONS[name](x, parameters)
    torch.testing.assert_close(norm(x), expected, rtol=1e-10, atol=1e-12)
    ours = torch.autograd.grad((norm(x) * weights).sum(), wanted)
    theirs = torch.autograd.grad((expected * weights).sum(), wanted)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11)


def test_gradients_hold_numerically_twice(name: str, x: Tensor) -> None:
    norm = stirred(norm_of(name).double())
    small = x[:1, :2].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(norm, (small,))
    assert torch.autograd.gradgradcheck(norm, (small,))


def test_half_precision_goes_in_and_comes_out(name: str, x: Tensor) -> None:
    norm = stirred(norm_of(name))
    out = norm(x.to(torch.bfloat16))
    assert out.dtype == torch.bfloat16
    exact = EQUATIONS[name](
        x.to(torch.bfloat16).double(), {k: p.double() for k, p in norm.named_parameters()}
    )
    torch.testing.assert_close(out.double(), exact, rtol=2**-7, atol=2**-7)


def test_zeros_stay_finite_forward_and_backward(name: str) -> None:
    zeros = torch.zeros(2, WIDTH, requires_grad=True)
    norm_of(name)(zeros).sum().backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


@pytest.mark.parametrize("target", ["RMSNorm", "UnitOffsetRMSNorm"])
def test_the_order_of_casts_is_that_of_each_family(target: str, x: Tensor) -> None:
    half = x.to(torch.bfloat16)
    found = {}
    for cast in ("gemma", "llama", "none"):
        norm = stirred(norm_factory({"_target_": f"normlab.norms.{target}", "cast": cast})(WIDTH))
        found[cast] = norm(half)
        gain = next(norm.parameters()) + (target == "UnitOffsetRMSNorm")
    eps = 1e-6 if target == "UnitOffsetRMSNorm" else 1e-5
    normed = half.float() * (half.float().square().mean(-1, keepdim=True) + eps).rsqrt()
    assert torch.equal(found["llama"], normed.bfloat16() * gain.bfloat16())
    assert torch.equal(found["gemma"], (normed * gain).bfloat16())
    statistic = (half * half).mean(-1, keepdim=True) + eps
    assert torch.equal(found["none"], half * statistic.rsqrt() * gain.bfloat16())
    assert not torch.equal(found["llama"], found["gemma"])


@pytest.mark.parametrize("target", ["RMSNorm", "UnitOffsetRMSNorm"])
def test_an_unknown_order_of_casts_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match="gemma, llama, none"):
        norm_factory({"_target_": f"normlab.norms.{target}", "cast": "bf16"})(WIDTH)


def test_groups_divide_the_features() -> None:
    with pytest.raises(ConfigError, match="groups=5"):
        norm_factory({"_target_": "normlab.norms.GroupNorm", "groups": 5})(WIDTH)


def test_a_partial_statistic_has_the_features_that_the_product_means() -> None:
    """100 · 0.29 is 28.999999999999996 in floating point."""
    norm = norm_factory({"_target_": "normlab.norms.PartialRMSNorm", "part": 0.29, "eps": 0})(100)
    x = torch.zeros(1, 100)
    x[:, 28] = 1
    assert norm(x).max().item() == pytest.approx(29**0.5)


def test_a_partial_statistic_needs_a_feature() -> None:
    with pytest.raises(ConfigError, match=r"part=0\.001"):
        norm_factory({"_target_": "normlab.norms.PartialRMSNorm", "part": 0.001})(WIDTH)
