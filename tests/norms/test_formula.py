"""A formula is the function that it says: closed forms, numpy's values, torch's own gradients."""

import copy
import io
import math
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from normlab.config.formula import BINARY, ELEMENTWISE, REDUCTIONS, check_formula
from normlab.errors import ConfigError
from normlab.norms import DynamicTanh, Formula, LayerNorm, RMSNorm, norm_factory

WIDTH = 8
GAIN = {"gain": {"init": 1}}
LAYERNORM = (
    "gain * (x - mean(x)) / sqrt(mean((x - mean(x))**2) + eps) + bias",
    {"gain": {"init": 1}, "bias": {"init": 0}},
    {"eps": 1e-5},
)
# Every path of the compiler: shared parts, conditions, numbers on either side, powers, detach.
RICH = Formula(
    WIDTH,
    "where(x > 0 and not x >= 2 or mean(x) < -1, gain, 1) * minimum(x, 2) / detach(rms(x) + 1)"
    " + bias * tanh(x * alpha)**3 + 2**sigmoid(x) - maximum(-1, x) / (1 + var(x))"
    " + where(x < 0.1, 0.25, 0.5) * tanh(x * alpha)",
    {"gain": {"init": 1.5}, "bias": {"init": 0.1}, "alpha": {"init": 0.5, "per": "scalar"}},
)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def stirred(norm):
    """The norm in double precision, its parameters no longer what they started as."""
    norm = copy.deepcopy(norm).double()
    with torch.no_grad():
        for i, parameter in enumerate(norm.parameters()):
            parameter += 0.3 * draw(*parameter.shape, seed=i + 1)
    return norm


def output_and_gradients(norm, x):
    x = x.detach().clone().requires_grad_()
    y = norm(x)
    return [y, *torch.autograd.grad((y * draw(*x.shape, seed=9)).sum(), [x, *norm.parameters()])]


def assert_same(these, those, **tolerance):
    for one, other in zip(these, those, strict=True):
        assert_close(one, other, **tolerance)


TWINS = {
    "rmsnorm": (RMSNorm, ("gain * x / sqrt(mean(x**2) + 1e-5)", GAIN)),
    "rmsnorm by rsqrt": (RMSNorm, ("x * rsqrt(mean(square(x)) + 1e-5) * gain", GAIN)),
    "layernorm": (LayerNorm, LAYERNORM),
    "layernorm by var": (
        LayerNorm,
        ("(x - mean(x)) / sqrt(var(x) + 1e-5) * gain + bias", *LAYERNORM[1:2]),
    ),
    "dyt": (
        DynamicTanh,
        (
            "tanh(alpha * x) * gain + bias",
            {"alpha": {"init": 1, "per": "scalar"}, **LAYERNORM[1]},
        ),
    ),
}


@pytest.mark.parametrize(("norm", "formula"), TWINS.values(), ids=TWINS)
def test_the_labs_norms_written_as_formulas_are_the_labs_norms(norm, formula):
    theirs, ours = stirred(norm(WIDTH)), stirred(Formula(WIDTH, *formula))
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(formula[1])
    values = dict(ours.named_parameters())
    x = draw(2, 3, WIDTH)
    mine, other = output_and_gradients(ours, x), output_and_gradients(theirs, x)
    names = [name for name, _ in theirs.named_parameters()]
    order = [list(values).index(name) for name in names]
    assert_same(mine[:2] + [mine[2 + i] for i in order], other)


def test_closed_forms_by_hand():
    x = torch.tensor([1.0, -7.0, 2.0, 4.0], dtype=torch.float64)

    def value(expression):
        return Formula(4, expression)(x).tolist()

    assert value("x + mean(x)") == [1.0, -7.0, 2.0, 4.0]
    assert value("x - sum(abs(x))") == [-13.0, -21.0, -12.0, -10.0]
    assert value("x + max(x) * min(x)") == [-27.0, -35.0, -26.0, -24.0]
    assert value("x * 0 + var(x)") == [17.5] * 4
    assert value("(x - x) + std(x)**2 - rms(x)**2") == pytest.approx([0.0] * 4, abs=1e-14)
    assert value("-x**2") == [-1.0, -49.0, -4.0, -16.0]
    assert value("x**-1") == [1.0, -1 / 7, 0.5, 0.25]
    assert value("abs(x)**0.5 - 1") == pytest.approx([0.0, 7**0.5 - 1, 2**0.5 - 1, 1.0])
    assert value("(x * x)**-0.5") == pytest.approx([1.0, 1 / 7, 0.5, 0.25])
    assert value("2 ** (x + 7)") == [256.0, 1.0, 512.0, 2048.0]
    assert value("x / width / 2") == [0.125, -0.875, 0.25, 0.5]
    assert value("where(0 < x <= 2, 1, -1) * maximum(x, minimum(2, -x))") == [1.0, -2.0, 2.0, -4.0]
    assert value("where(x > 0 and x < 4 or x == -7, sign(x), 0)") == [1.0, -1.0, 1.0, 0.0]
    assert value("where(not x != 4, 0.1, x)") == [1.0, -7.0, 2.0, 0.1]
    assert value("where(x > 0, 0.1, 0.3)") == [0.1, 0.3, 0.1, 0.1]  # in double precision
    assert value("where(width > 3, x, 0)") == x.tolist()


NUMPY = {
    "mean": lambda a: a.mean(-1, keepdims=True),
    "sum": lambda a: a.sum(-1, keepdims=True),
    "max": lambda a: a.max(-1, keepdims=True),
    "min": lambda a: a.min(-1, keepdims=True),
    "var": lambda a: ((a - a.mean(-1, keepdims=True)) ** 2).mean(-1, keepdims=True),
    "std": lambda a: a.std(-1, keepdims=True),
    "rms": lambda a: (a**2).mean(-1, keepdims=True) ** 0.5,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: a**-0.5,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "erf": np.vectorize(math.erf, otypes=[float]),
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "relu": lambda a: a * (a > 0),
    "softplus": lambda a: np.logaddexp(a, 0),
    "silu": lambda a: a / (1 + np.exp(-a)),
    "gelu": lambda a: a * np.vectorize(math.erfc, otypes=[float])(-a / 2**0.5) / 2,
    "square": lambda a: a**2,
    "sign": np.sign,
    "detach": lambda a: a,
    "minimum": np.minimum,
    "maximum": np.maximum,
}
TAMED = {"sqrt": "sqrt(abs({}) + 1)", "rsqrt": "rsqrt(abs({}) + 1)", "log": "log(abs({}) + 1)"}
TAMED |= {"log1p": "log1p(abs({}))", "exp": "exp(sin({}))", "expm1": "expm1(cos({}))"}


def test_every_function_is_held_to_numpy():
    assert NUMPY.keys() == {*REDUCTIONS, *ELEMENTWISE, *BINARY}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_function_of_a_constant_is_computed_as_that_of_a_tensor(name):
    numbers = [0.3, 1.7, 25.0, *([] if name in TAMED else [-0.4, -3.0, -30.0])]
    x = torch.zeros(1, 2, dtype=torch.float64)
    for number in numbers:
        written = Formula(2, f"x + {name}({number})")(x)
        computed = Formula(2, f"{name}(x + {number})")(x)
        assert_close(written, computed, rtol=1e-13, atol=1e-13)
        assert_close(computed, x + float(NUMPY[name](np.array(number))), rtol=1e-13, atol=1e-13)


def full(depth):
    """Texts over x, a parameter per feature and a scalar, that give one number a feature."""
    leaf = st.sampled_from(["x", "x", "gain * x", "(x + alpha)"])

    def grown(inner):
        one = st.sampled_from(list(ELEMENTWISE)).flatmap(
            lambda name: inner.map(TAMED.get(name, f"{name}({{}})").format)
        )
        other = st.one_of(
            st.sampled_from(["gain", "alpha", "width", "k", "0.5", "2"]),
            inner,
            st.tuples(st.sampled_from(REDUCTIONS), inner).map(lambda pair: "{}({})".format(*pair)),
        )
        sides = st.tuples(inner, other, st.booleans()).map(
            lambda three: three[:2] if three[2] else three[1::-1]
        )
        sign = st.tuples(sides, st.sampled_from("+-*")).map(
            lambda pair: f"({pair[0][0]} {pair[1]} {pair[0][1]})"
        )
        share = sides.map(lambda two: f"{two[0]} / (1 + abs({two[1]}))")
        either = st.tuples(st.sampled_from(list(BINARY)), sides).map(
            lambda pair: f"{pair[0]}({pair[1][0]}, {pair[1][1]})"
        )
        power = st.tuples(inner, st.sampled_from([0, 1, 2, 3])).map(lambda p: f"({p[0]})**{p[1]}")
        minus = inner.map("-{}".format)
        return st.one_of(one, sign, share, either, power, minus)

    return st.recursive(leaf, grown, max_leaves=depth)


@settings(deadline=None, max_examples=300)
@given(expression=full(8), seed=st.integers(0, 99))
def test_a_formula_has_the_value_that_numpy_gives_it(expression, seed):
    expression += " + 0 * (gain + alpha + x)"  # so that every parameter is used
    parameters = {"gain": {"init": 1}, "alpha": {"init": 0.5, "per": "scalar"}}
    assume(len(expression) <= 500)
    norm = stirred(Formula(WIDTH, expression, parameters, {"k": 0.25}))
    x = draw(3, WIDTH, seed=seed)
    names = {"x": x.numpy(), "width": WIDTH, "k": 0.25, **NUMPY}
    names |= {name: value.detach().numpy() for name, value in norm.named_parameters()}
    with np.errstate(all="ignore"):
        truth = eval(expression, {"__builtins__": {}}, names)
    ours = norm(x).detach()
    assert ours.shape == x.shape
    if np.isfinite(truth).all() and np.abs(truth).max() < 1e12:
        scale = max(1.0, float(np.abs(truth).max()))
        assert_close(ours / scale, torch.from_numpy(truth / scale), rtol=1e-8, atol=1e-9)


def test_parameters_are_attributes_that_start_as_told():
    norm = Formula(
        9,
        "(a * x + b) * c",
        {"a": {"init": "1/sqrt(width)"}, "b": {"init": 2, "per": "scalar"}, "c": {"init": "-1e-1"}},
    )
    assert_close(norm.a.detach(), torch.full((9,), 1 / 3))
    assert norm.b.shape == ()
    assert norm.b.item() == 2
    assert [name for name, _ in norm.named_parameters()] == ["a", "b", "c"]
    assert_close(norm.c.detach(), torch.full((9,), -0.1))


def test_constants_are_put_in_and_not_learned():
    norm = Formula(4, "x * k + c", None, {"k": "width / 2", "c": 1})
    assert list(norm.parameters()) == []
    assert_close(norm(torch.ones(4)), torch.full((4,), 3.0))


def test_detach_stops_the_gradient_and_not_the_value():
    x = draw(3, WIDTH)
    free, stopped = Formula(WIDTH, "x / rms(x)"), Formula(WIDTH, "x / detach(rms(x))")
    assert_close(free(x), stopped(x))
    _, gradient = output_and_gradients(stopped, x)
    assert_close(gradient, draw(3, WIDTH, seed=9) / x.square().mean(-1, keepdim=True).sqrt())


@pytest.mark.parametrize("norm", [Formula(WIDTH, *LAYERNORM), RICH], ids=["layernorm", "rich"])
def test_derivatives_of_first_and_second_order_are_those_of_the_function(norm):
    norm = copy.deepcopy(norm).double()
    # detach makes the derivative differ from that of the value; without it there is one truth.
    expression = norm.expression.replace("detach", "")
    taken = {n: {"init": 1, "per": "scalar" if p.dim() == 0 else "feature"}
             for n, p in norm.named_parameters()}  # fmt: skip
    constants = {"eps": 1e-5}
    module = stirred(Formula(WIDTH, expression, taken, constants))
    inputs = (draw(2, WIDTH).requires_grad_(), *module.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: module(x), inputs)
    assert torch.autograd.gradgradcheck(lambda x, *_: module(x), inputs)


def test_what_is_said_twice_is_computed_once():
    norm = Formula(WIDTH, *LAYERNORM)
    with torch.profiler.profile() as profile:
        norm.double()(draw(4, WIDTH))  # by torch: a kernel calls nothing that could be counted
    assert sum(event.count for event in profile.key_averages() if event.key == "aten::mean") == 2


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_it_compiles_into_one_graph(backend):
    torch._dynamo.reset()
    norm = stirred(RICH)
    compiled = torch.compile(norm, backend=backend, fullgraph=True)
    x = draw(3, WIDTH)
    assert_same(output_and_gradients(compiled, x), output_and_gradients(norm, x))


@pytest.mark.parametrize("norm", [Formula(WIDTH, *LAYERNORM), RICH], ids=["layernorm", "rich"])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(norm, half):
    x = draw(64, WIDTH).to(half)
    out = norm(x)
    assert out.dtype == half
    assert_close(out, norm(x.float()).to(half), rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(norm(x), out, rtol=0, atol=0)
        assert_close(norm(x.float()), norm(x.float()), rtol=0, atol=0)
        assert norm(x.float()).dtype == torch.float32


def test_a_gradient_in_half_precision_is_summed_in_single():
    norm, x = Formula(WIDTH, "gain * x", GAIN), draw(8192, WIDTH).to(torch.bfloat16)
    norm(x).sum().backward()
    assert_close(norm.gain.grad, x.float().sum(0), rtol=1e-4, atol=1e-3)


def test_copies_are_the_same_function_with_parameters_of_their_own():
    x, norm = draw(3, WIDTH), stirred(RICH)
    stream = io.BytesIO()
    torch.save(norm, stream)
    stream.seek(0)
    for other in (
        copy.deepcopy(norm),
        pickle.loads(pickle.dumps(norm)),
        torch.load(stream, weights_only=False),
    ):
        assert_close(other(x), norm(x), rtol=0, atol=0)
        with torch.no_grad():
            other.gain.add_(1)
        assert not torch.equal(other(x), norm(x))
    fresh = copy.deepcopy(RICH).double()
    fresh.load_state_dict(norm.state_dict())
    assert_close(fresh(x), norm(x), rtol=0, atol=0)


def test_it_stands_under_checkpointing_vmap_and_functional_calls():
    norm, x = stirred(RICH), draw(3, WIDTH)
    kept = output_and_gradients(norm, x)

    class Recomputed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = norm

        def forward(self, x):
            return checkpoint(self.norm, x, use_reentrant=False)

    assert_same(output_and_gradients(Recomputed(), x), kept)
    assert_close(torch.vmap(norm)(x), kept[0])
    others = {name: value + 1 for name, value in norm.named_parameters()}
    called = torch.func.functional_call(norm, others, (x,))
    changed = copy.deepcopy(norm)
    changed.load_state_dict(others)
    assert_close(called, changed(x))


def test_a_token_is_normalised_by_itself_whatever_the_shape():
    norm, x = stirred(RICH), draw(2, 3, WIDTH)
    one_by_one = torch.stack([torch.stack([norm(token) for token in row]) for row in x])
    assert_close(norm(x), one_by_one)
    assert Formula(WIDTH, *LAYERNORM)(x[:0]).shape == (0, 3, WIDTH)


def test_it_says_what_it_is():
    assert str(Formula(4, "x /\n   rms(x)")) == "Formula(x / rms(x))"


@pytest.mark.parametrize("name", ["forward", "train", "training", "type", "half", "_parameters"])
@pytest.mark.parametrize("own", [False, True])
def test_a_parameter_cannot_take_a_name_of_the_modules(name, own):
    name = "expression" if own else name
    with pytest.raises(ConfigError, match=rf"parameters\.{name} is not allowed"):
        Formula(4, f"x * {name}", {name: {"init": 1}})


def test_a_refusal_points_also_when_it_comes_from_the_factory():
    config = {"_target_": "normlab.norms.Formula", "expression": "x * y"}
    with pytest.raises(ConfigError) as refusal:
        norm_factory(config)(4)
    assert str(refusal.value).split("\n") == [
        "norm: expression: y is unknown; names are x, index, width.",
        "  x * y",
        "      ^",
    ]


def refusal(text):
    try:
        check_formula("norm", {"expression": text}, 4)
    except ConfigError as error:
        return str(error)
    return None


def test_noise_is_answered_in_words_or_works():
    # Whatever stands there: a ConfigError, or a norm.
    generator = random.Random(0)
    pieces = [
        *"x()+-*/,.<>=![]{}'\":;@^&|~%# \n\\0129",
        "gain",
        "mean",
        "where",
        "and",
        "not",
        "if",
    ]
    pieces += ["lambda", "for", "in", "rms(x)", "**", "e5", "1.", "_", "é", "\x00", "\ud800"]
    accepted = 0
    for _ in range(3000):
        text = "".join(generator.choices(pieces, k=generator.randint(1, 12)))
        refused = refusal(text)
        if refused is None:
            accepted += 1
            assert Formula(4, text)(torch.ones(2, 4)).shape == (2, 4)
        else:
            assert refused.count("\n") == 2
    assert accepted
