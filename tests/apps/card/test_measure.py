"""What a card says of a norm is what is known of it: in closed form, or in 1910.07467's table 1."""

import math
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from normlab import config
from normlab.apps.card.invariances import computing_dtype, measure_invariances, normal_input
from normlab.apps.card.measure import (
    _ratio_of_times,
    check_derivatives,
    jacobian_spectrum,
    measure_card,
    measure_extremes,
    measure_outputs,
    measure_rounding,
    measure_speed,
    response_curves,
)
from normlab.apps.card.record import Card, Curves, Extreme, Rounding, Spectrum
from normlab.errors import ConfigError
from normlab.norms import DynamicTanh, LayerNorm, PartialRMSNorm, RMSNorm, ScaleNorm, norm_factory
from normlab.training.hardware import single_thread


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two would wait for each other longer than they compute."""
    with single_thread():
        yield


FILES = {path.stem: path for path in sorted((config.conf_folder() / "norm").glob("*.yaml"))}
WIDTH = 48


class Plain(nn.Module):
    """A norm from a function of x."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class BatchNorm(nn.Module):
    """Statistics of a feature over all tokens of all sequences."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(0, -2)).view_as(x)


class Gated(nn.Module):
    """RMSNorm times a gate that is open until its weights move, as SeeDNorm's (2510.22777)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms(x, 1e-5) * (1 + torch.tanh((x * self.weight).mean(-1, keepdim=True)))


def rms(x: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def size(x: Tensor) -> Tensor:
    return x.square().mean(-1, keepdim=True).sqrt()


def card_of(build: Callable[[int], nn.Module], width: int = WIDTH) -> Card:
    return measure_card(build, width, seconds=0)


def plain(function: Callable[[Tensor], Tensor]) -> Callable[[int], nn.Module]:
    return lambda width: Plain(function)


def spectrum_of(build: Callable[[int], nn.Module], width: int = WIDTH) -> Spectrum:
    return jacobian_spectrum(build(width), width, torch.float64)


def curves_of(build: Callable[[int], nn.Module]) -> Curves:
    return response_curves(build(WIDTH), WIDTH)


def extremes_of(build: Callable[[int], nn.Module]) -> dict[str, Extreme]:
    return {one.input: one for one in measure_extremes(build(WIDTH), WIDTH)}


def rounding_of(build: Callable[[int], nn.Module]) -> list[Rounding]:
    return [measure_rounding(build(WIDTH), WIDTH, name) for name in ("bf16", "fp16")]


def derivatives_of(build: Callable[[int], nn.Module], width: int = WIDTH) -> tuple[str, str]:
    return check_derivatives(build(width), width, torch.float64)


def verdicts(norm: nn.Module, width: int = WIDTH) -> dict[str, str]:
    return {one.name: one.verdict for one in measure_invariances(norm, width)}


@pytest.mark.parametrize("name", FILES)
def test_every_norm_in_conf_has_a_card_and_leaks_nothing(name: str) -> None:
    card = card_of(norm_factory(OmegaConf.load(FILES[name])))
    found = {one.name: one.verdict for one in card.invariances}
    assert found["token alone"] == found["sequence alone"] == "yes"
    assert not card.leaks
    assert (card.gradcheck, card.second_gradcheck) == ("passes", "passes")
    assert all(one.output == one.gradient == "finite" for one in card.extremes[:2])
    assert all(one.output_max is not None for one in card.rounding)


# Weight matrix re-scaling and re-centring, and re-scaling of a single training case.
TABLE_1 = {
    "BatchNorm": (BatchNorm, True, False, False),
    "LayerNorm": (LayerNorm, True, True, True),
    "RMSNorm": (RMSNorm, True, False, True),
    "pRMSNorm": (PartialRMSNorm, True, False, True),
}


@pytest.mark.parametrize("name", TABLE_1)
def test_invariances_are_those_of_the_papers_table(name: str) -> None:
    build, *expected = TABLE_1[name]
    found = verdicts(build(WIDTH))
    keys = ("weight scale", "weight shift", "input scale")
    assert [found[key] != "no" for key in keys] == expected


KNOWN = {
    "rmsnorm": (RMSNorm, "to eps", "no", "yes", "at init"),
    "rmsnorm, eps 0": (lambda width: RMSNorm(width, eps=0.0), "yes", "no", "yes", "at init"),
    "rmsnorm, eps 1": (lambda width: RMSNorm(width, eps=1.0), "to eps", "no", "yes", "at init"),
    "layernorm": (LayerNorm, "to eps", "yes", "at init", "at init"),
    "scalenorm": (ScaleNorm, "yes", "no", "yes", "yes"),
    "partial rmsnorm": (PartialRMSNorm, "to eps", "no", "yes", "no"),
    "none": (lambda width: nn.Identity(), "no", "no", "yes", "yes"),
    "dyt": (DynamicTanh, "no", "no", "at init", "at init"),
    # It saturates feature by feature, so it forgets the scale of huge inputs, but of no others.
    "dyisru": (plain(lambda x: x / (4 + x**2).sqrt()), "no", "no", "yes", "yes"),
    "hard tanh": (plain(lambda x: x.clamp(-1, 1)), "no", "no", "yes", "yes"),
    # An eps beside the root dies only like 1/size.
    "std + eps": (
        plain(lambda x: (x - x.mean(-1, True)) / (x.std(-1, keepdim=True) + 1e-6)),
        "to eps", "yes", "yes", "yes",
    ),
    "sphere": (plain(lambda x: x.abs() / x.norm(dim=-1, keepdim=True)), "yes", "no", "no", "yes"),
    # What stands beside the RMS grows with the input, if slower: no eps.
    "rms + √rms": (plain(lambda x: x / (size(x) + size(x).sqrt())), "no", "no", "yes", "yes"),
    "gated": (Gated, "at init", "no", "at init", "at init"),
}  # fmt: skip


@pytest.mark.parametrize("width", [8 * 6, 1024])
@pytest.mark.parametrize("name", KNOWN)
def test_scale_shift_sign_and_order_are_told_as_they_are(name: str, width: int) -> None:
    build, *expected = KNOWN[name]
    found = verdicts(build(width), width)
    assert [found[key] for key in ("input scale", "input shift", "odd", "features alike")] == (
        expected
    )


def test_the_deviation_of_rmsnorm_is_that_of_its_eps() -> None:
    (scale,) = [
        one for one in measure_invariances(RMSNorm(WIDTH), WIDTH) if one.name == "weight scale"
    ]
    # √(1 + ε/c²) − 1 with c = 1/4, times the largest output over the RMS.
    assert 0.5 * 16 * 1e-5 < scale.deviation < 10 * 0.5 * 16 * 1e-5


def test_a_norm_with_noise_is_compared_with_itself_under_the_same_noise() -> None:
    """Two draws differ in every token, and no token has seen another."""

    class Noisy(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm = RMSNorm(width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x) * (1 + 0.1 * torch.randn_like(x))

    card = card_of(Noisy)
    assert not card.leaks
    assert (card.gradcheck, card.second_gradcheck) == ("passes", "passes")


def test_statistics_over_tokens_leak_and_a_running_mean_leaks_within_a_sequence() -> None:
    card = card_of(BatchNorm)
    assert card.leaks
    over_all = {one.name: one.verdict for one in card.invariances}
    assert (over_all["token alone"], over_all["sequence alone"]) == ("no", "no")
    centred = verdicts(Plain(lambda x: x - x.mean(-2, keepdim=True)))
    assert (centred["token alone"], centred["sequence alone"]) == ("no", "yes")
    chunks = verdicts(Plain(lambda x: torch.cat([c + c.roll(-1, 1) for c in x.split(64, 1)], 1)))
    assert (chunks["token alone"], chunks["sequence alone"]) == ("no", "yes")
    long = verdicts(
        Plain(lambda x: x if x.shape[1] < 64 else x + nn.functional.pad(x, (0, 0, 0, 1))[:, 1:])
    )
    assert (long["token alone"], long["sequence alone"]) == ("no", "yes")


@pytest.mark.parametrize("width", [16, 48, 512])
def test_rmsnorm_removes_one_direction_and_layernorm_two(width: int) -> None:
    token = normal_input(width, seed=7)
    one, two = spectrum_of(RMSNorm, width), spectrum_of(LayerNorm, width)
    assert (one.near_zero, two.near_zero) == (1, 2)
    assert (one.rank, two.rank) == (width, width - 1)
    square = token.square().mean().item() + 1e-5
    assert one.values[:-1] == pytest.approx([square**-0.5] * (width - 1))
    assert one.values[-1] == pytest.approx(1e-5 * square**-1.5, rel=1e-6)
    assert one.condition == pytest.approx(1)
    variance = token.var(correction=0).item() + 1e-5
    assert two.values[:-2] == pytest.approx([variance**-0.5] * (width - 2))


def test_a_pointwise_norm_removes_no_direction() -> None:
    spectrum, none = spectrum_of(DynamicTanh), spectrum_of(plain(lambda x: x))
    slopes = (1 / torch.cosh(normal_input(WIDTH, seed=7))).square().sort(descending=True).values
    assert spectrum.values == pytest.approx(slopes.tolist())
    assert (spectrum.near_zero, spectrum.rank) == (0, WIDTH)
    assert spectrum.condition == pytest.approx(float(slopes[0] / slopes[-1]))
    assert (none.near_zero, none.rank, none.condition) == (0, WIDTH, 1)


def test_the_curves_are_the_functions() -> None:
    tanh, norm = curves_of(DynamicTanh), curves_of(RMSNorm)
    assert tanh.response == pytest.approx([math.tanh(x) for x in tanh.feature])
    assert tanh.slope == pytest.approx([math.cosh(x) ** -2 for x in tanh.feature])
    expected = [x / math.sqrt(x * x + 1e-5) for x in norm.rms_in]
    assert norm.rms_out == pytest.approx(expected, rel=1e-5)


def test_extreme_inputs_are_told_with_their_value_and_slope() -> None:
    found = extremes_of(RMSNorm)
    assert (found["zeros"].output, found["zeros"].largest) == ("finite", 0)
    assert found["zeros"].steepest == pytest.approx(1e-5**-0.5)
    assert found["N(0,1)·1e30"].largest == 0  # the squares are infinite
    assert found["constant 0.1"].largest == pytest.approx(0.1 / math.sqrt(0.01 + 1e-5))
    assert (found["a NaN"].output, found["a NaN"].reach) == ("NaN", "token")
    without = extremes_of(lambda width: RMSNorm(width, eps=0.0))
    assert (without["zeros"].output, without["zeros"].gradient) == ("NaN", "NaN")


@pytest.mark.parametrize(
    ("build", "reach"),
    [
        (plain(lambda x: x * 1), "feature"),
        (LayerNorm, "token"),
        (BatchNorm, "other tokens"),
        (plain(lambda x: x.nan_to_num()), "nowhere"),
    ],
)
def test_it_is_said_how_far_a_nan_gets(build: Callable, reach: str) -> None:
    found = extremes_of(build)["a NaN"]
    assert found.reach == reach
    assert (found.output == "NaN") == (reach != "nowhere")


def test_outputs_of_the_identity_are_those_of_its_inputs() -> None:
    outputs = {output.input: output for output in measure_outputs(nn.Identity(), 4)}
    hot = outputs["one-hot"]  # one of four is 1
    assert (hot.mean, hot.rms, hot.median) == (0.25, 0.5, 0.0)
    assert outputs["N(0,1)"].median > 0.5  # of sizes: the median of the numbers is near 0
    assert outputs["N(0,1)·100"].rms == pytest.approx(100 * outputs["N(0,1)"].rms)


def test_a_ratio_of_times_has_the_quartiles_of_every_spread() -> None:
    """Interpolated between the values, as in the other tables; deviation 2.16 over mean 4."""
    ratio = _ratio_of_times([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [1.0] * 7)
    assert (ratio.low, ratio.median, ratio.high) == (2.5, 4.0, 5.5)
    assert ratio.variation == pytest.approx(0.540, abs=5e-4)


def test_an_outlier_feature_drowns_the_others_of_rmsnorm_and_not_of_dyt() -> None:
    def median(build: Callable) -> float:
        outputs = measure_outputs(build(WIDTH), WIDTH)
        return {one.input: one.median for one in outputs}["outlier"]

    assert median(RMSNorm) < 0.01 < 0.5 < median(DynamicTanh)


def test_rounding_once_costs_half_an_eps_and_computing_in_bf16_more() -> None:
    wide, none = rounding_of(RMSNorm), rounding_of(plain(lambda x: x * 1))
    assert [one.format for one in wide] == ["bf16", "fp16"]
    assert all(0.4 < one.output_max < 0.55 and one.output_rms < 0.3 for one in wide)
    assert all(one.output_max == one.gradient_max == 0 for one in none)
    narrow = rounding_of(plain(lambda x: rms(x, 1e-5)))
    assert all(one.output_max > 0.8 for one in narrow)


def test_half_precision_that_fails_or_widens_is_said() -> None:
    def refuse(x: Tensor) -> Tensor:
        if x.dtype == torch.float16:
            raise NotImplementedError("no kernel\nfor half")
        return rms(x.float() if x.dtype == torch.bfloat16 else x, 1e-5)

    bf16, fp16 = rounding_of(plain(refuse))
    assert bf16.problem == "gives float32"
    assert (fp16.problem, fp16.output_max) == ("no kernel for half", None)


def test_a_norm_that_computes_in_fp32_is_judged_by_fp32s_rounding() -> None:
    card = card_of(plain(lambda x: rms(x.float(), 1e-5).to(x.dtype)))
    found = {one.name: one.verdict for one in card.invariances}
    assert card.computes_in == "float32"
    assert (found["input scale"], found["input shift"], found["odd"]) == ("to eps", "no", "yes")
    assert card.gradcheck == card.second_gradcheck == "not in float32"
    assert card.spectrum.near_zero == 1
    assert computing_dtype(RMSNorm(WIDTH), WIDTH) == torch.float64


class Counting(nn.Module):
    """Its output grows with every call, as a running statistic's does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


def test_a_norm_that_remembers_is_asked_afresh_every_time() -> None:
    norm = Counting(WIDTH)
    found, curves = verdicts(norm), response_curves(norm, WIDTH)
    assert (found["odd"], found["token alone"], found["features alike"]) == ("yes",) * 3
    assert curves.response == pytest.approx(curves.feature)


class SlowBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(0.02)
        return gradient


class WrongSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 3


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * 3 * x**2


def test_a_backward_pass_that_is_wrong_or_ends_at_the_first_is_said() -> None:
    assert derivatives_of(plain(WrongSlope.apply), 8)[0] == "fails"
    first, second = derivatives_of(plain(OnceOnly.apply), 8)
    assert first == "passes"
    assert second in ("refuses", "fails")


def test_a_wrong_backward_pass_beside_a_matrix_is_found_in_few_calls() -> None:
    calls = []

    class Wide(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.eye(width))

        def forward(self, x: Tensor) -> Tensor:
            calls.append(x.shape)
            return WrongSlope.apply(x @ self.matrix)

    assert derivatives_of(Wide, 64)[0] == "fails"
    assert len(calls) < 1000  # the matrix has 4,096 numbers


def test_time_is_a_ratio_to_layernorm() -> None:
    same, triple = (
        measure_speed(build(WIDTH), WIDTH, threads=1, seconds=0.5)
        for build in (LayerNorm, lambda width: nn.Sequential(*[LayerNorm(width)] * 4))
    )
    assert same.forward.low <= same.forward.median <= same.forward.high
    assert 0.5 < same.both.median < 2 < triple.both.median
    slow_back = measure_speed(Plain(SlowBack.apply), WIDTH, threads=1, seconds=0)
    assert slow_back.forward.median < 3 < slow_back.both.median
    assert same.shape == (8, 256, WIDTH)
    assert same.threads == 1


def test_measuring_leaves_norm_threads_and_chance_as_they_were() -> None:
    norm = BatchNorm(WIDTH)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    chance, threads = torch.random.get_rng_state(), torch.get_num_threads()
    card = measure_card(lambda width: norm, WIDTH, threads=threads + 1, seconds=0)
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())
    assert card.curves == curves_of(BatchNorm)
    assert card.invariances == measure_invariances(BatchNorm(WIDTH), WIDTH)
    assert card.outputs == measure_outputs(BatchNorm(WIDTH), WIDTH)
    assert card.spectrum == spectrum_of(BatchNorm)
    assert card.extremes == tuple(extremes_of(BatchNorm).values())
    assert card.rounding == tuple(rounding_of(BatchNorm))
    assert card.speed.threads == threads + 1
    assert torch.equal(chance, torch.random.get_rng_state())
    assert threads == torch.get_num_threads()


def test_parameters_are_told_by_name_and_shape() -> None:
    card = card_of(DynamicTanh)
    assert {one.name: one.shape for one in card.parameters} == {
        "alpha": (), "gain": (WIDTH,), "bias": (WIDTH,),
    }  # fmt: skip
    assert card.parameter_count == 2 * WIDTH + 1


def test_a_parameter_that_is_not_trained_is_measured_too() -> None:
    def build(width: int) -> nn.Module:
        norm = RMSNorm(width)
        return norm.requires_grad_(False)

    card = card_of(build)
    assert card.parameter_count == WIDTH
    trained = measure_extremes(RMSNorm(WIDTH), WIDTH)
    assert [extreme.steepest for extreme in card.extremes] == [
        extreme.steepest for extreme in trained
    ]


def refuse_nan(x: Tensor) -> Tensor:
    if x.isnan().any():
        raise ValueError("a NaN\nin x")
    return x * 1


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (refuse_nan, "norm=mine fails on the input a NaN: ValueError: a NaN in x"),
        (
            lambda x: x * 1 if x.any() else torch.zeros_like(x).detach(),
            "norm=mine fails on the input zeros: RuntimeError: ",
        ),
    ],
)
def test_a_norm_that_fails_on_an_extreme_input_is_one_sentence(
    function: Callable[[Tensor], Tensor], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        measure_card(plain(function), WIDTH, name="mine", seconds=0)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


BAD = {
    "changes the shape": lambda x: x[..., 1:],
    "gives float16": lambda x: x.half(),
    "gives float32": lambda x: x.float() * 1,
    "gives a tuple": lambda x: (x, x),
    "not finite": lambda x: x / 0,
    "no gradient": lambda x: x.detach(),
    "in place": lambda x: x.mul_(2),
    "one word": lambda x: torch.cat([x, "one word"]),
}


@pytest.mark.parametrize("problem", BAD)
def test_what_no_model_could_use_is_one_sentence(problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        measure_card(plain(BAD[problem]), WIDTH, name="mine")
    said = str(caught.value)
    assert said.startswith("norm=mine ")
    assert (problem in said) or (problem == "one word" and "TypeError" in said)
    assert "\n" not in said
