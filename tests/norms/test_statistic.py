"""LayerNorm and RMSNorm against PyTorch's own, closed forms, and the invariances of 1910.07467."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from normlab.norms import LayerNorm, RMSNorm

NoBias = partial(LayerNorm, bias=False)
ALL = pytest.mark.parametrize("norm", [LayerNorm, NoBias, RMSNorm], ids=["ln", "ln-nobias", "rms"])
ORACLES = pytest.mark.parametrize(
    ("norm", "oracle"),
    [
        (LayerNorm, nn.LayerNorm),
        (NoBias, partial(nn.LayerNorm, bias=False)),
        (RMSNorm, nn.RMSNorm),
    ],
    ids=["ln", "ln-nobias", "rms"],
)
SHAPES = st.lists(st.integers(1, 4), max_size=3).map(tuple)
WIDTHS = st.integers(2, 33)
SCALES = st.floats(-3, 3).map(lambda exponent: 10.0**exponent)
SEEDS = st.integers(0, 2**31)

slow_machine = settings(deadline=None, max_examples=20)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shaken(module, seed=1):
    """The module in double precision, its parameters away from 1 and 0, where errors hide."""
    module = module.double()
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter += 0.3 * draw(*parameter.shape, seed=seed + i)
    return module


def twins(norm, oracle, width, eps):
    ours, theirs = shaken(norm(width, eps=eps)), oracle(width, eps=eps).double()
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.copy_(mine)
    return ours, theirs


def output_and_gradients(module, x, weighting):
    x = x.clone().requires_grad_()
    y = module(x)
    return [y, *torch.autograd.grad((y * weighting).sum(), [x, *module.parameters()])]


@ORACLES
@slow_machine
@given(shape=SHAPES, width=WIDTHS, scale=SCALES, eps=st.sampled_from([1e-6, 1e-5, 0.1]), seed=SEEDS)
def test_outputs_and_all_gradients_equal_torchs(norm, oracle, shape, width, scale, eps, seed):
    ours, theirs = twins(norm, oracle, width, eps)
    x = scale * draw(*shape, width, seed=seed)
    weighting = draw(*shape, width, seed=seed + 1)
    for mine, other in zip(
        output_and_gradients(ours, x, weighting),
        output_and_gradients(theirs, x, weighting),
        strict=True,
    ):
        assert_close(mine, other, rtol=1e-9, atol=1e-9)


def test_layernorm_takes_the_population_variance_and_eps_inside_the_root():
    # mean 2.5, population variance 1.25, with eps 2: the sample variance would be 5/3.
    norm = LayerNorm(4, eps=0.75).double()
    norm.gain.data = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    norm.bias.data = torch.tensor([0.0, 0.5, 0.0, -1.0]).double()
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    by_hand = torch.tensor([-1.5, -1.0, 1.5, 6.0]).double() / 2**0.5
    assert_close(norm(x), by_hand + torch.tensor([0.0, 0.5, 0.0, -1.0]).double())


def test_rmsnorm_takes_the_mean_square_and_eps_inside_the_root():
    # mean of squares 25, with eps 36: the root is 6.
    norm = RMSNorm(2, eps=11).double()
    norm.gain.data = torch.tensor([6.0, -12.0]).double()
    assert_close(norm(torch.tensor([1.0, 7.0]).double()), torch.tensor([1.0, -14.0]).double())


@ALL
def test_eps_is_1e_5_unless_told(norm):
    x = 1e-3 * draw(5, 16)
    assert_close(norm(16).double()(x), norm(16, eps=1e-5).double()(x), rtol=0, atol=0)
    assert not torch.allclose(norm(16).double()(x), norm(16, eps=1e-6).double()(x))


@slow_machine
@given(shape=SHAPES, width=WIDTHS, scale=SCALES, eps=st.floats(1e-6, 1), seed=SEEDS)
def test_layernorm_puts_every_token_at_mean_0_and_variance_1_up_to_eps(
    shape, width, scale, eps, seed
):
    x = scale * draw(*shape, width, seed=seed) + 3
    y = LayerNorm(width, eps=eps).double()(x)
    variance = x.var(-1, correction=0)
    assert_close(y.mean(-1), torch.zeros(shape).double(), rtol=0, atol=1e-8)
    assert_close(y.var(-1, correction=0), variance / (variance + eps))


@slow_machine
@given(shape=SHAPES, width=WIDTHS, scale=SCALES, eps=st.floats(1e-6, 1), seed=SEEDS)
def test_rmsnorm_puts_every_token_at_mean_square_1_up_to_eps(shape, width, scale, eps, seed):
    x = scale * draw(*shape, width, seed=seed) + 3
    square = x.square().mean(-1)
    y = RMSNorm(width, eps=eps).double()(x)
    assert_close(y.square().mean(-1), square / (square + eps))


@ALL
def test_derivatives_of_first_and_second_order_are_those_of_the_function(norm):
    module = shaken(norm(3))
    inputs = (draw(2, 3).requires_grad_(), *module.parameters())

    def function(x, *_):
        return module(x)

    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


@ALL
def test_a_token_of_zeros_gives_zeros_and_finite_gradients(norm):
    module, x = norm(8), torch.zeros(2, 8, requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert_close(y, torch.zeros(2, 8))
    assert all(p.grad.isfinite().all() for p in [x, *module.parameters()])


@ALL
def test_a_token_is_normalised_by_itself(norm):
    module, x = shaken(norm(6)), draw(2, 3, 6)
    one_by_one = torch.stack([torch.stack([module(token) for token in row]) for row in x])
    assert_close(module(x), one_by_one)


@ALL
@slow_machine
@given(factor=SCALES, seed=SEEDS)
def test_scaling_the_input_changes_nothing_but_the_sign(norm, factor, seed):
    module, x = norm(16, eps=1e-30).double(), draw(3, 16, seed=seed)
    assert_close(module(factor * x), module(x))
    assert_close(module(-factor * x), -module(x))


@slow_machine
@given(shift=st.floats(0.5, 100), sign=st.sampled_from([-1, 1]), seed=SEEDS)
def test_shifting_the_input_changes_rmsnorm_but_not_layernorm(shift, sign, seed):
    x = draw(3, 16, seed=seed)
    layer, rms = LayerNorm(16, eps=1e-30).double(), RMSNorm(16, eps=1e-30).double()
    assert_close(layer(x + sign * shift), layer(x))
    assert (rms(x + sign * shift) - rms(x)).abs().max() > 0.05


@ALL
@slow_machine
@given(factor=SCALES, seed=SEEDS)
def test_scaling_all_weights_before_the_norm_changes_nothing(norm, factor, seed):
    module, x, weight = norm(16, eps=1e-30).double(), draw(3, 8), draw(16, 8, seed=seed)
    assert_close(module(x @ (factor * weight).T), module(x @ weight.T))


@slow_machine
@given(seed=SEEDS)
def test_adding_one_row_to_all_rows_of_the_weights_changes_rmsnorm_but_not_layernorm(seed):
    x, weight, row = draw(3, 8), draw(16, 8, seed=seed), draw(8, seed=seed + 1)
    shifted = weight + torch.ones(16, 1).double() * row  # W + 1cᵀ
    layer, rms = LayerNorm(16, eps=1e-30).double(), RMSNorm(16, eps=1e-30).double()
    assert_close(layer(x @ shifted.T), layer(x @ weight.T))
    assert (rms(x @ shifted.T) - rms(x @ weight.T)).abs().max() > 0.01


BF16 = pytest.mark.parametrize(
    ("parameters", "autocast"),
    [(torch.bfloat16, False), (torch.float32, True)],
    ids=["bf16", "autocast"],
)


@ALL
@BF16
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_in_bf16_the_output_is_the_true_one_rounded_once_or_twice(norm, parameters, autocast):
    module, reference, x = norm(64), norm(64).double(), draw(32, 64)
    module.load_state_dict(shaken(norm(64)).state_dict())
    module, x = module.to(parameters), (3 * x + 1).bfloat16()
    reference.load_state_dict(module.state_dict())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = module(x)
    assert y.dtype is torch.bfloat16
    # One rounding is 2⁻⁹ of the value; the bias may cancel most of it, so the floor is absolute.
    assert_close(y.double(), reference(x.double()), rtol=2**-7, atol=2**-8)


@ALL
@BF16
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_in_bf16_gradients_have_their_tensors_dtype_and_are_close(norm, parameters, autocast):
    module, reference = norm(64).to(parameters), norm(64).double()
    x, weighting = draw(32, 64).bfloat16(), draw(32, 64, seed=1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        mine = output_and_gradients(module, x, weighting)
    true = output_and_gradients(reference, x.double(), weighting.double())
    tensors = [x, x, *module.parameters()]
    for gradient, exact, tensor in zip(mine, true, tensors, strict=True):
        assert gradient.dtype is tensor.dtype
        assert (gradient.double() - exact).norm() < 2**-6 * exact.norm()


@BF16
@pytest.mark.parametrize(
    "norm",
    [LayerNorm, NoBias, RMSNorm],
    ids=["ln", "ln-nobias", "rms"],
)
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_in_bf16_the_gains_gradient_does_not_fade_with_the_number_of_tokens(
    norm, parameters, autocast
):
    module, reference = norm(16).to(parameters), norm(16).double()
    x, weighting = draw(4096, 16).bfloat16(), (draw(4096, 16, seed=1) + 0.3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        module(x).backward(weighting)
    reference(x.double()).backward(weighting.double())
    error = module.gain.grad.double() - reference.gain.grad
    assert error.norm() < 2**-6 * reference.gain.grad.norm()


@ALL
def test_a_norm_starts_as_the_bare_formula(norm):
    parameters = dict(norm(16).named_parameters())
    assert parameters.pop("gain").tolist() == [1.0] * 16
    assert all(name == "bias" and p.tolist() == [0.0] * 16 for name, p in parameters.items())


@pytest.mark.parametrize(
    ("norm", "names"),
    [(LayerNorm, {"gain", "bias"}), (NoBias, {"gain"}), (RMSNorm, {"gain"})],
    ids=["ln", "ln-nobias", "rms"],
)
def test_parameters_are_a_gain_and_for_layernorm_a_bias_of_the_width(norm, names):
    shapes = {name: tuple(value.shape) for name, value in norm(24).state_dict().items()}
    assert shapes == dict.fromkeys(names, (24,))
    assert all(parameter.requires_grad for parameter in norm(24).parameters())
