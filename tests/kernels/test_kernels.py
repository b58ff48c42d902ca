"""A compiled kernel computes its formula: forward, back, and as exactly as torch."""

import copy
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch.autograd import forward_ad
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from normlab import config, kernels
from normlab.config.formula import FormulaSource, Kind, parse_formula
from normlab.kernels import runtime
from normlab.kernels.emit import Shape, emit_module
from normlab.kernels.program import GRADIENT, backward_program
from normlab.norms import Formula, GroupNorm, LayerNorm, RMSNorm, norm_factory

NORMS = {
    path.stem: OmegaConf.to_container(OmegaConf.load(path))
    for path in sorted(Path(config.conf_folder(), "norm").glob("*.yaml"))
    if path.stem != "none"
}


def draw(*shape, seed=0, dtype=torch.float32):
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (1.5 * numbers + 0.3).to(dtype)


def stirred(norm, seed=1):
    """Parameters that are not at their start, where gains of 1 would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in norm.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return norm


def forward_and_back(norm, x, by_y):
    x = x.detach().requires_grad_()
    y = norm(x)
    found = torch.autograd.grad(y, [x, *norm.parameters()], by_y)
    return [y.detach(), *found]


def compute_by_torch(monkeypatch):
    monkeypatch.setattr(kernels, "_are_supported", lambda x, parameters: False)


def kernel_of(expression, x, *parameters, **per):
    """What the kernel of a formula gives for these tensors."""
    formula = FormulaSource(expression, x.shape[-1], tuple(per.items()))
    kernel = kernels.compile_formula(formula, x, parameters)
    assert kernel is not None
    return kernel(None, x, *parameters)


def errors(found, true):
    return [
        float((one.double() - other).norm() / other.norm().clamp(min=1e-30))
        for one, other in zip(found, true, strict=True)
    ]


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("width", [32, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_kernel_is_as_exact_as_torch(name, width, dtype, monkeypatch):
    norm = stirred(norm_factory(NORMS[name])(width))
    x, by_y = draw(500, width, dtype=dtype), draw(500, width, seed=2, dtype=dtype)
    ours = forward_and_back(norm, x, by_y)
    true = forward_and_back(copy.deepcopy(norm).double(), x.double(), by_y.double())
    compute_by_torch(monkeypatch)
    theirs = forward_and_back(norm, x, by_y)
    assert [one.dtype for one in ours] == [one.dtype for one in theirs]
    for our, their, one in zip(errors(ours, true), errors(theirs, true), true, strict=True):
        # A sum over all tokens that ends in one number can be small beside what was added up.
        assert our < max(2 * their, 1e-6 if one.numel() > 1 else 1e-5)


@pytest.mark.parametrize("name", NORMS)
def test_every_norm_of_the_catalogue_has_a_kernel(name, monkeypatch):
    calls = []
    launch = runtime.Kernels.forward
    monkeypatch.setattr(
        runtime.Kernels, "forward", lambda *arguments: calls.append(1) or launch(*arguments)
    )
    norm_factory(NORMS[name])(32)(draw(4, 32))
    assert calls


LEAVES = ["x", "gain", "shift", "index", "0.5", "2", "mean(x)", "rms(x)", "std(x + gain)"]
UNARY = ["tanh({})", "erf({})", "sigmoid({})", "silu({})", "gelu({})", "abs({})", "square({})"]
UNARY += ["exp(tanh({}))", "sqrt(1 + ({})**2)", "1 / (1 + ({})**2)", "rsqrt(1 + square({}))"]
UNARY += ["relu({})", "sign({}) * x", "sum({} * x) / width", "max({} * x) + x", "min({} + x) + x"]
UNARY += ["var({} + x) + x", "detach({}) * x", "-({})", "({} - mean({} + x) + x)", "({})**3 / 10"]
BINARY = ["({} + {})", "({} - {})", "({} * {})", "minimum({}, {})", "maximum({}, {})"]
BINARY += ["where({} > {}, x, gain)", "({} / (1 + abs({})))", "where({} != {}, 2, x)"]


@st.composite
def expressions(draw_, depth=3):
    if depth == 0 or draw_(st.integers(0, 4)) == 0:
        return draw_(st.sampled_from(LEAVES))
    form = draw_(st.sampled_from(UNARY + BINARY))
    first = draw_(expressions(depth - 1))
    if form.startswith("({} - mean("):
        return form.format(first, first)
    return form.format(*[first, draw_(expressions(depth - 1))][: form.count("{}")])


@given(expressions(), st.integers(1, 70))
@settings(max_examples=30, deadline=None)
def test_any_formula_gives_what_torch_gives(expression, tokens):
    whole = f"tanh(({expression}) / 4) + gain * x + shift"
    learned = {"gain": {"init": 0.8}, "shift": {"init": 0.1, "per": "scalar"}}
    norm = stirred(Formula(9, whole, learned))
    x, by_y = draw(tokens, 9), draw(tokens, 9, seed=2)
    ours = forward_and_back(norm, x, by_y)
    exact = copy.deepcopy(norm).double()
    true = forward_and_back(exact, x.double(), by_y.double())
    for our, other in zip(ours, true, strict=True):
        scale = max(1.0, float(other.abs().max()))
        assert_close(our.double() / scale, other / scale, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("function", "true"),
    [("tanh", torch.tanh), ("erf", torch.erf), ("exp", torch.exp), ("sigmoid", torch.sigmoid)],
)
def test_functions_are_within_a_few_units_in_the_last_place(function, true):
    near = torch.linspace(-12, 12, 200_000)
    tiny = torch.logspace(-30, 0, 50_000)
    x = torch.cat((near, tiny, -tiny)).view(-1, 2)
    ours = kernel_of(f"{function}(x)", x).double()
    exact = true(x.double())
    units = (ours - exact).abs() / (exact.abs() * 2.0**-23).clamp(min=2.0**-149)
    assert units.max() < 4


def test_exp_ends_where_single_precision_does():
    x = torch.tensor([[88.7, 89.0, torch.inf], [-87.0, -110.0, -torch.inf]])
    y = kernel_of("exp(x)", x)
    assert_close(y, torch.exp(x), rtol=1e-5, atol=3e-38)


@pytest.mark.parametrize("name", NORMS)
def test_what_is_no_number_stays_none(name):
    norm = norm_factory(NORMS[name])(32)
    x = draw(40, 32)
    x[7, 3] = torch.nan
    y = norm(x)
    assert y[7].isnan().any()
    assert y[:7].isfinite().all()
    assert y[8:].isfinite().all()


def test_the_sign_of_no_number_is_torchs():
    x = torch.tensor([[torch.nan, -torch.nan, 0.0, -0.0], [2.0, -3.0, torch.inf, -torch.inf]])
    assert torch.equal(kernel_of("sign(x)", x), torch.sign(x))


def test_bfloat16_is_rounded_to_the_nearest_even():
    x = draw(300, 16, dtype=torch.bfloat16)
    gain = torch.full((16,), 1.0078125)  # products that lie between two numbers, and in the middle
    y = kernel_of("gain * x", x, gain, gain="feature")
    assert torch.equal(y, (x.float() * gain).bfloat16())


@pytest.mark.parametrize("norm", [LayerNorm(48), RMSNorm(48), GroupNorm(48, 4)])
def test_sums_over_tokens_do_not_depend_on_the_number_of_threads(norm):
    x, by_y = draw(3000, 48), draw(3000, 48, seed=2)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(forward_and_back(norm, x, by_y))
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("transposed", [False, True], ids=["contiguous", "transposed"])
def test_it_can_be_differentiated_twice(transposed):
    norm = stirred(RMSNorm(8))
    x = draw(8, 8).requires_grad_()

    def penalty(norm, x):
        out = norm(x.t() if transposed else x)
        (by_x,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        return torch.autograd.grad(by_x.square().sum(), [x, *norm.parameters()])

    exact = copy.deepcopy(norm).double()
    true = penalty(exact, x.detach().double().requires_grad_())
    for one, other in zip(penalty(norm, x), true, strict=True):
        assert_close(one.double(), other, rtol=1e-4, atol=1e-5)


def test_checkpointing_autocast_and_views_change_nothing():
    norm = stirred(RMSNorm(24))
    x, by_y = draw(6, 4, 24), draw(6, 4, 24, seed=2)
    plain = forward_and_back(norm, x, by_y)
    again = forward_and_back(norm_checkpointed(norm), x, by_y)
    with torch.autocast("cpu", torch.bfloat16):
        casting = forward_and_back(norm, x, by_y)
    view = x.transpose(0, 1).contiguous().transpose(0, 1)
    assert not view.is_contiguous()
    strided = forward_and_back(norm, view, by_y.transpose(0, 1).contiguous().transpose(0, 1))
    for others in (again, casting, strided):
        for one, other in zip(plain, others, strict=True):
            assert torch.equal(one, other)


class norm_checkpointed(torch.nn.Module):  # noqa: N801
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return checkpoint(self.norm, x, use_reentrant=False)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiler_sees_torchs_own_operations(backend):
    torch._dynamo.reset()
    norm = stirred(RMSNorm(8))
    x, by_y = draw(3, 8), draw(3, 8, seed=2)
    compiled = torch.compile(norm, backend=backend, fullgraph=True)
    ours, theirs = forward_and_back(norm, x, by_y), forward_and_back(compiled, x, by_y)
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_parameter_that_learns_nothing_and_no_token_at_all():
    norm = RMSNorm(8)
    norm.gain.requires_grad_(False)
    x = draw(4, 8).requires_grad_()
    norm(x).sum().backward()
    assert norm.gain.grad is None
    assert norm(torch.empty(0, 8)).shape == (0, 8)


def test_another_width_is_refused_as_torch_refuses_it():
    with pytest.raises(RuntimeError, match="normalized_shape"):
        RMSNorm(8)(draw(4, 16))
    with pytest.raises(RuntimeError, match="must match the size"):
        Formula(8, "gain * x", {"gain": {"init": 1}})(draw(4, 24))


@pytest.mark.parametrize("name", ["gradient", "y", "p", "rows", "loss"])
def test_a_parameter_may_have_any_name(name, monkeypatch):
    norm = stirred(Formula(8, f"{name} * x / rms(x)", {name: {"init": 1}}))
    x, by_y = draw(40, 8), draw(40, 8, seed=2)
    ours = forward_and_back(norm, x, by_y)
    compute_by_torch(monkeypatch)
    for our, their in zip(ours, forward_and_back(norm, x, by_y), strict=True):
        assert_close(our, their, rtol=1e-4, atol=1e-5)


def test_copies_and_pickles_compute_the_same():
    norm, x = stirred(RMSNorm(8)), draw(4, 8)
    for other in (copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        assert torch.equal(other(x), norm(x))


def test_what_kernels_are_not_made_of_is_left_to_torch():
    norm = Formula(8, "gain * sin(x)", {"gain": {"init": 1}})
    x = draw(4, 8)
    assert torch.equal(norm(x), torch.sin(x) * norm.gain)


def test_without_torchs_threads_a_kernel_runs_in_its_own(monkeypatch):
    x = draw(400, 64)
    expected = RMSNorm(64)(x)
    monkeypatch.setattr(runtime, "_find_launch", lambda: runtime._call_in_this_thread)
    assert torch.equal(RMSNorm(64)(x), expected)


def test_torchs_threads_are_found():
    if "OpenMP" not in torch.__config__.parallel_info().split("ATen parallel backend:")[-1]:
        pytest.skip("torch computes without OpenMP here")
    assert runtime._find_launch() is not runtime._call_in_this_thread


def test_a_token_is_read_as_seldom_as_its_sums_allow():
    parsed = parse_formula(8, "gain * x / sqrt(mean(x**2) + 1)", {"gain": {"init": 1}}, None)
    kinds = {"x": Kind.FULL, "gain": Kind.FEATURE}
    back = backward_program(parsed.tree, kinds, 8)
    shape = Shape(8, False, 1, (*kinds.items(), (GRADIENT, Kind.FULL)))
    # One loop over the tokens, and for each a loop that sums and a loop that stores; beside them
    # those that clear a chunk's totals, and add up the chunks'.
    assert str(emit_module(back, shape)).count("phi") == 3 + 1 + 2


def norm_by_script(before: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    code = (
        f"{before}\nimport torch; torch.set_num_threads(2)\n"
        "from normlab.norms import RMSNorm\n"
        "x = torch.arange(1.0, 65537.0).view(256, 256)\n"
        "print(RMSNorm(256)(x).square().mean().item())"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="torch's OpenMP is looked for on Linux alone")
def test_openmp_may_stand_below_a_folder_with_a_space(tmp_path: Path) -> None:
    (library,) = Path(torch.__file__).parent.glob("lib/libgomp*")
    (tmp_path / "a b").mkdir()
    copy = shutil.copy(library, tmp_path / "a b" / library.name)
    # Loaded first, by the same name, it is the library that torch computes with.
    done = norm_by_script(f"import ctypes; ctypes.CDLL({str(copy)!r})")
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("import sys; sys.modules['llvmlite'] = None", "pip install 'normlab[kernels]'"),
        ("raise ImportError('no LLVM here')", "no LLVM here"),
    ],
    ids=["not installed", "broken"],
)
def test_without_llvm_torch_computes_norms_and_a_sentence_says_so(before, reason, tmp_path) -> None:
    if reason == "no LLVM here":
        (tmp_path / "llvmlite.py").write_text(before)
        before = ""
    done = norm_by_script(before, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert reason in done.stderr
    assert float(done.stdout) == pytest.approx(1, rel=1e-3)


def test_without_llvm_a_model_is_the_same_to_rounding(monkeypatch) -> None:
    norms = [stirred(norm_factory(NORMS[name])(32)) for name in NORMS]
    x, by_y = draw(40, 32), draw(40, 32, seed=2)
    compiled = [forward_and_back(norm, x, by_y) for norm in norms]
    # As on a machine without the extra: the import is refused, and nothing is cached.
    for name in [name for name in sys.modules if name.startswith(("llvmlite", "normlab.kernels."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    kernels._compile_kernels.cache_clear()
    try:
        formula = FormulaSource("x", 32, ())
        assert kernels.compile_formula(formula, x, ()) is None
        for norm, expected in zip(norms, compiled, strict=True):
            for ours, theirs in zip(forward_and_back(norm, x, by_y), expected, strict=True):
                assert_close(ours, theirs, rtol=2e-4, atol=2e-4)
    finally:
        kernels._compile_kernels.cache_clear()


def test_tangents_batches_of_gradients_and_traces_are_left_to_torch():
    norm, x, direction = RMSNorm(16), draw(4, 16), draw(4, 16, seed=2)
    with torch.no_grad(), forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(norm(forward_ad.make_dual(x, direction))).tangent
    assert tangent is not None
    _, expected = torch.func.jvp(
        lambda x: x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt(), (x,), (direction,)
    )
    assert_close(tangent, expected)
    traced = torch.jit.trace(norm, x)
    assert_close(traced(2 * x), norm(2 * x))
    x.requires_grad_()
    y, many = norm(x), torch.randn(3, 4, 16)
    (found,) = torch.autograd.grad(y, x, many, is_grads_batched=True, retain_graph=True)
    for one, by_y in zip(found, many, strict=True):
        assert_close(one, torch.autograd.grad(y, x, by_y, retain_graph=True)[0])


@pytest.mark.parametrize("width", [7, 96, 1000])
def test_a_token_far_from_zero_is_centred_exactly(width: int) -> None:
    """What is left of equal features is nothing, and of others as much as float64 has."""
    norm = LayerNorm(width)
    for constant in (*range(1, 40), 1e-3, 1e6, 1e30):
        assert norm(torch.full((3, width), float(constant))).abs().max() == 0
    for offset in (0.0, 100.0, 1000.0):
        x = torch.randn(200, width, generator=torch.Generator().manual_seed(1)) + offset
        exact = F.layer_norm(x.double(), (width,))
        ours = (norm(x) - exact).abs().mean()
        torchs = (F.layer_norm(x, (width,)) - exact).abs().mean()
        assert ours <= 1.25 * torchs
        assert ours < 1e-7  # torch's own is 3e-5 at an offset of 1000


def test_a_token_too_wide_for_the_stack_of_a_thread_is_computed_by_torch():
    width = 2_200_000  # a row of gelu's and of its gradient's numbers would not fit
    expression = "gain * gelu(x) / sqrt(mean(gelu(x)**2) + 1e-5)"
    norm = Formula(width, expression, {"gain": {"init": 1}})
    x = draw(1, width)
    y, *_ = forward_and_back(norm, x, torch.ones_like(x))
    assert_close(y.square().mean(), torch.tensor(1.0), rtol=1e-4, atol=0)
