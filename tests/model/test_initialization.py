"""Weights are a function of (seed, name): what two models share, they share to the bit."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from normlab.config.placement import Scale
from normlab.config.schema import (
    FeedForwardKind,
    InitConfig,
    InitScheme,
    ModelConfig,
    Positions,
)
from normlab.model.gpt import GPT
from normlab.norms import LayerNorm, RMSNorm
from uniform_placement import uniform_placement

NANOGPT = ModelConfig(depth=2, width=32, heads=4, context=16, tie=False, bias=True)
MINIMIND = ModelConfig(
    depth=2,
    width=32,
    heads=4,
    kv_heads=2,
    context=16,
    positions=Positions.rotary,
    feedforward=FeedForwardKind.swiglu,
)
SHAPES = pytest.mark.parametrize("shape", [NANOGPT, MINIMIND], ids=["nanogpt", "minimind"])
SITES = ("input", "output", "stream", "final", "embedding", "qk", "inner")


def weights(shape=NANOGPT, placement=None, seed=0, vocabulary=29):
    """The drawn weights, by name."""
    model = GPT(shape, placement or uniform_placement(), vocabulary, seed)
    return {name: p.detach() for name, p in model.named_parameters() if p.ndim == 2}


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


@SHAPES
def test_changing_the_norm_changes_no_other_weight(shape):
    bare = weights(shape)
    for norm in (LayerNorm, RMSNorm, nn.RMSNorm, nn.LayerNorm, nn.BatchNorm1d):
        assert same(weights(shape, uniform_placement(**dict.fromkeys(SITES, norm))), bare)


@SHAPES
def test_a_norm_that_draws_random_numbers_of_its_own_changes_no_other_weight(shape):
    noisy = weights(shape, uniform_placement(**dict.fromkeys(SITES, Noisy)))
    bare = weights(shape)
    assert all(torch.equal(noisy[name], value) for name, value in bare.items())


class Noisy(nn.Module):
    """A norm whose gain starts at random, from PyTorch's own generator."""

    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.randn(width))

    def forward(self, x):
        return x * self.gain


@SHAPES
@pytest.mark.parametrize(
    "placement",
    [
        *(uniform_placement(**{site: RMSNorm}) for site in SITES),
        uniform_placement(stream=RMSNorm, skip=4**0.25),
        uniform_placement(input=RMSNorm, branch=0.5),
        uniform_placement(branch=Scale(0.0, "scalar")),
        uniform_placement(branch=Scale(0.1, "feature"), skip=Scale(1.0, "feature")),
    ],
    ids=[*SITES, "deepnorm", "depth", "rezero", "layerscale"],
)
def test_changing_the_placement_changes_no_other_weight(shape, placement):
    assert same(weights(shape, placement), weights(shape))


@SHAPES
def test_a_norm_keeps_the_start_it_gave_itself(shape):
    def unusual(width):
        module = nn.LayerNorm(width)
        nn.init.constant_(module.weight, 0.7)
        nn.init.constant_(module.bias, 0.3)
        return module

    model = GPT(shape, uniform_placement(**dict.fromkeys(SITES, unusual)), 29, seed=0)
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert norms
    assert all((n.weight == 0.7).all() and (n.bias == 0.3).all() for n in norms)


def test_a_norm_made_of_a_projection_keeps_its_start_too():
    model = GPT(
        NANOGPT, uniform_placement(final=lambda width: filled(nn.Linear(width, width))), 29, 0
    )
    assert (model.final_norm.weight == 0.7).all()


def filled(module):
    nn.init.constant_(module.weight, 0.7)
    return module


@SHAPES
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(shape, seed):
    first = weights(shape, seed=seed)
    assert same(first, weights(shape, seed=seed))
    other = weights(shape, seed=(seed + 1) % 2**32)
    assert not any(torch.equal(value, other[name]) for name, value in first.items())


@SHAPES
def test_the_state_of_pytorchs_own_generator_neither_matters_nor_changes(shape):
    torch.manual_seed(1)
    first = weights(shape)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = weights(shape)
    assert same(first, second)
    assert torch.equal(torch.get_rng_state(), state)


@SHAPES
def test_no_two_weights_are_the_same_draw(shape):
    found = list(weights(shape).values())
    for i, one in enumerate(found):
        for other in found[:i]:
            length = min(one.numel(), other.numel())
            pair = torch.stack([one.flatten()[:length], other.flatten()[:length]])
            assert abs(torch.corrcoef(pair)[0, 1]) < 5 / math.sqrt(length)


# Projections that write to the residual stream.
WRITERS = ("attention.sublayer.out.weight", "feedforward.sublayer.down.weight")


@pytest.mark.parametrize("std", [0.02, 0.1])
@pytest.mark.parametrize(
    ("depth", "output", "factor"),
    [(2, 1.0, 1.0), (2, "1/sqrt(2*L)", 0.5), (8, "1/sqrt(2*L)", 0.25), (2, 3, 3.0)],
)
@SHAPES
def test_weights_are_normal_with_the_std_of_the_table(shape, depth, output, factor, std):
    shape = changed(shape, depth=depth, init=InitConfig(std, output))
    for name, weight in weights(shape).items():
        expected = std * factor if name.endswith(WRITERS) else std
        standard = weight.double().flatten() / expected
        many = standard.numel()
        assert abs(standard.mean()) < 5 / math.sqrt(many), name
        assert abs(standard.std() - 1) < 5 / math.sqrt(2 * many), name
        assert stats.kstest(standard.numpy(), "norm").pvalue > 1e-5, name


def changed(shape, **changes):
    return ModelConfig(**{**vars(shape), **changes})


def test_every_block_has_two_projections_that_write_to_the_stream():
    writers = [name for name in weights(NANOGPT) if name.endswith(WRITERS)]
    assert len(writers) == 2 * NANOGPT.depth


def test_biases_start_at_zero():
    model = GPT(NANOGPT, uniform_placement(), 29, seed=0)
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    assert len(biases) == 4 * NANOGPT.depth  # qkv, out, up, down
    assert all((bias == 0).all() for bias in biases)


@SHAPES
def test_a_deeper_model_starts_with_the_weights_of_a_shallower_one(shape):
    shallow, deep = weights(changed(shape, depth=2)), weights(changed(shape, depth=5))
    assert len(deep) > len(shallow)
    assert all(torch.equal(deep[name], value) for name, value in shallow.items())


@SHAPES
def test_gpt2s_output_scale_changes_the_size_of_a_draw_and_not_the_draw(shape):
    plain = weights(shape)
    scaled = weights(changed(shape, init=InitConfig(0.02, "1/sqrt(2*L)")))
    for name, value in plain.items():
        expected = value / 2 if name.endswith(WRITERS) else value
        torch.testing.assert_close(scaled[name], expected)


def test_untying_the_head_adds_a_matrix_and_changes_none():
    tied, free = (weights(changed(NANOGPT, tie=tie)) for tie in (True, False))
    assert free.keys() - tied.keys() == {"head.weight"}
    assert all(torch.equal(free[name], value) for name, value in tied.items())


THEORY = ModelConfig(
    depth=3,
    width=32,
    heads=1,
    context=16,
    tie=False,
    hidden_ratio=1.0,
    feedforward=FeedForwardKind.relu,
    init=InitConfig(scheme=InitScheme.xavier, embedding=1.0, query_key=0.0),
)


def test_theory_init_is_xavier_with_attention_that_averages():
    for name, weight in weights(THEORY, vocabulary=96).items():
        parts = weight.split(32) if name.endswith("qkv.weight") else [weight]
        for part, is_zero in zip(parts, [True, True, False][-len(parts) :], strict=True):
            fan_out, fan_in = part.shape
            expected = 1.0 if name.endswith(("embedding.weight", "positions.weight")) else None
            expected = expected or math.sqrt(2 / (fan_in + fan_out))
            if is_zero:
                assert (part == 0).all(), name
            else:
                many = part.numel()
                assert abs(part.std() / expected - 1) < 5 / math.sqrt(2 * many), name


def test_another_scheme_draws_the_same_numbers():
    normal = weights(changed(THEORY, init=InitConfig(1.0)))
    for name, weight in weights(changed(THEORY, init=InitConfig(scheme=InitScheme.xavier))).items():
        if not name.endswith(("embedding.weight", "positions.weight", "qkv.weight")):
            factor = math.sqrt(2 / sum(weight.shape))
            torch.testing.assert_close(weight, normal[name] * factor)


def test_relu_is_the_feedforward_of_2017():
    model = GPT(THEORY, uniform_placement(), 29, seed=0)
    network, x = model.blocks[0].feedforward.sublayer, torch.randn(5, 32)
    expected = (x @ network.up.weight.T).clamp(min=0) @ network.down.weight.T
    torch.testing.assert_close(network(x), expected)
