"""A norm's identity card: what can be measured of it in seconds, before it is trained.

Inputs have shape (batch, tokens, width) and are the same for every norm. Each measurement works on
a copy of the norm, so that a running statistic cannot change the next one. Nothing here knows how a
card is shown.
"""

import copy
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.gradcheck import GradcheckError
from torch.func import functional_call

from normlab.analysis.statistics import ratio_spread
from normlab.apps.card.invariances import (
    BATCH,
    TOKENS,
    Function,
    computing_dtype,
    copy_to_float64,
    measure_invariances,
    move_parameters,
    normal_input,
    stateless_function,
)
from normlab.apps.card.record import (
    Card,
    Curves,
    Extreme,
    Output,
    Parameter,
    Ratio,
    Rounding,
    Spectrum,
    Speed,
)
from normlab.archive.steadiness import speed_variation
from normlab.archive.versioned_json import FiniteNumber, finite_or_none
from normlab.errors import ConfigError, describe_error
from normlab.norms import LayerNorm
from normlab.norms.build import check_parameters, name_dtype
from normlab.norms.timing import Call, build_gradient_call, median_milliseconds
from normlab.text import one_line

# A singular value below this part of the largest is a direction the norm removes. The eps of
# RMSNorm leaves about 1e-5 of it, the slope of tanh at four standard deviations 1e-3.
NEAR_ZERO = 1e-4
# Of the Jacobian: its decomposition costs width³.
_LARGEST_JACOBIAN = 1024
_SWEEP_LIMIT, _SWEEP_POINTS = 6.0, 121  # of the sweep of one feature
_DECADES, _PER_DECADE = (-6, 6), 4  # of the input's RMS
_HALF_FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16}
_DIRECTIONS = 32  # of the input and of the output, in the check of derivatives
# Where the exact value is under this part of the RMS, an error is taken relative to this: an
# element that happens to be zero has no relative error.
_LEAST_RELATIVE = 0.01
_TIMED_BATCH, _TIMED_TOKENS = 8, 256
_FEWEST_ROUNDS, _MOST_ROUNDS, _UNCOUNTED_ROUNDS = 7, 60, 2


def measure_card(
    build: Callable[[int], nn.Module],
    width: int = 512,
    *,
    name: str = "norm",
    config: Mapping[str, Any] | None = None,
    threads: int = 1,
    seconds: float = 0.8,
) -> Card:
    """Measure the norm that `build` makes for a width.

    `name` and `config` are only written on the card; `threads` and `seconds` are those of the
    timing.

    Raises:
        ConfigError: it cannot be built or called, or is not a function that a model could use:
            another shape, another dtype, no gradient, NaN for a standard-normal input.
    """
    norm = build(width)
    check_norm(norm, name, width)
    dtype = computing_dtype(norm, width)
    narrow = min(width, _LARGEST_JACOBIAN)
    first, second = check_derivatives(norm, width, dtype)
    return Card(
        name=name,
        config=dict(config or {}),
        width=width,
        parameters=tuple(Parameter(key, tuple(p.shape)) for key, p in norm.named_parameters()),
        computes_in=name_dtype(dtype),
        outputs=measure_outputs(norm, width),
        invariances=measure_invariances(norm, width),
        spectrum=jacobian_spectrum(norm if narrow == width else build(narrow), narrow, dtype),
        extremes=measure_extremes(norm, width, name),
        rounding=tuple(measure_rounding(norm, width, name) for name in _HALF_FORMATS),
        gradcheck=first,
        second_gradcheck=second,
        speed=measure_speed(norm, width, threads, seconds),
        curves=response_curves(norm, width),
    )


def check_norm(norm: nn.Module, name: str, width: int) -> None:
    """Refuse what no residual stream could be sent through.

    Raises:
        ConfigError: a call fails, or what it returns is of no use.
    """
    check_parameters(norm, width, f"norm={name}")
    x = normal_input(2, 4, width)
    # In fp32, as models are trained, and in float64, in which the card measures.
    for module, input_ in ((copy.deepcopy(norm), x.float()), (copy_to_float64(norm), x)):
        where = f"{tuple(input_.shape)} in {name_dtype(input_.dtype)}"
        try:
            problem = _find_problem(module, input_.requires_grad_())
        except Exception as error:
            raise ConfigError(
                f"norm={name} fails on an input of shape {where}: {describe_error(error, 200)}"
            ) from error
        if problem:
            raise ConfigError(
                f"norm={name} {problem}; a norm takes one tensor and gives another of the same "
                f"shape and dtype, here {where}."
            )


def _find_problem(norm: nn.Module, leaf: Tensor) -> str:
    x = leaf * 1  # no leaf, as in a model: it could be changed in place
    y = norm(x)
    if not isinstance(y, Tensor):
        return f"gives a {type(y).__name__}"
    if y.shape != leaf.shape:
        return f"changes the shape to {tuple(y.shape)}"
    if y.dtype != leaf.dtype:
        return f"gives {name_dtype(y.dtype)}"
    if not torch.equal(x, leaf):
        return "changes its input in place"
    if not y.isfinite().all():
        return "gives values that are not finite for a standard-normal input"
    if not y.requires_grad:
        return "lets no gradient through"
    # A norm may have a backward pass of its own, which can fail where the forward pass does not.
    torch.autograd.grad(y.sum(), leaf)
    return ""


def measure_outputs(norm: nn.Module, width: int) -> tuple[Output, ...]:
    """Mean, RMS and median size of the output in fp32, on inputs that occur in a Transformer."""
    x = normal_input(BATCH, TOKENS, width)
    outlier = x.clone()
    outlier[..., 0] = 1000.0  # one feature that a trained model makes huge in every token
    hot = torch.arange(BATCH * TOKENS).reshape(BATCH, TOKENS, 1) % width
    inputs = {
        "N(0,1)": x,
        "N(0,1)·100": 100 * x,
        "N(0,1)·0.01": 0.01 * x,
        "N(0,1)+5": x + 5,
        "outlier": outlier,
        "one-hot": torch.zeros_like(x).scatter_(-1, hot, 1.0),
    }
    outputs = []
    for name, x in inputs.items():
        with torch.no_grad():
            y = copy.deepcopy(norm)(x.float()).double()
        numbers = y.mean(), y.square().mean().sqrt(), y.abs().median()
        outputs.append(Output(name, *(finite_or_none(float(n)) for n in numbers)))
    return tuple(outputs)


def measure_extremes(norm: nn.Module, width: int, name: str = "norm") -> tuple[Extreme, ...]:
    """Output and gradients in fp32 on inputs of zeros, huge, tiny, constant and not finite.

    Raises:
        ConfigError: a call of the norm `name` fails, or gives a tensor without a gradient.
    """
    x = normal_input(2, 4, width, seed=10).float()
    # Of ± outputs: the plain sum of LayerNorm's outputs is constant, and its gradient 0.
    output_gradient = normal_input(2, 4, width, seed=11).sign().float()
    inputs = {
        "zeros": torch.zeros_like(x),
        "constant 0.1": torch.full_like(x, 0.1),
        "N(0,1)·1e30": 1e30 * x,  # its squares are beyond fp32
        "N(0,1)·1e-30": 1e-30 * x,
        "a NaN": x.clone(),
        "an inf": x.clone(),
    }
    inputs["a NaN"][0, 0, 0], inputs["an inf"][0, 0, 0] = float("nan"), float("inf")
    extremes = []
    for input_name, x in inputs.items():
        module = copy.deepcopy(norm)
        try:
            y = module(x.requires_grad_())
            gradients = torch.autograd.grad(
                y, [x, *_trained_parameters(module)], output_gradient, allow_unused=True
            )
        except Exception as error:
            raise ConfigError(
                f"norm={name} fails on the input {input_name}: {describe_error(error, 200)}"
            ) from error
        of_all = torch.cat([g.flatten() for g in gradients if g is not None])
        reach = None if x.isfinite().all() else _reach_of_bad_feature(y)
        sizes = _largest_finite(y), _largest_finite(gradients[0])
        kinds = _kind_of(y), _kind_of(of_all)
        extremes.append(Extreme(input_name, kinds[0], sizes[0], kinds[1], sizes[1], reach))
    return tuple(extremes)


def _trained_parameters(norm: nn.Module) -> list[nn.Parameter]:
    # autograd refuses a parameter that is frozen.
    return [parameter for parameter in norm.parameters() if parameter.requires_grad]


def _kind_of(values: Tensor) -> str:
    if values.isnan().any():
        return "NaN"
    return "inf" if values.isinf().any() else "finite"


def _largest_finite(values: Tensor) -> FiniteNumber:
    finite = values.detach()[values.isfinite()]
    return finite_or_none(float(finite.abs().max())) if len(finite) else None


def _reach_of_bad_feature(y: Tensor) -> str:
    """How far the first feature of the first token, which is not finite, reaches."""
    bad = ~y.isfinite()
    if not bad.any():
        return "nowhere"
    if bad.sum() > bad[0, 0].sum():
        return "other tokens"
    return "token" if bad[0, 0, 1:].any() else "feature"


def measure_rounding(norm: nn.Module, width: int, name: str) -> Rounding:
    """Errors of output and input gradient in `bf16` or `fp16`, over float64 on the same numbers."""
    dtype = _HALF_FORMATS[name]
    # The parameters are rounded in both, so that the error is that of the arithmetic.
    narrow, exact = copy.deepcopy(norm).to(dtype), copy.deepcopy(norm).to(dtype).double()
    x = normal_input(1, 64, width, seed=12).to(dtype)
    output_gradient = normal_input(1, 64, width, seed=13).to(dtype)
    try:
        results = output_and_gradient(narrow, x, output_gradient)
    # Not every operation of torch has a kernel for half precision.
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        return Rounding(name, problem=one_line(error, 120) or type(error).__name__)
    errors = []
    references = output_and_gradient(exact, x.double(), output_gradient.double())
    for result, reference in zip(results, references, strict=True):
        least = _LEAST_RELATIVE * reference.square().mean().sqrt()
        relative = (result.double() - reference) / reference.abs().clamp(min=least)
        relative = relative / torch.finfo(dtype).eps
        errors += [float(relative.square().mean().sqrt()), float(relative.abs().max())]
    other = results[0].dtype
    problem = None if other == dtype else f"gives {name_dtype(other)}"
    output_rms, output_max, gradient_rms, gradient_max = map(finite_or_none, errors)
    return Rounding(name, output_rms, output_max, gradient_rms, gradient_max, problem)


def output_and_gradient(
    norm: nn.Module, x: Tensor, output_gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """The norm's output, and the gradient of x for this gradient of the output."""
    x = x.clone().requires_grad_()
    y = norm(x)
    (gradient,) = torch.autograd.grad(y, x, output_gradient.to(y.dtype))
    return y.detach(), gradient


def jacobian_spectrum(norm: nn.Module, width: int, dtype: torch.dtype) -> Spectrum:
    """Singular values of the Jacobian of a token's output by the token, as the norm starts."""
    function = _token_function(norm, width)
    token = normal_input(width, seed=7)
    # Row by row: a norm with a backward pass of its own may know no vmap.
    jacobian = torch.autograd.functional.jacobian(function, token)  # type: ignore[no-untyped-call]
    values = torch.linalg.svdvals(jacobian)
    largest = values[0]
    rest = values[values > NEAR_ZERO * largest]
    return Spectrum(
        width=width,
        values=tuple(values.tolist()),
        # The threshold of numpy.linalg.matrix_rank.
        rank=int((values > width * torch.finfo(dtype).eps * largest).sum()),
        near_zero=width - len(rest),
        condition=finite_or_none(float(rest[0] / rest[-1])) if len(rest) else None,
    )


def response_curves(norm: nn.Module, width: int) -> Curves:
    """One feature swept while the rest are N(0, 1); and RMS out over thirteen decades, fp32."""
    function, token = _token_function(norm, width), normal_input(width, seed=7)
    sweep = torch.linspace(-_SWEEP_LIMIT, _SWEEP_LIMIT, _SWEEP_POINTS, dtype=torch.float64).tolist()
    response, slope = [], []
    for value in sweep:
        token[0] = value
        x = token.clone().requires_grad_()
        y = function(x)[0]
        (gradient,) = torch.autograd.grad(y, x)
        response.append(finite_or_none(y.item()))
        slope.append(finite_or_none(gradient[0].item()))
    low, high = _DECADES
    steps = range(low * _PER_DECADE, high * _PER_DECADE + 1)
    rms_in = [10 ** (step / _PER_DECADE) for step in steps]
    x = normal_input(2, 8, width, seed=9)
    x /= x.square().mean(-1, keepdim=True).sqrt()
    with torch.no_grad():
        outputs = [copy.deepcopy(norm)((size * x).float()).double() for size in rms_in]
    rms_out = tuple(finite_or_none(y.square().mean().sqrt().item()) for y in outputs)
    return Curves(tuple(sweep), tuple(response), tuple(slope), tuple(rms_in), rms_out)


def _token_function(norm: nn.Module, width: int) -> Function:
    """The norm, in float64, of the first token of a batch whose other tokens do not change."""
    function = stateless_function(copy_to_float64(norm))
    rest = normal_input(2, 4, width, seed=6)
    # (batch, tokens, 1): 1 at the first token, 0 elsewhere.
    first = torch.zeros(2, 4, 1, dtype=torch.float64)
    first[0, 0] = 1.0
    return lambda token: function(rest * (1 - first) + token * first)[0, 0]


def check_derivatives(norm: nn.Module, width: int, dtype: torch.dtype) -> tuple[str, str]:
    """Whether autograd's first and second derivatives are those of the function: a word each.

    Input and parameters are moved along random directions, and the output is seen along others:
    where the two derivatives differ, torch looks at every number by itself, and those of a matrix
    would take hours.
    """
    if dtype != torch.float64:
        return ("not in float32",) * 2  # a difference quotient needs the digits
    module = move_parameters(norm)
    parameters = dict(module.named_parameters())
    directions = {
        name: normal_input(*value.shape, seed=seed)
        for seed, (name, value) in enumerate(parameters.items())
    }
    start = normal_input(1, 3, width, seed=8)
    # (directions, tokens · width) each; a direction has a length of about 1.
    of_input, of_output = normal_input(2, _DIRECTIONS, start.numel(), seed=9) / start.numel() ** 0.5
    # How far the input moves along each direction, (directions,), and a number for each parameter.
    inputs = [torch.zeros(_DIRECTIONS), *(torch.zeros(()) for _ in parameters)]
    inputs = [distance.double().requires_grad_() for distance in inputs]

    def function(distances: Tensor, *steps: Tensor) -> Tensor:
        x = start + (distances @ of_input).view_as(start)
        moved = {
            name: parameters[name].detach() + step * directions[name]
            for step, name in zip(steps, parameters, strict=True)
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of a norm with noise: a function gives the same again
            y: Tensor = functional_call(module, moved, (x,))
        return torch.mv(of_output, y.flatten())

    def check(torch_check: Callable[..., bool]) -> str:
        try:
            # It projects on random directions; they shall be the same every time.
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                torch.manual_seed(0)
                warnings.simplefilter("ignore")
                torch_check(function, inputs, fast_mode=True)
        except GradcheckError:
            return "fails"
        except (RuntimeError, NotImplementedError):
            return "refuses"
        return "passes"

    return check(gradcheck), check(gradgradcheck)


def measure_speed(norm: nn.Module, width: int, threads: int, seconds: float) -> Speed:
    """Forward, and forward with backward, in fp32 on this CPU, over LayerNorm's.

    Both are timed in every round, so what slows one slows the other. It takes about so many
    seconds, unless seven rounds need more or sixty less.
    """
    x = normal_input(_TIMED_BATCH, _TIMED_TOKENS, width, seed=14).float().requires_grad_()
    output_gradient = normal_input(_TIMED_BATCH, _TIMED_TOKENS, width, seed=15).float()
    calls: list[Call] = []
    for module in (LayerNorm(width), copy.deepcopy(norm)):
        # Forward as in training: x needs a gradient, so the norm keeps what backward takes.
        calls.append(partial(module, x))
        leaves = [x, *_trained_parameters(module)]
        calls.append(build_gradient_call(module, leaves, x, output_gradient))
    rounds: list[list[float]] = []
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        began = time.perf_counter()
        while len(rounds) < _FEWEST_ROUNDS + _UNCOUNTED_ROUNDS or (
            len(rounds) < _MOST_ROUNDS and time.perf_counter() - began < seconds
        ):
            rounds.append([median_milliseconds(call, 1) for call in calls])
    finally:
        torch.set_num_threads(threads_before)
    # Of LayerNorm and of the norm: forward, and forward with backward; a value for every round.
    base_forward, base_both, forward, both = zip(*rounds[_UNCOUNTED_ROUNDS:], strict=True)
    return Speed(
        shape=tuple(x.shape),
        threads=threads,
        rounds=len(forward),
        layernorm_milliseconds=(statistics.median(base_forward), statistics.median(base_both)),
        forward=_ratio_of_times(forward, base_forward),
        both=_ratio_of_times(both, base_both),
    )


def _ratio_of_times(times: Sequence[float], base: Sequence[float]) -> Ratio:
    spread = ratio_spread(times, base)
    variation = max(speed_variation(times), speed_variation(base))
    return Ratio(spread.median, spread.low, spread.high, variation)
