"""Evidence for the questions of lessons 2, 3 and 6: one norm, its invariances, sixteen bits."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_content.evidence import Evidence, evidence
from learn_content.evidence_studies import assert_recorded
from learn_content.learn_pages import compose_overrides
from normlab.errors import ConfigError
from normlab.model.gpt import Rotary, count_parameters
from normlab.norms import DynamicTanh, LayerNorm, RMSNorm, ScaleNorm, norm_factory
from normlab.norms.build import check_contract
from normlab.training.build import build_model

WIDTH = 512
EPS = 1e-5


def random_token(width: int = 64) -> Tensor:
    """(width,) numbers of N(0, 1), the same every time."""
    return torch.randn(width, generator=torch.Generator().manual_seed(0))


def rms(x: Tensor) -> float:
    return x.detach().square().mean().sqrt().item()


def changes(function: Callable[[Tensor], Tensor], x: Tensor, other: Tensor) -> bool:
    """Whether the output differs by more than rounding."""
    return rms(function(x) - function(other)) > 1e-4


@evidence("rms-against-layer")
def rms_against_layer() -> Evidence:
    x = 2 + random_token()
    keeps_mean = abs(RMSNorm(64)(x).mean().item()) > 0.5 > abs(LayerNorm(64)(x).mean().item())
    counts = [sum(p.numel() for p in norm(WIDTH).parameters()) for norm in (RMSNorm, LayerNorm)]
    has_gain = counts[0] == WIDTH
    two_tokens = torch.stack((x, x))
    other = torch.stack((x, 5 * x.flip(0)))
    one_token = torch.equal(RMSNorm(64)(two_tokens)[0], RMSNorm(64)(other)[0])
    divides = not changes(RMSNorm(64, eps=0), x, 7 * x)
    return Evidence(
        [not has_gain, keeps_mean and counts[1] == 2 * counts[0], not divides, not one_token],
        numbers={"512": counts[0], "1,024": counts[1]},
    )


@evidence("rmsnorm-by-hand")
def rmsnorm_by_hand() -> Evidence:
    x = torch.tensor([3.0, 4.0])
    return Evidence(
        answer=RMSNorm(2, eps=0)(x)[0].item(),
        numbers={
            "12.5": x.square().mean().item(),
            "3.536": rms(x),
            "0.849": RMSNorm(2, eps=0)(x)[0].item(),
            "3": 3,
        },
    )


def small_token_outputs() -> tuple[float, float]:
    """The output's RMS for a token of RMS 0.001: eps inside the root, and outside."""
    x = torch.full((8,), 1e-3)
    return rms(RMSNorm(8, eps=EPS)(x)), rms(x / (x.square().mean().sqrt() + EPS))


@evidence("eps-inside")
def eps_inside() -> Evidence:
    inside, _ = small_token_outputs()
    return Evidence(
        answer=inside, numbers={"0.001": 1e-3, "0.000001": 1e-6, "0.00001": EPS, "0.302": inside}
    )


@evidence("eps-outside")
def eps_outside() -> Evidence:
    inside, outside = small_token_outputs()
    same = math.isclose(inside, outside, rel_tol=0.1)
    return Evidence(
        [math.isclose(outside, 0.990, abs_tol=5e-4), same, math.isinf(outside)],
        numbers={"0.302": inside, "0.990": outside, "0.001": 1e-3, "0.00101": 1e-3 + EPS},
    )


@evidence("unbiased-variance")
def unbiased_variance() -> Evidence:
    factors = {}
    for width in (8, WIDTH):
        x = random_token(width)
        unbiased = (x - x.mean()) / x.std()
        factors[width] = rms(unbiased) / rms(LayerNorm(width, eps=0)(x))
    return Evidence(
        answer=factors[8],
        numbers={"7": 7, "8": 8, "0.935": factors[8], "512": WIDTH, "0.999": factors[WIDTH]},
    )


@evidence("why-a-bias")
def why_a_bias() -> Evidence:
    norm, linear = LayerNorm(64), nn.Linear(64, 32)
    norm.bias.data.uniform_(-1, 1)
    x = torch.stack((random_token(), random_token().flip(0)))
    before = linear(norm(x))
    linear.bias.data += linear.weight.data @ norm.bias.data
    norm.bias.data.zero_()
    folded = torch.allclose(linear(norm(x)), before, atol=1e-5)
    (spec,) = compose_overrides(["norm=layernorm_nobias"])
    without = norm_factory(spec.plain["norm"])(64)
    exists = [name for name, _ in without.named_parameters()] == ["gain"]
    gain = RMSNorm(2)
    gain.gain.data.fill_(5)
    gain_makes_bias = gain(torch.tensor([0.0, 1.0]))[0].item() != 0
    return Evidence([not folded, folded and exists, gain_makes_bias])


@evidence("mean-is-zero-already")
def mean_is_zero_already() -> Evidence:
    x = random_token()
    x = x - x.mean()
    layer, root = LayerNorm(64)(x), RMSNorm(64)(x)
    difference = (layer - root).abs().max().item()
    return Evidence(
        [difference < 1e-6, rms(layer) > 1.01 * rms(root), abs(root.mean().item()) > 1e-3],
        numbers={"1e-6": 1e-6},
    )


@evidence("softmax-is-no-norm")
def softmax_is_no_norm() -> Evidence:
    def softmax(x: Tensor) -> Tensor:
        return x.softmax(-1)

    x = random_token()
    scale, shift = (changes(softmax, x, other) for other in (2 * x, x + 5))
    norm = RMSNorm(64, eps=0)
    assert not changes(norm, x, 2 * x)
    assert changes(norm, x, x + 5)
    return Evidence([not scale, not shift and scale, not scale and not shift])


def slope_at_zero(eps: float) -> float:
    x = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    F.rms_norm(x, (8,), None, eps)[0].backward()
    return x.grad[0].item()  # type: ignore[index]


@evidence("token-of-zeros")
def token_of_zeros() -> Evidence:
    y = RMSNorm(8, eps=EPS)(torch.zeros(8))
    return Evidence(
        [bool(y.isnan().any()), bool((y == 1).all()), bool((y == 0).all())],
        numbers={"0.0032": math.sqrt(EPS), "316": slope_at_zero(EPS)},
    )


@evidence("steepest-slope")
def steepest_slope() -> Evidence:
    answer = slope_at_zero(1e-6)
    return Evidence(answer=answer, numbers={"1000": answer, "1e-5": EPS, "316": slope_at_zero(EPS)})


@evidence("dyt-and-a-small-token")
def dyt_and_a_small_token() -> Evidence:
    x = 0.01 * torch.tensor([1.0, -2.0, 3.0, -4.0])
    tanh, root = rms(DynamicTanh(4)(x)), rms(RMSNorm(4)(x))
    is_unit = [math.isclose(size, 1, abs_tol=0.05) for size in (root, tanh)]
    return Evidence(
        [is_unit[0] and not is_unit[1], all(is_unit), is_unit[1]], numbers={"0.027": tanh}
    )


@evidence("torch-default-eps")
def torch_default_eps() -> Evidence:
    x = 1e-4 * random_token(WIDTH)
    default = torch.nn.RMSNorm(WIDTH)(x)
    step = torch.finfo(torch.float32).eps
    same = [
        torch.allclose(default, F.rms_norm(x, (WIDTH,), None, eps), rtol=1e-5)
        for eps in (EPS, step, 0.0)
    ]
    assert torch.nn.LayerNorm(WIDTH).eps == EPS
    assert torch.nn.RMSNorm(WIDTH).eps is None
    return Evidence(same, numbers={"1e-5": EPS, "1.2e-7": step})


@evidence("shift-of-the-token")
def shift_of_the_token() -> Evidence:
    x = random_token()
    norms = (LayerNorm(64), RMSNorm(64), ScaleNorm(64), DynamicTanh(64))
    root = RMSNorm(64)
    assert rms(root(x + 5) - root(x)) > 1
    return Evidence([not changes(norm, x, x + 5) for norm in norms], numbers={"5": 5})


@evidence("weights-times-ten")
def weights_times_ten() -> Evidence:
    h, direction = torch.randn(32, 64), torch.randn(32, 64)
    base = torch.randn(64, 64)
    norms = []
    for scale in (1, 10):
        weight = (scale * base).requires_grad_()
        (RMSNorm(64, eps=0)(h @ weight.T) * direction).sum().backward()
        norms.append(weight.grad.norm().item())  # type: ignore[union-attr]
    return Evidence(answer=norms[1] / norms[0], numbers={"10": 10})


@evidence("folding-a-gain")
def folding_a_gain() -> Evidence:
    x = torch.stack((random_token(), random_token().flip(0)))
    same = {}
    for placement in ("pre", "post"):
        norm, linear = RMSNorm(64), nn.Linear(64, 64, bias=False)
        norm.gain.data.uniform_(0.5, 2)

        def block(x: Tensor, norm: nn.Module, linear: nn.Module, where: str = placement) -> Tensor:
            """Pre-LN's sublayer; or Post-LN's, from one norm to the next one's input."""
            if where == "pre":
                return x + linear(norm(x))
            normed = norm(x)
            return normed + linear(normed)

        before = block(x, norm, linear)
        linear.weight.data *= norm.gain.data
        norm.gain.data.fill_(1)
        same[placement] = torch.allclose(block(x, norm, linear), before, atol=1e-5)
    pre, post = same["pre"], same["post"]
    return Evidence([post and not pre, pre and post, pre and not post])


@evidence("scalenorm-is-rmsnorm")
def scalenorm_is_rmsnorm() -> Evidence:
    x = random_token(WIDTH)
    same_at_start = torch.allclose(ScaleNorm(WIDTH)(x), RMSNorm(WIDTH, eps=0)(x), atol=1e-5)
    counts = [sum(p.numel() for p in norm(WIDTH).parameters()) for norm in (ScaleNorm, RMSNorm)]
    centred = not changes(ScaleNorm(WIDTH), x, x + 5)
    return Evidence(
        [counts[0] == counts[1], centred, same_at_start and counts[0] == 1],
        numbers={"5": 5, "1": counts[0], "512": counts[1]},
    )


@evidence("rope-and-qk-norm")
def rope_and_qk_norm() -> Evidence:
    q = torch.randn(2, 4, 8, 16, generator=torch.Generator().manual_seed(0))
    rotary, norm = Rotary(16, 8, 10000.0), RMSNorm(16)
    alike = torch.allclose(rotary(norm(q)), norm(rotary(q)), atol=1e-5)
    norm.gain.data = torch.linspace(0.5, 2, 16)
    alike_with_gain = torch.allclose(rotary(norm(q)), norm(rotary(q)), atol=1e-2)
    return Evidence([not alike, alike and not alike_with_gain, alike_with_gain])


@evidence("negated-token")
def negated_token() -> Evidence:
    x = random_token()
    norm, root = LayerNorm(64), RMSNorm(64)
    odd_without_bias = torch.allclose(norm(-x), -norm(x), atol=1e-5)
    norm.bias.data.fill_(1)
    odd_with_bias = torch.allclose(norm(-x), -norm(x), atol=1e-5)
    root.gain.data.uniform_(0.5, 2)
    assert torch.allclose(root(-x), -root(x), atol=1e-5)
    return Evidence([odd_with_bias, odd_without_bias and not odd_with_bias, not odd_without_bias])


@evidence("what-rmsnorm-saves")
def what_rmsnorm_saves() -> Evidence:
    assert_recorded("experiments.md", "2.71–3.18 in\n  torch's functions")
    always_faster = False  # the record above: it takes longer with torch's functions
    (spec,) = compose_overrides(["norm=layernorm"])
    model = build_model(spec.config, 8)
    norms = [m for m in model.modules() if isinstance(m, LayerNorm)]
    saved = sum(norm.bias.numel() for norm in norms)
    share = saved / count_parameters(model)
    counts = [sum(p.numel() for p in norm(WIDTH).parameters()) for norm in (RMSNorm, LayerNorm)]
    return Evidence(
        [always_faster, counts[1] - counts[0] == WIDTH, share > 0.4],
        numbers={
            "512": counts[1] - counts[0],
            "1,024": counts[1],
            "2.71": 2.71,
            "3.18": 3.18,
        },
    )


# Lesson 6


def half_number(value: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor(value, dtype=dtype)


@evidence("why-fp32")
def why_fp32() -> Evidence:
    overflows = bool(half_number(300, torch.float16).square().isinf())
    small = half_number(1e-4, torch.bfloat16).square().item()
    total = (half_number(256, torch.bfloat16) + 1).item()
    silent = (RMSNorm(8, cast="none").half()(torch.full((8,), 300.0).half()) == 0).all()
    return Evidence(
        [False, small == 0, not silent, overflows and total == 256],
        numbers={"0.0001": 1e-4, "1e-8": small, "300": 300, "256": total},
    )


@evidence("largest-square-in-fp16")
def largest_square_in_fp16() -> Evidence:
    squares = torch.arange(400.0).half().square().isfinite()
    return Evidence(
        answer=squares.sum().item() - 1,
        numbers={
            "255": 255,
            "65,025": 255**2,
            "65,504": torch.finfo(torch.float16).max,
            "256": 256,
            "65,536": 256**2,
        },
    )


@evidence("sum-in-bf16")
def sum_in_bf16() -> Evidence:
    total = half_number(0, torch.bfloat16)
    for _ in range(1000):
        total = total + 1
    at_once = torch.ones(1000).bfloat16().sum()  # torch adds up in fp32 and rounds once
    numbers = {"256": total.item(), "1000": at_once.item()}
    return Evidence(answer=total.item(), numbers=numbers)


@evidence("eps-in-fp16")
def eps_in_fp16() -> Evidence:
    zeros = torch.zeros(8, dtype=torch.float16)
    y = zeros / (zeros.square().mean() + half_number(1e-8, torch.float16)).sqrt()
    return Evidence(
        [bool((y == 0).all()), bool(y.isnan().all()), bool(y.isinf().all())],
        numbers={"1e-8": 1e-8},
    )


@evidence("order-of-casts")
def order_of_casts() -> Evidence:
    torch.manual_seed(0)
    x = torch.randn(1024, 128).bfloat16()
    gain = 1 + 0.1 * torch.randn(128)
    exact = F.rms_norm(x.double(), (128,), gain.double(), EPS)
    errors = {}
    for cast in ("gemma", "llama"):
        norm = RMSNorm(128, cast=cast)
        norm.gain.data.copy_(gain)
        errors[cast] = rms(norm(x).double() - exact)
    ratio = errors["llama"] / errors["gemma"]
    return Evidence([ratio > 1.5, ratio < 1, max(errors.values()) == 0], numbers={"1.5": 1.5})


@evidence("nan-at-step-100")
def nan_at_step_100() -> Evidence:
    large = half_number(300, torch.float16).square()
    eps_helps = bool((large + 1e-3).isfinite())
    layers = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(16)))
    for layer in layers:
        layer.weight.data.normal_()  # too large
    x, first = torch.randn(64).half(), None
    for number, layer in enumerate(layers, 1):
        x = (layer.weight.data @ x.float()).half()
        if first is None and not x.isfinite().all():
            first = number
    largest = torch.finfo(torch.float16).max
    more_range = largest > torch.finfo(torch.bfloat16).max
    return Evidence(
        [eps_helps, more_range, first is not None and first < 16, False],
        numbers={"65,504": largest},
    )


@evidence("batchnorm-in-a-language-model")
def batchnorm_in_a_language_model() -> Evidence:
    x = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[:, -1] += 5  # the last token of each sequence
    batch = nn.BatchNorm1d(8)
    first = [batch(tokens.flatten(0, 1)).view(2, 4, 8)[0, 0] for tokens in (x, other)]
    leaks = not torch.allclose(*first)
    norm = LayerNorm(8)
    per_token = torch.equal(norm(x)[0, 0], norm(other)[0, 0])
    try:
        check_contract(batch, 8, "norm._target_=torch.nn.BatchNorm1d")
        refused = False
    except ConfigError:
        refused = True
    return Evidence([not leaks, not per_token, leaks and refused])


class AverageWithNext(nn.Module):
    """(x_t + x_{t+1}) / 2: a norm that shows each token the next one."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + torch.roll(x, -1, dims=-2)) / 2


@evidence("below-the-floor")
def below_the_floor() -> Evidence:
    assert_recorded("log.md", "(1.12\n  under 1.41)")
    leaks = refuses(AverageWithNext())
    honest = not refuses(RMSNorm(8))
    return Evidence([False, False, leaks and honest], numbers={"1.12": 1.12, "1.41": 1.41})


def refuses(norm: nn.Module) -> bool:
    """Whether normlab's check finds that a token sees another one."""
    try:
        check_contract(norm, 8, "norm")
    except ConfigError:
        return True
    return False


@evidence("largest-attention-logit")
def largest_attention_logit() -> Evidence:
    norm = RMSNorm(16, eps=0)
    q = norm(random_token(16))
    largest = (q @ q / math.sqrt(16)).item()  # the largest: q and k in one direction
    k = norm(torch.randn(1000, 16))
    assert ((k @ q) / math.sqrt(16)).max().item() <= largest + 1e-5
    return Evidence(answer=largest, numbers={"16": (q @ q).item(), "4": largest})
