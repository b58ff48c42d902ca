"""A causal language model of the sizes we say, and each of its parts against its formula."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from scipy import stats
from torch.testing import assert_close

from normlab.config.schema import (
    AttentionKernel,
    FeedForwardKind,
    InitConfig,
    ModelConfig,
    Positions,
)
from normlab.model.gpt import EXPLICIT_CONTEXT, GPT, Rotary, count_parameters
from normlab.norms import LayerNorm, RMSNorm
from uniform_placement import uniform_placement

VOCABULARY = 13
# Weights of 0.4 instead of 0.02, so that attention is far from uniform.
NANOGPT = ModelConfig(depth=2, width=16, heads=4, context=12, init=InitConfig(std=0.4))
MINIMIND = replace(
    NANOGPT,
    kv_heads=2,
    positions=Positions.rotary,
    rotary_base=100.0,
    feedforward=FeedForwardKind.swiglu,
)
SHAPES = pytest.mark.parametrize("shape", [NANOGPT, MINIMIND], ids=["nanogpt", "minimind"])
KERNELS = pytest.mark.parametrize("kernel", [AttentionKernel.explicit, AttentionKernel.sdpa])
PRE = uniform_placement(input=RMSNorm, final=RMSNorm)
EVERYWHERE = uniform_placement(
    **dict.fromkeys(("input", "output", "stream", "final", "embedding", "qk", "inner"), LayerNorm)
)


def gpt(shape=NANOGPT, placement=PRE, vocabulary=VOCABULARY, seed=0):
    return GPT(shape, placement, vocabulary, seed).double()


def text(*shape, vocabulary=VOCABULARY, seed=0):
    return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(seed))


def stream(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def option(name):
    """A model of conf/model/."""
    file = Path(__file__).parents[2] / "conf" / "model" / f"{name}.yaml"
    merged = OmegaConf.merge(OmegaConf.structured(ModelConfig), OmegaConf.load(file))
    return OmegaConf.to_object(merged)


# Causality


@SHAPES
@KERNELS
@pytest.mark.parametrize("placement", [PRE, EVERYWHERE], ids=["pre", "everywhere"])
@pytest.mark.parametrize("changed", [0, 5, 11])
def test_a_token_changes_no_logits_before_it(shape, kernel, placement, changed):
    model = gpt(replace(shape, attention=kernel), placement)
    tokens = text(2, 12)
    other = tokens.clone()
    other[:, changed] = (other[:, changed] + 1) % VOCABULARY
    moved = (model(tokens) - model(other)).abs().amax(-1)
    assert (moved[:, :changed] < 1e-12).all()
    assert (moved[:, changed:] > 1e-6).all()


@SHAPES
@KERNELS
@pytest.mark.parametrize("time", [0, 6, 11])
def test_logits_take_their_gradient_from_the_past_alone(shape, kernel, time):
    model, seen = gpt(replace(shape, attention=kernel)), []
    model.embedding.register_forward_hook(lambda module, tokens, out: seen.append(out))
    logits = model(text(2, 12))
    (gradient,) = torch.autograd.grad(logits[:, time].square().sum(), seen)
    reached = gradient.abs().amax(-1)
    assert (reached[:, : time + 1] > 1e-6).all()
    assert (reached[:, time + 1 :] < 1e-12).all()


@SHAPES
@KERNELS
def test_a_text_shorter_than_the_context_has_the_logits_of_its_continuation(shape, kernel):
    model, tokens = gpt(replace(shape, attention=kernel)), text(2, 12)
    whole = model(tokens)
    for time in (1, 7):
        assert_close(model(tokens[:, :time]), whole[:, :time])


@SHAPES
def test_the_texts_of_a_batch_do_not_meet(shape):
    model, tokens = gpt(shape), text(3, 12)
    assert_close(model(tokens), torch.cat([model(row[None]) for row in tokens]))


@SHAPES
def test_the_order_of_the_past_matters(shape):
    model, tokens = gpt(shape), torch.tensor([[1, 2, 3, 4]])
    swapped = torch.tensor([[2, 1, 3, 4]])
    assert (model(tokens) - model(swapped))[:, -1].abs().max() > 1e-3


# Size and start


def test_nanogpts_cpu_recipe_has_the_parameters_of_the_formula():
    embeddings = 65 * 128 + 64 * 128
    block = 4 * 128**2 + 8 * 128**2  # q, k, v, out; up, down
    norms = (2 * 4 + 1) * 128
    bias_free = lambda width: LayerNorm(width, bias=False)  # noqa: E731
    model = GPT(option("nanogpt"), uniform_placement(input=bias_free, final=bias_free), 65, seed=0)
    assert count_parameters(model) == embeddings + 4 * block + norms == 804_096


def test_minimind_at_that_size_has_the_parameters_of_the_formula():
    block = (128 + 2 * 64 + 128) * 128 + 3 * 448 * 128  # q; k, v of half the heads; out; gate …
    model = GPT(option("minimind"), uniform_placement(input=RMSNorm, final=RMSNorm), 65, seed=0)
    assert count_parameters(model) == 65 * 128 + 4 * block + 9 * 128


def test_a_tied_head_is_the_embedding_and_counts_once():
    tied, free = (gpt(replace(NANOGPT, tie=tie)) for tie in (True, False))
    assert count_parameters(free) - count_parameters(tied) == VOCABULARY * 16
    for model, matrix in ((tied, tied.embedding.weight), (free, free.head.weight)):
        last = []
        model.final_norm.register_forward_hook(lambda module, inputs, out, to=last: to.append(out))
        logits = model(text(1, 4))
        assert_close(logits, last[0] @ matrix.T)


def test_frozen_parameters_do_not_count():
    model = gpt()
    everything = count_parameters(model)
    model.positions.weight.requires_grad_(False)
    assert count_parameters(model) == everything - 12 * 16


@pytest.mark.parametrize("bias", [False, True])
def test_biases_stand_in_the_projections_of_the_blocks_only(bias):
    names = [n for n, _ in gpt(replace(NANOGPT, bias=bias, tie=False)).named_parameters()]
    assert sum(name.endswith("bias") for name in names) == (4 * NANOGPT.depth if bias else 0)
    assert "head.bias" not in names


@pytest.mark.parametrize("name", ["nanogpt", "minimind"])
@pytest.mark.parametrize("tie", [True, False])
def test_the_loss_at_the_start_is_that_of_a_uniform_guess(name, tie):
    model = GPT(replace(option(name), tie=tie), PRE, 65, seed=0)
    tokens, targets = text(8, 64, vocabulary=65), text(8, 64, vocabulary=65, seed=1)
    loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    # Logits of std √128·0.02 add half their variance; a tied head also favours the token itself.
    assert math.log(65) - 0.02 < loss < math.log(65) + (0.2 if tie else 0.06)


# Dropout


@SHAPES
@KERNELS
def test_dropout_acts_in_training_only(shape, kernel):
    model = gpt(replace(shape, dropout=0.3, attention=kernel))
    none = gpt(replace(shape, attention=kernel))
    tokens = text(2, 12)
    torch.manual_seed(0)
    first, second = model(tokens), model(tokens)
    assert (first - second).abs().max() > 1e-3
    assert_close(model.eval()(tokens), none(tokens))
    assert_close(none(tokens), none.eval()(tokens))


@KERNELS
def test_dropout_falls_on_embedding_attention_weights_and_both_updates(kernel):
    model = gpt(replace(NANOGPT, dropout=0.5, attention=kernel))
    block, shares, mixed = model.blocks[0], {}, []

    def watch(name, module):
        def record(_, inputs, out):
            shares[name] = ((out if name != "embedding" else inputs[0]) == 0).double().mean()

        module.register_forward_hook(record)

    watch("embedding", block)
    watch("attention", block.attention.sublayer)
    watch("feedforward", block.feedforward.sublayer)
    block.attention.sublayer.out.register_forward_hook(lambda _, i, o: mixed.append(i[0]))
    torch.manual_seed(0)
    model(text(64, 12))
    assert all(abs(share - 0.5) < 0.05 for share in shares.values()), shares
    # The first token attends to itself alone: its weight is dropped, or doubled.
    assert abs((mixed[0][:, 0] == 0).double().mean() - 0.5) < 0.15


# Attention


def projections(attention, x):
    """Queries, keys and values as (batch, head, time, features), a key for every query head."""
    width, kv = attention.head_width, attention.kv_heads * attention.head_width
    rows = attention.qkv.weight
    parts = []
    for matrix, heads in (
        (rows[: -2 * kv], attention.heads),
        (rows[-2 * kv : -kv], attention.kv_heads),
        (rows[-kv:], attention.kv_heads),
    ):
        part = [x @ matrix[h * width : (h + 1) * width].T for h in range(heads)]
        served = attention.heads // heads
        parts.append(torch.stack([head for head in part for _ in range(served)], 1))
    return parts


def turned(x, base):
    """Rotary positions in the complex plane: the pair (i, i + D/2) turns by t·base^(−2i/D)."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2])[:, None] * base ** (-torch.arange(half).double() / half)
    z = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones(()).double(), angle)
    return torch.cat((z.real, z.imag), -1)


def attended(q, k, v):
    """One query at a time, over what it may see."""
    rows = []
    for t in range(q.shape[-2]):
        scores = (q[..., t : t + 1, :] * k[..., : t + 1, :]).sum(-1) / math.sqrt(q.shape[-1])
        share = scores.exp() / scores.exp().sum(-1, keepdim=True)
        rows.append((share[..., None] * v[..., : t + 1, :]).sum(-2))
    return torch.stack(rows, -2)


@KERNELS
@SHAPES
@pytest.mark.parametrize("norm", [None, LayerNorm, RMSNorm], ids=["bare", "ln", "rms"])
def test_attention_is_its_formula_with_norms_on_each_head_and_before_the_output(
    shape, kernel, norm
):
    placement = uniform_placement(qk=norm, inner=norm)
    attention = gpt(replace(shape, attention=kernel), placement).blocks[0].attention.sublayer
    x = stream(2, 10, 16)
    q, k, v = projections(attention, x)
    if norm:
        q, k = norm(4).double()(q), norm(4).double()(k)
    if shape.positions is Positions.rotary:
        q, k = turned(q, 100.0), turned(k, 100.0)
    mixed = torch.cat(attended(q, k, v).unbind(1), -1)
    mixed = norm(16).double()(mixed) if norm else mixed
    assert_close(attention(x), mixed @ attention.out.weight.T, rtol=1e-5, atol=1e-6)


@KERNELS
def test_qk_norm_bounds_the_attention_logits_whatever_the_weights(kernel):
    attention = (
        gpt(replace(NANOGPT, attention=kernel), uniform_placement(qk=RMSNorm)).blocks[0].attention
    )
    x = stream(2, 12, 16)
    before = attention.sublayer(x)
    with torch.no_grad():
        attention.sublayer.qkv.weight[:32] *= 1000
    assert_close(attention.sublayer(x), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kv_heads", [4, 2, 1], ids=["mha", "gqa", "mqa"])
def test_explicit_and_fused_attention_are_one_function(kv_heads):
    shape = replace(MINIMIND, kv_heads=kv_heads)
    found = []
    for kernel in (AttentionKernel.explicit, AttentionKernel.sdpa):
        model = GPT(replace(shape, attention=kernel), PRE, VOCABULARY, seed=0)  # in fp32
        logits = model(text(3, 12))
        logits.square().mean().backward()
        found.append([logits, *(p.grad for p in model.parameters())])
    for explicit, fused in zip(*found, strict=True):
        assert_close(explicit, fused, rtol=1e-4, atol=1e-4 * fused.abs().max().item())


@KERNELS
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_grouped_queries_are_many_heads_with_repeated_keys_and_values(kv_heads, kernel):
    grouped = gpt(replace(MINIMIND, kv_heads=kv_heads, attention=kernel))
    full = gpt(replace(MINIMIND, kv_heads=4, attention=kernel))
    state = grouped.state_dict()
    for name in [name for name in state if name.endswith("qkv.weight")]:
        q, k, v = state[name].split([16, 4 * kv_heads, 4 * kv_heads])
        heads = [w.unflatten(0, (kv_heads, 4)).repeat_interleave(4 // kv_heads, 0) for w in (k, v)]
        state[name] = torch.cat([q, *(w.flatten(0, 1) for w in heads)])
    full.load_state_dict(state)
    assert_close(grouped(text(2, 12)), full(text(2, 12)))


def test_no_kv_heads_means_as_many_as_heads():
    assert_close(gpt()(text(2, 12)), gpt(replace(NANOGPT, kv_heads=4))(text(2, 12)))


def test_auto_attention_is_the_same_function_on_both_sides_of_its_threshold():
    shape = replace(NANOGPT, depth=1, context=EXPLICIT_CONTEXT + 1)
    auto = gpt(shape)
    sdpa = gpt(replace(shape, attention=AttentionKernel.sdpa))
    for time in (EXPLICIT_CONTEXT, EXPLICIT_CONTEXT + 1):
        assert_close(auto(text(1, time)), sdpa(text(1, time)))


@SHAPES
@KERNELS
@pytest.mark.parametrize("placement", [PRE, EVERYWHERE], ids=["pre", "everywhere"])
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_bf16_autocast_stays_near_fp32(shape, kernel, placement):
    tame = replace(shape, attention=kernel, init=InitConfig(std=0.1))
    model = GPT(tame, placement, VOCABULARY, seed=0)
    exact = model(text(4, 12))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(text(4, 12))
        rounded.float().square().mean().backward()
    assert (rounded.float() - exact).norm() < 0.03 * exact.norm()
    assert all(p.grad.isfinite().all() and p.grad.dtype is p.dtype for p in model.parameters())


# Rotary positions


@settings(deadline=None, max_examples=30)
@given(
    i=st.integers(0, 31),
    j=st.integers(0, 31),
    width=st.sampled_from([2, 4, 8, 32]),
    base=st.sampled_from([10.0, 1e4, 1e6]),
)
def test_rotary_products_depend_on_the_distance_alone(i, j, width, base):
    rotary = Rotary(width, 64, base).double()
    q, k = (stream(width, seed=seed).expand(1, 1, 64, width) for seed in (1, 2))
    products = rotary(q)[0, 0] @ rotary(k)[0, 0].T
    assert_close(products[i, j], products[i + 32, j + 32], rtol=1e-5, atol=1e-5)


def test_rotary_turns_each_pair_by_its_own_angle():
    x = stream(2, 3, 12, 8)
    assert_close(Rotary(8, 32, 500.0).double()(x), turned(x, 500.0), rtol=1e-5, atol=1e-6)


def test_rotary_leaves_position_0_and_every_norm_as_they_are():
    x = stream(2, 3, 12, 8)
    y = Rotary(8, 12, 1e4).double()(x)
    assert_close(y[..., 0, :], x[..., 0, :], rtol=0, atol=0)
    assert_close(y.norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=1e-6)
    assert (y[..., 1:, :] - x[..., 1:, :]).abs().amax(-1).min() > 1e-3


def test_a_rotary_model_has_no_position_parameters_and_its_checkpoint_no_tables():
    names = GPT(MINIMIND, PRE, VOCABULARY, seed=0).state_dict()
    assert not [name for name in names if "position" in name or "rotary" in name or "past" in name]


# Feed-forward


def normal_distribution(x):
    return (1 + torch.erf(x / math.sqrt(2))) / 2


@pytest.mark.parametrize("norm", [None, RMSNorm], ids=["bare", "inner norm"])
def test_gelu_feedforward_is_its_formula(norm):
    shape = replace(NANOGPT, bias=True)
    network = gpt(shape, uniform_placement(inner=norm)).blocks[1].feedforward.sublayer
    with torch.no_grad():
        network.up.bias += stream(64, seed=4)
        network.down.bias += stream(16, seed=5)
    x = stream(2, 5, 16)
    hidden = x @ network.up.weight.T + network.up.bias
    hidden = hidden * normal_distribution(hidden)
    hidden = norm(64).double()(hidden) if norm else hidden
    assert_close(network(x), hidden @ network.down.weight.T + network.down.bias)


@pytest.mark.parametrize("norm", [None, RMSNorm], ids=["bare", "inner norm"])
def test_gated_feedforward_is_its_formula(norm):
    network = gpt(MINIMIND, uniform_placement(inner=norm)).blocks[1].feedforward.sublayer
    x = stream(2, 5, 16)
    gate, value = x @ network.up.weight[:64].T, x @ network.up.weight[64:].T
    hidden = gate / (1 + torch.exp(-gate)) * value
    hidden = norm(64).double()(hidden) if norm else hidden
    assert_close(network(x), hidden @ network.down.weight.T)


@pytest.mark.parametrize(
    ("width", "ratio", "multiple", "hidden"),
    [
        (128, math.pi, 64, 448),  # MiniMind: 402.1…
        (128, 4.0, 1, 512),
        (128, 4.0, 64, 512),
        (384, 8 / 3, 1, 1024),
        (100, 8 / 3, 1, 267),
        (768, 8 / 3, 256, 2048),
        (3, 1.0, 8, 8),
    ],
)
def test_the_hidden_width_is_rounded_up_to_a_multiple(width, ratio, multiple, hidden):
    shape = ModelConfig(width=width, hidden_ratio=ratio, hidden_multiple=multiple)
    assert shape.hidden_width == hidden


def test_the_hidden_width_is_not_rounded_up_from_a_whole_number():
    assert ModelConfig(width=100, hidden_ratio=2.2).hidden_width == 220


# Sampling


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


@SHAPES
def test_a_sample_is_the_prompt_and_its_continuation_and_depends_on_the_generator_alone(shape):
    model, prompt = gpt(shape), text(3, 5)
    torch.manual_seed(1)
    first = model.generate(prompt, 20, context=12, generator=dice())
    torch.manual_seed(2)
    second = model.generate(prompt, 20, context=12, generator=dice())
    assert first.shape == (3, 25)
    assert torch.equal(first[:, :5], prompt)
    assert torch.equal(first, second)
    assert not torch.equal(first, model.generate(prompt, 20, context=12, generator=dice(1)))
    assert first.min() >= 0
    assert first.max() < VOCABULARY
    assert torch.equal(model.generate(prompt, 0, context=12), prompt)


@SHAPES
@pytest.mark.parametrize("settings", [{"top_k": 1}, {"temperature": 1e-6}])
def test_the_best_of_one_and_a_cold_sample_are_greedy_over_the_last_context_tokens(shape, settings):
    model, greedy = gpt(shape), text(2, 5)
    sampled = model.generate(greedy, 15, context=8, generator=dice(), **settings)
    for _ in range(15):
        best = model(greedy[:, -8:])[:, -1].argmax(-1, keepdim=True)
        greedy = torch.cat((greedy, best), 1)
    assert torch.equal(sampled, greedy)


def test_a_prompt_longer_than_the_context_is_seen_by_its_end():
    model, prompt = gpt(), text(2, 40)
    sampled = model.generate(prompt, 3, context=12, top_k=1)
    assert torch.equal(sampled[:, :40], prompt)
    assert torch.equal(sampled[:, -3:], model.generate(prompt[:, -12:], 3, 12, top_k=1)[:, -3:])


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (2.0, None), (1.5, 4), (1.0, 99)])
def test_samples_follow_the_softmax_of_the_top_logits_over_the_temperature(temperature, top_k):
    model = gpt(replace(NANOGPT, init=InitConfig(std=0.2)))
    prompt = text(1, 3)
    logits = (model(prompt)[0, -1] / temperature).detach()
    allowed = logits.sort().values[-(min(top_k or VOCABULARY, VOCABULARY)) :][0] <= logits
    chances = (logits.exp() * allowed / (logits.exp() * allowed).sum()).numpy()
    drawn = model.generate(prompt.expand(4000, 3), 1, 12, temperature, top_k, dice())[:, -1]
    counts = drawn.bincount(minlength=VOCABULARY).numpy()
    assert counts[chances == 0].sum() == 0
    possible = chances > 0
    assert stats.chisquare(counts[possible], 4000 * chances[possible]).pvalue > 1e-4


def test_sampling_leaves_no_graph():
    assert not gpt().generate(text(1, 3), 2, context=12).requires_grad
