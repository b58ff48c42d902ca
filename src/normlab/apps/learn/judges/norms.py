"""RMSNorm, LayerNorm and ScaleNorm of the learner, measured on inputs that make mistakes visible.

Tokens change one at a time, so that a statistic over the wrong axis is seen. An input of RMS 1e-3
with ε = 1e-5 tells where ε stands, a mean of 2 whether it is removed, width 8 whether the variance
is the population's. Half precision tells the order of the casts.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from normlab.apps.learn.judges.mistake import (
    MistakeError,
    build_module,
    call_solution,
    check_result,
    format_percent,
    get_member,
    is_same,
    normal_tensor,
    raise_mistakes,
    relative_difference,
)
from normlab.norms.build import name_dtype

WIDTH, SHAPE = 8, (2, 6, 8)  # sequences, tokens, features
SMALL_RMS = 1e-3
_EPS, _OTHER_EPS = 1e-5, 1e-2
_HALF_WIDTH = 64
# Of all outputs in half precision, how many must equal the right order of casts bit for bit; a
# root that is rounded in another way moves one of some thousands.
_EQUAL_SHARE = 0.97
# By mean((x − mean x)²) in fp32 the error is 5e-5, by mean(x²) − mean(x)² it is 7e-2.
_LARGE_MEAN, _LARGE_MEAN_ERROR = 1000, 1e-3


@dataclass(frozen=True)
class Recipe:
    """A norm as choices: the right one, or with a mistake in it. ε is an argument, not a choice.

    Attributes:
        centred: whether the mean is subtracted before the division; `first` also before the
            statistic is taken.
        statistic: `rms`, `std` (population), `unbiased` (n − 1), `l2` (Euclidean length), `l1`,
            `mean` (|mean x|).
        eps: `inside` the root, `squared` there, `outside`, `missing`, `fixed` at 1e-5, or
            `maximum`(statistic, ε).
        root: `divides`, `missing`, or `multiplies`.
        gain: `once`, `missing`, `twice`, or `offset` (1 + gain).
        bias: `added`, `missing`, or added `before` the gain; empty where the norm has none.
    """

    centred: bool | Literal["first"]
    statistic: str
    eps: str
    root: str = "divides"
    gain: str = "once"
    bias: str = ""

    def apply(self, x: Tensor, gain: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        """(…, width) → (…, width), in the dtype of x."""
        if self.eps == "fixed":
            eps = _EPS
        mean = x.mean(-1, keepdim=True)
        # LayerNorm's function as one change: learners who write it by mistake make one mistake.
        if self.centred == "first":
            x, mean = x - mean, torch.zeros_like(mean)
        size = x.shape[-1]
        # Each of shape (…, 1), and squared, because the root is taken below.
        square = {
            "rms": x.square().mean(-1, keepdim=True),
            "std": (x - mean).square().mean(-1, keepdim=True),
            "unbiased": (x - mean).square().sum(-1, keepdim=True) / (size - 1),
            "l2": x.square().sum(-1, keepdim=True),
            "l1": x.abs().mean(-1, keepdim=True).square(),
            "mean": mean.square(),
        }[self.statistic]
        inside = square + {"inside": eps, "fixed": eps, "squared": eps * eps}.get(self.eps, 0.0)
        divisor = inside if self.root == "missing" else inside.sqrt()
        if self.eps == "outside":
            divisor = divisor + eps
        if self.eps == "maximum":
            divisor = divisor.clamp(min=eps)
        y = x - mean if self.centred else x
        y = y * divisor if self.root == "multiplies" else y / divisor
        if bias is not None and self.bias == "before":
            y = y + bias
        if self.gain != "missing":
            y = y * {"once": gain, "twice": gain * gain, "offset": 1 + gain}[self.gain]
        return y + bias if bias is not None and self.bias == "added" else y


# By choice and wrong value: the sentence that names the mistake.
_MISTAKES: dict[tuple[str, object], str] = {
    ("centred", True): (
        "the mean is subtracted before the division, as in LayerNorm; this norm does not subtract "
        "it"
    ),
    ("centred", "first"): (
        "the norm subtracts the mean: that is LayerNorm; this norm does not subtract it"
    ),
    ("centred", False): ("the mean is not subtracted from x before the division"),
    ("statistic", "rms"): (
        "x is divided by its RMS, the root of mean(x²); it must be the standard deviation, the "
        "root of mean((x − mean x)²)"
    ),
    ("statistic", "std"): (
        "x is divided by its standard deviation, which removes the mean; it must be the root of "
        "mean(x²)"
    ),
    ("statistic", "unbiased"): (
        "the variance is the unbiased one, divided by n − 1, as x.var() and x.std() give it; it "
        "must be divided by n (unbiased=False, or correction=0)"
    ),
    ("statistic", "l2"): (
        "x is divided by its Euclidean length, the root of the sum of squares; the root of their "
        "mean is required"
    ),
    ("statistic", "l1"): ("x is divided by the mean of |x|; the root of mean(x²) is required"),
    ("statistic", "mean"): (
        "the mean of x is squared, mean(x)²; x must be squared before the mean, mean(x²)"
    ),
    ("eps", "squared"): ("ε² is added under the root; ε itself must be added there, √(… + ε)"),
    ("eps", "inside"): (
        "ε is added to the square under the root; here it is a lower limit of the length"
    ),
    ("eps", "outside"): ("ε stands outside the root, √(…) + ε; it must be inside, √(… + ε)"),
    ("eps", "missing"): "ε has no effect",
    ("eps", "fixed"): "ε is 1e-5 whatever eps the norm is built with",
    ("eps", "maximum"): "ε is a lower limit of the root; it must be added inside",
    ("root", "multiplies"): (
        "x is multiplied by the root; it must be divided by it (rsqrt is 1/root already)"
    ),
    ("root", "missing"): "x is divided by the mean square; its root is missing",
    ("gain", "missing"): "the gain is not applied to the output",
    ("gain", "twice"): "the gain is applied twice",
    ("gain", "offset"): (
        "the output is multiplied by 1 + gain; a gain that starts at 1 multiplies as it is"
    ),
    ("bias", "missing"): "the bias is not added to the output",
    ("bias", "before"): (
        "the bias is added before the gain; it must be added after it, gain · x̂ + bias"
    ),
}


@dataclass(frozen=True)
class NormExercise:
    """A norm that a learner writes as a class: what is right, and which values are mistakes.

    Attributes:
        name: of the class.
        recipe: what it must compute.
        wrong: by choice of the recipe, the values that learners have there.
        scalar_gain: whether the gain is one number, which starts at √width.
        rounds_before_gain: whether half precision is rounded before the gain, as Llama does;
            else only the accuracy of the output is judged.
    """

    name: str
    recipe: Recipe
    wrong: dict[str, tuple[object, ...]]
    scalar_gain: bool = False
    rounds_before_gain: bool = False

    @property
    def mistakes(self) -> dict[str, dict[str, object]]:
        """By sentence: the choice of the recipe that is wrong, and its value."""
        changes = [(choice, value) for choice, values in self.wrong.items() for value in values]
        return {
            _OTHER_SENTENCES.get((self.name, *change), _MISTAKES[change]): dict([change])
            for change in changes
        }


_RMSNORM = NormExercise(
    "RMSNorm",
    Recipe(False, "rms", "inside"),
    {
        "eps": ("outside", "missing", "fixed", "maximum", "squared"),
        "statistic": ("l2", "std", "unbiased", "l1", "mean"),
        "centred": ("first", True),
        "root": ("missing", "multiplies"),
        "gain": ("missing", "twice", "offset"),
    },
    rounds_before_gain=True,
)
_LAYERNORM = NormExercise(
    "LayerNorm",
    Recipe(True, "std", "inside", bias="added"),
    {
        "statistic": ("unbiased", "rms"),
        "eps": ("outside", "missing", "fixed", "maximum", "squared"),
        "centred": (False,),
        "root": ("missing", "multiplies"),
        "gain": ("missing", "twice", "offset"),
        "bias": ("missing", "before"),
    },
)
_SCALENORM = NormExercise(
    "ScaleNorm",
    Recipe(False, "l2", "maximum"),
    {
        "statistic": ("rms", "l1", "std"),
        "eps": ("missing", "inside", "outside", "fixed"),
        "centred": ("first", True),
        "root": ("missing",),
        "gain": ("missing", "twice"),
    },
    scalar_gain=True,
)
# What is right for one norm is the mistake of another: ScaleNorm divides by the Euclidean length.
_OTHER_SENTENCES: dict[tuple[str, str, object], str] = {
    ("RMSNorm", "statistic", "unbiased"): (
        "x is divided by its standard deviation, x.std() or √x.var(), which removes the mean and "
        "divides by n − 1; it must be the root of mean(x²), which does neither"
    ),
    ("ScaleNorm", "statistic", "rms"): (
        "x is divided by its RMS; ScaleNorm divides by the Euclidean length, √d times as large"
    ),
    ("ScaleNorm", "eps", "outside"): (
        "ε is added to the length; here it is a lower limit of the length, max(‖x‖, ε)"
    ),
    ("ScaleNorm", "root", "missing"): (
        "x is divided by the sum of squares; its root, the length, is required"
    ),
}


def judge_rmsnorm(module: Any) -> None:
    """RMSNorm: x / √(mean x² + ε) · gain (1910.07467), rounded before the gain."""
    judge_norm(_RMSNORM, module)


def judge_layernorm(module: Any) -> None:
    """LayerNorm: (x − mean x) / √(var x + ε) · gain + bias, population variance (1607.06450)."""
    judge_norm(_LAYERNORM, module)


def judge_scalenorm(module: Any) -> None:
    """ScaleNorm: g · x / max(‖x‖, ε), with one g that starts at √width (1910.05895)."""
    judge_norm(_SCALENORM, module)


def judge_norm(exercise: NormExercise, module: Any) -> None:
    """Measure the learner's class: parameters, tokens, values, gradient, half precision.

    Raises:
        MistakeError: the first mistake.
    """
    build = get_member(module, exercise.name, "class")
    norm = build_module(exercise.name, build, WIDTH, _EPS)
    check_parameters(exercise, norm)
    with NoTorchNorm():
        check_call(exercise.name, norm)
    check_tokens(exercise.name, norm)
    _check_values(exercise, build)
    _check_gradient(exercise, build)
    if exercise.recipe.centred:
        _check_large_mean(exercise, build)
    _check_half_precision(exercise, build)


class NoTorchNorm(TorchFunctionMode):
    """Refuses torch's own RMSNorm and LayerNorm, however they are called."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call what is no such norm."""
        name = getattr(func, "__name__", "")
        # nn.RMSNorm and nn.LayerNorm call these functions too.
        if name in ("rms_norm", "layer_norm"):
            raise MistakeError(f"the solution calls torch's {name}; write it yourself.")
        return func(*args, **(kwargs or {}))


def check_parameters(exercise: NormExercise, norm: nn.Module) -> None:
    """Refuse other parameters than a gain, and for LayerNorm a bias, as they start."""
    parameters = dict(norm.named_parameters())
    shape: tuple[int, ...] = () if exercise.scalar_gain else (WIDTH,)
    wanted = (
        f"one number that starts at √{WIDTH} = {math.sqrt(WIDTH):.3g}"
        if exercise.scalar_gain
        else f"{WIDTH} ones"
    )
    expected = 2 if exercise.recipe.bias else 1
    if len(parameters) < expected:
        missing = "gain" if not parameters else "gain or bias"
        raise MistakeError(
            f"{exercise.name}({WIDTH}) has {len(parameters)} parameters of {expected}: the "
            f"{missing} is missing; the gain is an nn.Parameter of {wanted} (a plain tensor is "
            f"not trained){', the bias one of zeros' if exercise.recipe.bias else ''}."
        )
    if len(parameters) > expected:
        raise MistakeError(
            f"{exercise.name}({WIDTH}) has the parameters {', '.join(parameters)}; it must have "
            f"{expected}, {'gain and bias' if exercise.recipe.bias else 'the gain'}."
        )
    # One number in brackets multiplies as one without.
    allowed = [shape, (1,)] if exercise.scalar_gain else [shape]
    for name, parameter in parameters.items():
        if not parameter.requires_grad:
            raise MistakeError(f"{name} has requires_grad=False; it must be trained.")
        if tuple(parameter.shape) not in allowed:
            raise MistakeError(f"{name} has shape {tuple(parameter.shape)}; the gain is {wanted}.")
    if not _find_gain(exercise, norm, WIDTH):
        values = next(iter(parameters.values())).detach().flatten()[:3].tolist()
        raise MistakeError(
            f"no parameter starts as the gain: {', '.join(parameters)} begins with "
            f"{', '.join(f'{value:.3g}' for value in values)}; the gain is {wanted}."
        )


def _find_gain(exercise: NormExercise, norm: nn.Module, width: int) -> str:
    """The name of the parameter that starts as the gain at this width, or nothing."""
    # By its value, because learners name their parameters as they like.
    start = math.sqrt(width) if exercise.scalar_gain else 1.0
    for name, parameter in norm.named_parameters():
        if torch.allclose(parameter.detach().double(), torch.tensor(start).double(), rtol=1e-6):
            return name
    return ""


def check_call(name: str, norm: nn.Module) -> None:
    """Refuse another shape, dtype, NaN, or an input that was changed."""
    norm = copy.deepcopy(norm).double()
    # Whatever stands before the features: batches of sequences, tokens, one token.
    for shape in (SHAPE, (5, WIDTH), (WIDTH,)):
        x = normal_tensor(*shape)
        call = f"{name} of an input of shape {shape}"
        y = call_solution(call, norm, x, unchanged={"its input": x})
        check_result(call, y, shape, torch.float64)


def check_tokens(name: str, norm: nn.Module) -> None:
    """Refuse a norm by which a token depends on another token, or on another sequence."""
    norm = copy.deepcopy(norm).double()
    x = normal_tensor(*SHAPE, seed=1)
    with torch.no_grad():
        before = norm(x.clone())
        for sequence, token in ((0, 5), (1, 2)):
            changed = x.clone()
            # Its mean and its size change, so a statistic of either kind does.
            changed[sequence, token] = 3 * changed[sequence, token] + 1
            change = (norm(changed) - before).abs().amax(-1)  # (sequences, tokens)
            change[sequence, token] = 0
            if float(change.max()) <= 1e-6:
                continue
            reader_sequence, reader = divmod(int(change.argmax()), SHAPE[1])
            affected = (change[sequence] > 1e-6).nonzero()
            if len(affected):  # the same sequence says more than another one
                reader_sequence, reader = sequence, int(affected[0])
            if reader_sequence != sequence:
                raise MistakeError(
                    f"sequence {reader_sequence} sees sequence {sequence}: its output changes by "
                    f"{float(change.max()):.2g} when only the other one changes; the statistic "
                    f"must be taken over the features of one token (dim=-1, keepdim=True)."
                )
            raise MistakeError(
                f"token {reader} sees token {token}{', the future' * (token > reader)}: its output "
                f"changes by {float(change[sequence, reader]):.2g} when only token {token} "
                f"changes; the statistic must be taken over the features of one token (dim=-1, "
                f"keepdim=True)."
            )


@dataclass(frozen=True)
class _Sample:
    """An input, the parameters and ε it is normalized with, and what came out."""

    x: Tensor
    gain: Tensor
    bias: Tensor | None
    eps: float
    output: Tensor

    def reference(self, recipe: Recipe) -> Tensor:
        return recipe.apply(self.x, self.gain, self.bias, self.eps)


def _set_parameters(
    exercise: NormExercise,
    build: Callable[..., Any],
    eps: float = _EPS,
    width: int = WIDTH,
    dtype: torch.dtype = torch.float64,
) -> tuple[nn.Module, Tensor, Tensor | None]:
    """The norm in this dtype with a gain and a bias off their start, and both."""
    norm = build_module(exercise.name, build, width, eps)
    gain_name = _find_gain(exercise, norm, width)
    norm = norm.to(dtype)
    gain = bias = None
    with torch.no_grad():
        for name, parameter in norm.named_parameters():
            values = normal_tensor(*parameter.shape, seed=11 + (name != gain_name), dtype=dtype)
            # A gain of ones and a bias of zeros would hide where they are applied, and whether.
            parameter.copy_(1.5 + 0.5 * values if name == gain_name else values)
            if name == gain_name:
                gain = parameter
            else:
                bias = parameter
    if gain is None:
        raise MistakeError(
            f"{exercise.name}({width}) has no parameter that starts as the gain; its start and "
            f"its shape must follow from the width."
        )
    return norm, gain, bias


@torch.no_grad()
def _take_samples(exercise: NormExercise, build: Callable[..., Any]) -> list[_Sample]:
    ordinary = normal_tensor(*SHAPE, seed=2)
    small = normal_tensor(*SHAPE, seed=3)
    small = SMALL_RMS * small / small.square().mean(-1, keepdim=True).sqrt()
    # ScaleNorm's ε is a limit of the length; only a token below it shows it.
    tiny = 1e-3 * small
    samples = []
    # Two, because a norm that takes no notice of its eps is right for one of them.
    for eps in (_EPS, _OTHER_EPS):
        norm, gain, bias = _set_parameters(exercise, build, eps)
        samples += [
            _Sample(x, gain, bias, eps, norm(x.clone()).double())
            for x in (ordinary + 2, small, tiny)
        ]
    return samples


@torch.no_grad()
def _check_values(exercise: NormExercise, build: Callable[..., Any]) -> None:
    samples = _take_samples(exercise, build)

    def is_made(changes: dict[str, Any]) -> bool:
        recipe = replace(exercise.recipe, **changes)
        return all(is_same(sample.output, sample.reference(recipe)) for sample in samples)

    if is_made({}):
        return
    difference = _describe_difference(exercise, samples)
    raise_mistakes(exercise.mistakes, is_made, difference, most=3)
    raise MistakeError(
        f"the output is not that of {exercise.name}, and not one with a mistake that is known "
        f"here. {difference}"
    )


def _describe_difference(exercise: NormExercise, samples: list[_Sample]) -> str:
    """The first sample with another output: its RMS, and what it must be."""
    pairs = [(sample, sample.reference(exercise.recipe)) for sample in samples]
    sample, right = next(pair for pair in pairs if not is_same(pair[0].output, pair[1]))
    size, measured, expected = map(_root_mean_square, (sample.x, sample.output, right))
    share = format_percent(relative_difference(sample.output, right))
    return (
        f"On tokens of RMS {size:.3g} with eps={sample.eps:g} the output has RMS {measured:.3g}; "
        f"it must have {expected:.3g} (difference {share})."
    )


def _check_gradient(exercise: NormExercise, build: Callable[..., Any]) -> None:
    """The gradients by autograd of the learner's forward pass against those of the formula."""
    norm, gain, bias = _set_parameters(exercise, build)
    output_gradient = normal_tensor(*SHAPE, seed=5)
    leaves = {"x": normal_tensor(*SHAPE, seed=4).requires_grad_(), "gain": gain}
    if bias is not None:
        leaves["bias"] = bias
    y = norm(leaves["x"])
    gradients: tuple[Tensor | None, ...] = (None,) * len(leaves)
    # A forward pass under no_grad has no graph, and autograd.grad would raise.
    if y.requires_grad:
        gradients = torch.autograd.grad(
            y, list(leaves.values()), output_gradient, allow_unused=True
        )
    right = exercise.recipe.apply(leaves["x"], gain, bias, _EPS)
    references = torch.autograd.grad(right, list(leaves.values()), output_gradient)
    for name, gradient, reference in zip(leaves, gradients, references, strict=True):
        if gradient is None:
            raise MistakeError(
                f"no gradient reaches {name}; detach, no_grad, .data or .item() stops it."
            )
        if not is_same(gradient, reference):
            share = relative_difference(gradient, reference)
            raise MistakeError(
                f"the gradient of {name} is off by {format_percent(share)}, although the output "
                f"is right; a part of the forward pass is cut off by detach, .data or .item()."
            )


@torch.no_grad()
def _check_large_mean(exercise: NormExercise, build: Callable[..., Any]) -> None:
    """Refuse a variance that loses its digits in fp32 where the mean is large.

    mean(x²) and mean(x)² are 10⁶ then, rounded to about 0.05, and their difference is 1.
    """
    norm, gain, bias = _set_parameters(exercise, build, width=_HALF_WIDTH, dtype=torch.float32)
    x = (normal_tensor(4, 16, _HALF_WIDTH, seed=8) + _LARGE_MEAN).float()
    output = norm(x.clone())
    exact = exercise.recipe.apply(x.double(), gain.double(), _to_double(bias), _EPS)
    error = relative_difference(output, exact)
    if error > _LARGE_MEAN_ERROR:
        raise MistakeError(
            f"for float32 tokens of mean {_LARGE_MEAN} and standard deviation 1 the output is off "
            f"by {format_percent(error)}, although the formula is right: mean(x²) − mean(x)² is a "
            f"difference of two numbers near 10⁶, of which fp32 keeps 7 digits. Subtract the mean "
            f"first, then take the mean of the squares."
        )


@torch.no_grad()
def _check_half_precision(exercise: NormExercise, build: Callable[..., Any]) -> None:
    """The dtype of the output, squares that overflow in fp16, and the order of the casts."""
    for dtype, name in ((torch.bfloat16, "bfloat16"), (torch.float16, "float16")):
        norm, gain, bias = _set_parameters(exercise, build, _EPS, _HALF_WIDTH, dtype)
        x = normal_tensor(4, 64, _HALF_WIDTH, seed=6, dtype=dtype)
        call = f"{exercise.name} of an input in {name}"
        output = check_result(call, call_solution(call, norm, x), x.shape, dtype)
        large = (300 * normal_tensor(2, 3, _HALF_WIDTH, seed=7).sign()).to(dtype)
        large_output = norm(large)
        exact = exercise.recipe.apply(large.double(), gain.double(), _to_double(bias), _EPS)
        # fp16 ends at 65,504, and 300² is 90,000; bf16 has the range of fp32.
        if dtype is torch.float16 and relative_difference(large_output, exact) > 0.1:
            raise MistakeError(
                f"in float16 the squares overflow: 300² is infinite there, so tokens of ±300 give "
                f"an output of RMS {_root_mean_square(large_output):.3g} in place of "
                f"{_root_mean_square(exact):.3g}; compute in fp32 with x.float()."
            )
        if dtype is torch.bfloat16:
            _check_casts(exercise, x, gain, bias, output)
        _check_float32_gain(exercise, build, x, name)


def _check_float32_gain(
    exercise: NormExercise, build: Callable[..., Any], x: Tensor, dtype_name: str
) -> None:
    """Refuse another dtype than the input's where the parameters are fp32, as in autocast."""
    norm, _, _ = _set_parameters(exercise, build, _EPS, _HALF_WIDTH, torch.float32)
    parameters = "gain and bias" if exercise.recipe.bias else "gain"
    call = f"{exercise.name} of an input in {dtype_name}"
    output = call_solution(call, norm, x)
    if output.dtype != x.dtype:
        raise MistakeError(
            f"{call}, with its {parameters} in float32, gives {name_dtype(output.dtype)}; the "
            f"output must have the dtype of the input. A product of a half-precision tensor and "
            f"an fp32 tensor is fp32: cast {parameters} with .type_as(x), or the output."
        )


def _root_mean_square(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def _to_double(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.double()


def _check_casts(
    exercise: NormExercise, x: Tensor, gain: Tensor, bias: Tensor | None, output: Tensor
) -> None:
    """The rounding in bf16: errors over the exact result in units of its 2⁻⁸, or bit for bit."""
    ones = torch.ones_like(gain)
    # Normalized in fp32 and not yet multiplied: what both orders of casts begin with.
    unit = exercise.recipe.apply(x.float(), ones.float(), None, _EPS)
    exact = exercise.recipe.apply(x.double(), gain.double(), _to_double(bias), _EPS)
    if not exercise.rounds_before_gain:
        # Two roundings, of the output and of an intermediate result, stay below it.
        error = relative_difference(output, exact) / 2**-8
        if error > 0.75:
            raise MistakeError(
                f"in bfloat16 the error is {error:.2g} times 2⁻⁸ (RMS); computed in fp32 and "
                f"rounded once it is about 0.3. Compute in fp32 with x.float(), then cast back."
            )
        return
    orders = {
        "right": unit.to(x.dtype) * gain,  # Llama's
        "gain-before-cast": (unit * gain.float()).to(x.dtype),  # Gemma's
        "low-precision": exercise.recipe.apply(x, gain, None, _EPS),
    }
    shares = {kind: float((output == values).double().mean()) for kind, values in orders.items()}
    if shares["right"] >= _EQUAL_SHARE:
        return
    if shares["gain-before-cast"] >= _EQUAL_SHARE:
        raise MistakeError(
            f"the gain is applied before the cast: in bfloat16 {1 - shares['right']:.0%} of the "
            f"outputs differ from (normalized in fp32, cast to the dtype of x) · gain. That is "
            f"Gemma's order; this exercise asks for Llama's."
        )
    raise MistakeError(
        f"the norm is computed in bfloat16: {1 - shares['right']:.0%} of the outputs differ from "
        f"those that are normalized in fp32 (x.float()) and then cast to the dtype of x."
    )
