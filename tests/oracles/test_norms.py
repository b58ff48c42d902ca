"""Norms of conf/norm against those of PyTorch, transformers and x-transformers.

None of the three has partial_rmsnorm; tests/norms/test_catalogue.py has equations for all.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import x_transformers.x_transformers as lucidrains
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.testing import assert_close
from transformers.models.cohere.modeling_cohere import CohereLayerNorm
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm

from network_comparison import assert_same_function, call_with_weights, perturb_parameters
from normlab import config
from normlab.norms import norm_factory

Weights = dict[str, Tensor]

FOLDER = config.conf_folder() / "norm"
SHAPES = [(8,), (3, 12), (2, 5, 48), (2, 1, 3, 64)]
DOUBLE, SINGLE = (torch.float64, 1e-12), (torch.float32, 2e-6)


class TokenGroupNorm(nn.GroupNorm):
    """PyTorch's, which takes samples and channels: here tokens and features."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, x.shape[-1])).reshape(x.shape)


@dataclass(frozen=True)
class Oracle:
    """Another package's norm of a width, and its parameters made of ours.

    transformers computes norms in fp32 whatever it is given, so it is compared there.
    x-transformers divides by max(|x|, 1e-12) and has no eps under a root: ours is lost in inputs
    of size 1e5, where 1e-5 beside a square of 1e10 is less than what float64 resolves.
    """

    norm: str
    build: Callable[[int], nn.Module]
    weights: Callable[[Weights, int], Weights]
    precision: tuple[torch.dtype, float] = DOUBLE
    size: float = 1.0


def gain(p: Weights, d: int) -> Weights:
    return {"weight": p["gain"]}


def affine(p: Weights, d: int) -> Weights:
    return {"weight": p["gain"], "bias": p["bias"]}


def offset(p: Weights, d: int) -> Weights:
    return {"weight": p["offset"]}


def dyt(p: Weights, d: int) -> Weights:
    return {"pre_tanh_scale": p["alpha"], "gamma": p["gain"], "beta": p["bias"]}


def derf(p: Weights, d: int) -> Weights:
    return {"alpha": p["alpha"], "s": p["shift"], "gamma": p["gain"], "beta": p["bias"]}


ORACLES = [
    Oracle("none", lambda d: nn.Identity(), lambda p, d: {}),
    Oracle("layernorm", lambda d: nn.LayerNorm(d, eps=1e-5), affine),
    Oracle("layernorm_nobias", lambda d: nn.LayerNorm(d, eps=1e-5, bias=False), gain),
    Oracle("layernorm_nobias", lucidrains.LayerNorm, lambda p, d: {"gamma": p["gain"]}),
    Oracle("layernorm_nobias", lambda d: CohereLayerNorm(d, eps=1e-5), gain, SINGLE),
    Oracle("rmsnorm", lambda d: nn.RMSNorm(d, eps=1e-5), gain),
    Oracle("rmsnorm", lucidrains.RMSNorm, lambda p, d: {"g": p["gain"]}, size=1e5),
    Oracle("rmsnorm", lambda d: LlamaRMSNorm(d, eps=1e-5), gain, SINGLE),
    Oracle("rmsnorm", lambda d: Olmo2RMSNorm(d, eps=1e-5), gain, SINGLE),
    Oracle("gemma_rmsnorm", lambda d: GemmaRMSNorm(d, eps=1e-6), offset, SINGLE),
    Oracle("groupnorm", lambda d: TokenGroupNorm(4, d, eps=1e-5), affine),
    # Its factor √d stands outside g: ours starts at √d, as in the paper.
    Oracle("scalenorm", lucidrains.ScaleNorm, lambda p, d: {"g": p["gain"][None] / d**0.5}),
    Oracle("simple_rmsnorm", lucidrains.SimpleRMSNorm, lambda p, d: {}, size=1e5),
    Oracle("dyt", lucidrains.DynamicTanh, dyt),
    Oracle("derf", lucidrains.Derf, derf),
]


def label(oracle: Oracle) -> str:
    built = type(oracle.build(4))
    return f"{oracle.norm}-{built.__module__.split('.')[0]}-{built.__name__}"


@pytest.fixture(params=[o for o in ORACLES if (FOLDER / f"{o.norm}.yaml").exists()], ids=label)
def oracle(request: pytest.FixtureRequest) -> Oracle:
    return request.param


def norm_of(name: str, width: int, **changes: str) -> nn.Module:
    return norm_factory({**OmegaConf.load(FOLDER / f"{name}.yaml"), **changes})(width)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_all_gradients_are_another_packages(
    oracle: Oracle, shape: tuple[int, ...]
) -> None:
    dtype, tolerance = oracle.precision
    ours = perturb_parameters(norm_of(oracle.norm, shape[-1])).to(dtype)
    theirs = oracle.build(shape[-1]).to(dtype)
    x = (oracle.size * draw(*shape)).to(dtype).requires_grad_()
    p = dict(ours.named_parameters())
    other = call_with_weights(theirs, oracle.weights(p, shape[-1]), x)
    assert_same_function(ours(x), other, [x, *p.values()], tolerance)


def test_parameters_start_where_another_packages_do(oracle: Oracle) -> None:
    ours, theirs = dict(norm_of(oracle.norm, 16).named_parameters()), oracle.build(16)
    start = oracle.weights(ours, 16)
    assert start.keys() == dict(theirs.named_parameters()).keys()
    for name, parameter in theirs.named_parameters():
        assert_close(start[name], parameter)


@pytest.mark.parametrize(
    ("name", "cast", "build", "weights"),
    [
        ("rmsnorm", "llama", LlamaRMSNorm, gain),
        ("rmsnorm", "gemma", Olmo2RMSNorm, gain),
        ("gemma_rmsnorm", "gemma", GemmaRMSNorm, offset),
    ],
)
def test_in_bf16_the_roundings_are_those_of_each_family_to_the_bit(
    name: str, cast: str, build: Callable[..., nn.Module], weights: Callable[..., Weights]
) -> None:
    ours = perturb_parameters(norm_of(name, 64, cast=cast)).bfloat16()
    other = norm_of(name, 64, cast={"llama": "gemma", "gemma": "llama"}[cast]).bfloat16()
    other.load_state_dict(ours.state_dict())
    x = draw(50, 64).bfloat16()
    theirs = call_with_weights(build(64, ours.eps), weights(dict(ours.named_parameters()), 64), x)
    assert torch.equal(ours(x), theirs)
    assert not torch.equal(other(x), theirs)
