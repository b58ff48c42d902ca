"""Every placement in conf/placement is the network that its paper draws, written apart here."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from normlab import config
from normlab.errors import ConfigError
from normlab.model.gpt import GPT
from normlab.training.build import build_model, check_networks
from tiny_run import TINY

FILES = sorted(path.stem for path in (config.conf_folder() / "placement").glob("*.yaml"))
DEPTH = 4
SHAPE = (*TINY, f"model.depth={DEPTH}", "model.init.std=0.4", "model.init.output=0.5")

Map = Callable[[Tensor], Tensor]


def n(x: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(x, x.shape[-1:])


def blockwise(block: Callable[..., Tensor], final: bool) -> Callable[..., Tensor]:
    """A network of one stream: block(x, attention, feedforward, l) for l from 1."""

    def network(x: Tensor, blocks: list[tuple[Map, Map]]) -> Tensor:
        for l, (a, f) in enumerate(blocks, 1):
            x = block(x, a, f, l)
        return n(x) if final else x

    return network


def alike(sublayer: Callable[[Tensor, Map, int], Tensor], final: bool) -> Callable[..., Tensor]:
    """A network whose two sublayers are wired alike: sublayer(x, f, l)."""
    return blockwise(lambda x, a, f, l: sublayer(sublayer(x, a, l), f, l), final)


def b2t(x: Tensor, a: Map, f: Map, l: int) -> Tensor:
    y = n(x + a(x))
    return n(x + y + f(y))


def hybrid(x: Tensor, a: Map, f: Map, l: int) -> Tensor:
    middle = n(x + a(x))
    return middle + f(middle)


def normformer(x: Tensor, a: Map, f: Map, l: int) -> Tensor:
    y = x + n(a(n(x)))
    return y + f(n(y))


def residual(x: Tensor, blocks: list[tuple[Map, Map]]) -> Tensor:
    total = x
    for f in (f for block in blocks for f in block):
        update = f(x)
        x, total = n(x + update), total + update
    return x + n(total)


def siamese(x: Tensor, blocks: list[tuple[Map, Map]]) -> Tensor:
    y = x
    for f in (f for block in blocks for f in block):
        update = f(x + n(y))
        x, y = n(x + update), y + update
    return x + n(y)


ALPHA = (2 * DEPTH) ** 0.25
OMEGA = math.sqrt((2 * DEPTH + 1) / math.log(2 * DEPTH + 1) - 1)

EQUATIONS: dict[str, Callable[..., Tensor]] = {
    "pre": alike(lambda x, f, l: x + f(n(x)), True),
    "post": alike(lambda x, f, l: n(x + f(x)), False),
    "sandwich": alike(lambda x, f, l: x + n(f(n(x))), True),
    "output": alike(lambda x, f, l: x + n(f(x)), True),
    "deepnorm": alike(lambda x, f, l: n(ALPHA * x + f(x)), False),
    "subln": alike(lambda x, f, l: x + f(n(x)), True),
    "normformer": blockwise(normformer, True),
    "mixln": alike(lambda x, f, l: n(x + f(x)) if l == 1 else x + f(n(x)), True),
    "lns": alike(lambda x, f, l: x + f(n(x) / l**0.5), True),
    "hybridnorm": blockwise(hybrid, True),
    "admin": alike(lambda x, f, l: n(OMEGA * x + f(x)), False),
    "keel": alike(
        lambda x, f, l: x + f(n(x)) if l == 1 else n(2 * DEPTH * x + f(n(x))), True
    ),
    "b2t": blockwise(b2t, False),
    "residual": residual,
    "siamese": siamese,
    "gpas": alike(lambda x, f, l: x + f(n(x)), True),
    "parallel": blockwise(lambda x, a, f, l: x + a(n(x)) + f(n(x)), True),
    "rezero": alike(lambda x, f, l: x, False),
    "layerscale": alike(lambda x, f, l: x + 0.1 * f(n(x)), True),
}  # fmt: skip

# Norms inside the sublayers, by placement; none elsewhere.
INSIDE = {
    "subln": {"attention.inner_norm", "feedforward.inner_norm"},
    "normformer": {"feedforward.inner_norm"},
    "hybridnorm": {"attention.q_norm", "attention.k_norm", "attention.v_norm"},
}

# Factors of the standard deviation of value, out, up and down, where it is not the model's own.
FREE = {"value": 1, "out": 1, "up": 1, "down": 1}
BETA, GAMMA = (8 * DEPTH) ** -0.25, math.sqrt(math.log(2 * DEPTH))
FACTORS = {
    "deepnorm": dict.fromkeys(FREE, BETA),
    "subln": dict.fromkeys(FREE, GAMMA),
    "lns": FREE,
}


@pytest.fixture(params=FILES)
def placement(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def model_of(specified: Callable, placement: str, *overrides: str) -> GPT:
    spec = specified(*SHAPE, "norm=layernorm", f"placement={placement}", *overrides)
    return build_model(spec.config, 8).double().eval()


def through(model: GPT, x: Tensor) -> Tensor:
    stream = model.residual.enter(x)
    for block in model.blocks:
        stream = block(stream)
    return model.residual.leave(stream, model.final_norm)


def test_every_file_has_an_equation_to_be_held_to() -> None:
    assert sorted(EQUATIONS) == FILES


def test_a_network_and_its_gradient_are_the_papers(placement: str, specified: Callable) -> None:
    model = model_of(specified, placement)
    blocks = [(b.attention.sublayer, b.feedforward.sublayer) for b in model.blocks]
    x = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    x.requires_grad_(True)
    ours, theirs = through(model, x), EQUATIONS[placement](x, blocks)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    mine, other = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (ours, theirs))
    torch.testing.assert_close(mine, other)


def test_norms_inside_a_sublayer_are_those_of_the_paper(
    placement: str, specified: Callable
) -> None:
    inside = INSIDE.get(placement, set())
    for block in model_of(specified, placement).blocks:
        found = {
            f"{kind}.{name}"
            for kind in ("attention", "feedforward")
            for name, module in getattr(block, kind).sublayer.named_children()
            if name.endswith("_norm") and not isinstance(module, nn.Identity)
        }
        assert found == inside


def test_projections_start_as_large_as_the_paper_says(placement: str, specified: Callable) -> None:
    bare = model_of(specified, "pre", "model.init.output=1")
    model = model_of(specified, placement)
    factors = FACTORS.get(placement, {**FREE, "out": 0.5, "down": 0.5})
    for block, plain in zip(model.blocks, bare.blocks, strict=True):
        a, a0 = block.attention.sublayer, plain.attention.sublayer
        f, f0 = block.feedforward.sublayer, plain.feedforward.sublayer
        assert torch.equal(a.qkv.weight[:32], a0.qkv.weight[:32])  # queries and keys
        for name, ours, base in (
            ("value", a.qkv.weight[32:], a0.qkv.weight[32:]),
            ("out", a.out.weight, a0.out.weight),
            ("up", f.up.weight, f0.up.weight),
            ("down", f.down.weight, f0.down.weight),
        ):
            torch.testing.assert_close(ours, factors[name] * base, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("depth", "alpha", "beta"), [(2, 1.4142, 0.5), (8, 2.0, 0.3536), (100, 3.7606, 0.1880)]
)
def test_deepnorms_constants_are_those_of_its_formula(
    depth: int, alpha: float, beta: float, specified: Callable
) -> None:
    model = model_of(specified, "deepnorm", f"model.depth={depth}", "model.init.std=1")
    assert model.blocks[0].attention.skip.value == pytest.approx(alpha, abs=1e-4)
    found = (
        torch.cat([b.feedforward.sublayer.up.weight.flatten() for b in model.blocks]).detach().std()
    )
    assert found == pytest.approx(beta, rel=5 / math.sqrt(2 * 1024 * depth))


def test_gpas_damps_the_stream_and_not_its_gradient(specified: Callable) -> None:
    model = model_of(specified, "gpas", "model.depth=1")
    attention = model.blocks[0].attention
    attention.stream.gate.data.fill_(0.7)
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0)).double()
    x.requires_grad_(True)
    plain = x + attention.sublayer(n(x))
    damped = attention(x, x)
    torch.testing.assert_close(damped, plain * (1 - silu(torch.tensor(0.7).double())))
    weights = torch.randn_like(x)
    mine, other = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (damped, plain))
    torch.testing.assert_close(mine, other)


def test_normformer_starts_its_heads_at_one_and_learns_them(specified: Callable) -> None:
    attention = model_of(specified, "normformer").blocks[0].attention.sublayer
    gain = attention.head_scale.gain
    assert gain.shape == (2,)
    assert (gain == 1).all()
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        gain[1] = 0
    silent = attention(x)
    with torch.no_grad():
        attention.out.weight[:, 8:] = 7.0  # what the silent head writes through
    torch.testing.assert_close(attention(x), silent)


def test_a_users_own_stream_is_a_class_by_its_path(specified: Callable) -> None:
    spec = specified(*TINY, "placement._target_=normlab.model.streams.TwoStream")
    model = build_model(spec.config, 8)
    assert model.residual.__name__ == "TwoStream"


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("normlab.model.streams.NoStream", "NoStream"),
        ("torch.nn.Linear", "not a subclass"),
        ("nowhere.Stream", "No module named 'nowhere'"),
    ],
)
def test_another_class_is_refused(
    target: str, word: str, specified: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORMLAB_TRUST", "nowhere")
    spec = specified(*TINY, f"placement._target_={target}")
    with pytest.raises(ConfigError, match=word) as refusal:
        check_networks([spec])
    assert "\n" not in str(refusal.value)


def test_two_streams_with_a_block_path_are_refused_before_training(specified: Callable) -> None:
    spec = specified(*TINY, "placement=residual", "placement.feedforward.reads=block")
    with pytest.raises(ConfigError, match="one stream"):
        check_networks([spec])


def test_a_norm_spans_all_heads_as_in_olmo_2(specified: Callable) -> None:
    extra = ("model=minimind", *TINY, "model.kv_heads=1", "placement.qk=true")
    spec: Any = specified(*extra, "placement.head_norm=all", "norm=rmsnorm")
    attention = build_model(spec.config, 8).blocks[0].attention.sublayer
    assert attention.q_norm.gain.shape == (16,)
    assert attention.k_norm.gain.shape == (8,)
    x = torch.randn(2, 5, 16)
    q = attention.qkv(x)[..., :16]
    heads, *_ = attention._split_heads(attention.qkv(x))
    whole = q / q.square().mean(-1, keepdim=True).add(1e-5).sqrt()
    torch.testing.assert_close(heads.permute(1, 2, 0, 3).flatten(-2), whole)
