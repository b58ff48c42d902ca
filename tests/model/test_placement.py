"""x ← stream(skip·x + branch·output(f(input(x)))), for the placements of the literature."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from normlab.config.placement import SUBLAYERS, Scale
from normlab.config.schema import FeedForwardKind, ModelConfig, Positions
from normlab.errors import ConfigError
from normlab.model.gpt import GPT
from normlab.model.placement import Residual, build_scale, build_site
from normlab.model.streams import TwoStream
from uniform_placement import make_wiring, uniform_placement

WIDTH = 8


class Sublayer(nn.Module):
    """f(x) = tanh(x Aᵀ + c): not linear, not odd, so no two placements of a norm agree."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator).double())
        self.offset = nn.Parameter(torch.randn(WIDTH, generator=generator).double())

    def forward(self, x):
        return (x @ self.weight.T + self.offset).tanh()


@pytest.fixture
def f():
    return Sublayer()


@pytest.fixture
def x():
    return torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(5)).double()


def norm(width):
    """A norm with a sign of its own: gain 1 … 2, so it does not commute with anything."""
    module = nn.LayerNorm(width, dtype=torch.float64)
    module.weight.data = torch.linspace(1, 2, width).double()
    return module


def N(x):  # noqa: N802  the papers' letter
    return F.layer_norm(x, x.shape[-1:]) * torch.linspace(1, 2, x.shape[-1]).double()


EQUATIONS = {
    "nothing": (make_wiring(), lambda f, x: x + f(x)),
    "pre": (make_wiring(input=norm), lambda f, x: x + f(N(x))),
    "post": (make_wiring(stream=norm), lambda f, x: N(x + f(x))),
    "sandwich": (make_wiring(input=norm, output=norm), lambda f, x: x + N(f(N(x)))),
    "output": (make_wiring(output=norm), lambda f, x: x + N(f(x))),
    "all three": (
        make_wiring(input=norm, output=norm, stream=norm),
        lambda f, x: N(x + N(f(N(x)))),
    ),
    "deepnorm": (
        make_wiring(stream=norm, skip=8**0.25),
        lambda f, x: N(8**0.25 * x + f(x)),
    ),
    "keel": (
        make_wiring(input=norm, stream=norm, skip=8),
        lambda f, x: N(8 * x + f(N(x))),
    ),
    "layernorm scaling": (
        make_wiring(input=norm, input_scale=1 / math.sqrt(3)),
        lambda f, x: x + f(N(x) / math.sqrt(3)),
    ),
    "a branch of half": (make_wiring(input=norm, branch=0.5), lambda f, x: x + 0.5 * f(N(x))),
    "a scaled norm": (
        make_wiring(output=norm, branch=1 / math.sqrt(3)),
        lambda f, x: x + N(f(x)) / math.sqrt(3),
    ),
    "no skip": (make_wiring(input=norm, skip=0), lambda f, x: f(N(x))),
}


@pytest.mark.parametrize(("placement", "equation"), EQUATIONS.values(), ids=EQUATIONS)
def test_a_residual_sublayer_is_its_papers_equation(placement, equation, f, x):
    residual = Residual(f, placement, WIDTH)
    x.requires_grad_()
    y, by_hand = residual(x, x), equation(f, x)
    assert_close(y, by_hand)
    inputs = [x, f.weight, f.offset]
    mine, true = (torch.autograd.grad(out.square().sum(), inputs) for out in (y, by_hand))
    for gradient, exact in zip(mine, true, strict=True):
        assert_close(gradient, exact)


def test_x0_may_be_added_to_the_stream_and_may_be_what_a_sublayer_reads(f, x):
    entered = x.flip(0) + 1
    b2t = Residual(f, make_wiring(stream=norm, block_skip=1), WIDTH)
    assert_close(b2t(x, entered), N(x + entered + f(x)))
    half = Residual(f, make_wiring(block_skip=0.5, skip=2), WIDTH)
    assert_close(half(x, entered), 2 * x + 0.5 * entered + f(x))
    parallel = Residual(f, make_wiring(input=norm, reads="block"), WIDTH)
    assert_close(parallel(x, entered), x + f(N(entered)))


@pytest.mark.parametrize(
    ("branch", "shape"),
    [(Scale(0.0, "scalar"), ()), (Scale(0.1, "feature"), (WIDTH,)), (Scale(1.0, "scalar"), ())],
    ids=["rezero", "layerscale", "one"],
)
def test_a_learnable_branch_starts_where_told_and_gets_the_gradient_of_its_update(
    branch, shape, f, x
):
    residual = Residual(f, make_wiring(input=norm, branch=branch), WIDTH).double()
    (gain,) = residual.branch.parameters()
    assert gain.shape == shape
    assert_close(residual(x, x), x + branch.value * f(N(x)), rtol=1e-6, atol=1e-7)
    residual(x, x).square().sum().backward()
    per_feature = (2 * residual(x, x) * f(N(x))).sum((0, 1)).detach()
    assert_close(gain.grad, per_feature if shape else per_feature.sum())


def test_a_learnable_skip_multiplies_the_stream_and_not_the_update(f, x):
    residual = Residual(f, make_wiring(output=norm, skip=Scale(0.5, "feature")), WIDTH).double()
    (gain,) = residual.skip.parameters()
    gain.data = torch.linspace(-1, 1, WIDTH).double()
    assert_close(residual(x, x), torch.linspace(-1, 1, WIDTH).double() * x + N(f(x)))


def test_rezero_starts_as_the_identity_and_moves_only_by_its_gain(f, x):
    residual = Residual(f, make_wiring(branch=Scale(0.0, "scalar")), WIDTH)
    assert_close(residual(x, x), x)
    residual(x, x).square().sum().backward()
    assert residual.branch.gain.grad.abs() > 0.1
    assert f.weight.grad.abs().max() == 0


def test_fixed_scales_are_no_parameters(f):
    residual = Residual(
        f, make_wiring(skip=8**0.25, branch=0.3, block_skip=2, input_scale=3), WIDTH
    )
    assert dict(residual.named_parameters()).keys() == {"sublayer.weight", "sublayer.offset"}


def test_a_scale_of_one_costs_nothing():
    assert isinstance(build_scale(Scale(1.0)), nn.Identity)


def test_resi_duals_streams_are_one_that_is_normalised_and_one_that_is_not(f, x):
    residual = TwoStream(f, make_wiring(stream=norm), WIDTH)
    y = x.flip(0) + 1
    after = residual((x, y), (x, y))
    assert_close(after[0], N(x + f(x)))
    assert_close(after[1], y + f(x))
    assert_close(TwoStream.leave(after, norm(WIDTH)), after[0] + N(after[1]))
    assert all(stream is x for stream in TwoStream.enter(x))


def test_siamese_streams_are_read_together(f, x):
    residual = TwoStream(f, make_wiring(input=norm, stream=norm), WIDTH)
    y = x.flip(0) + 1
    update = f(x + N(y))
    after = residual((x, y), (x, y))
    assert_close(after[0], N(x + update))
    assert_close(after[1], y + update)


@pytest.mark.parametrize("sites", [{"reads": "block"}, {"block_skip": 1}])
def test_two_streams_know_no_block_stream(sites, f):
    with pytest.raises(ConfigError, match="one stream"):
        TwoStream(f, make_wiring(**sites), WIDTH)


def test_a_site_without_a_norm_is_the_identity(x):
    assert build_site(None, WIDTH)(x) is x
    assert isinstance(build_site(norm, WIDTH), nn.LayerNorm)


class Sites:
    """A norm factory that remembers the widths it was asked for."""

    def __init__(self):
        self.widths = []

    def __call__(self, width):
        self.widths.append(width)
        return nn.RMSNorm(width, eps=1e-5)


# Four heads of 4 features, two for keys and values; 24 hidden features.
SHAPES = {
    "gelu": ModelConfig(depth=3, width=16, heads=4, context=8, hidden_ratio=1.5),
    "llama": ModelConfig(
        depth=3,
        width=16,
        heads=4,
        kv_heads=2,
        context=8,
        positions=Positions.rotary,
        feedforward=FeedForwardKind.swiglu,
        hidden_ratio=1.3,
        hidden_multiple=8,
    ),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    ("site", "widths"),
    [
        ("input", [16, 16] * 3),
        ("output", [16, 16] * 3),
        ("stream", [16, 16] * 3),
        ("qk", [4, 4] * 3),  # one for q and one for k, shared by the heads
        ("q", [4] * 3),
        ("k", [4] * 3),
        ("v", [4] * 3),
        ("inner", [16, 24] * 3),  # before attention's and before the feed-forward's last matrix
        ("embedding", [16]),
        ("final", [16]),
    ],
)
def test_a_site_puts_a_norm_of_the_right_width_in_every_block_or_once(shape, site, widths):
    sites = Sites()
    model = GPT(shape, uniform_placement(**{site: sites}), vocabulary=11, seed=0)
    assert sorted(sites.widths) == sorted(widths)
    norms = [module for module in model.modules() if isinstance(module, nn.RMSNorm)]
    assert sorted(n.weight.numel() for n in norms) == sorted(widths)
    model(torch.arange(8)[None]).square().sum().backward()
    assert all(n.weight.grad.abs().max() > 0 for n in norms)


def test_a_model_without_sites_holds_no_norm():
    model = GPT(SHAPES["gelu"], uniform_placement(), vocabulary=11, seed=0)
    kinds = {name.rsplit(".", 1)[-1] for name, _ in model.named_parameters()}
    assert kinds == {"weight"}
    assert all(parameter.ndim == 2 for parameter in model.parameters())


def test_the_embedding_norm_comes_before_the_blocks_and_the_final_norm_after_them():
    model = GPT(SHAPES["gelu"], uniform_placement(embedding=norm, final=norm), 11, seed=0).double()
    model.blocks = nn.ModuleList([Tripled()])
    tokens = torch.tensor([[3, 1, 4]])
    stream = N(model.embedding.weight[tokens] + model.positions.weight[:3])
    assert_close(model(tokens), N(3 * stream + 1 * stream**2) @ model.embedding.weight.T)


class Tripled(nn.Module):
    """Stands where the blocks stood."""

    def forward(self, x):
        return 3 * x + x**2


@pytest.mark.parametrize("order", [SUBLAYERS, SUBLAYERS[::-1]])
def test_the_stream_goes_through_the_sublayers_in_the_placements_order(order):
    placement = replace(uniform_placement(input=norm), order=order)
    block = GPT(SHAPES["gelu"], placement, vocabulary=11, seed=0).double().blocks[0]
    first, second = (getattr(block, name).sublayer for name in order)
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0)).double()
    y = x + first(N(x))
    assert_close(block(x), y + second(N(y)))
