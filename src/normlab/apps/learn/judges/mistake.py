"""What every judge of an exercise shares: the mistake it names, and calls that may fail.

A judge is a function of the learner's module. It returns where the solution is right, and raises
`MistakeError` at the first mistake that it measures. Inputs are float64 and the same every time.
"""

import errno
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from normlab.config.safe_yaml import read_yaml
from normlab.errors import ConfigError
from normlab.norms.build import name_dtype
from normlab.text import excerpt, one_line, printable_line, suggest_closest

# A solution may compute in fp32 (relative error 1e-7) although its input is float64; the smallest
# mistake that is judged, an unbiased variance at width 64, changes the output by 8e-3.
TOLERANCE = 1e-4

SOLUTION = "solution"  # the name of the learner's file as a module


class MistakeError(Exception):
    """A mistake in a solution: a sentence with what was measured."""


def is_memory_error(error: BaseException) -> bool:
    """Whether memory ran out; torch raises a RuntimeError of its own for it."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


def normal_tensor(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Independent N(0, 1) numbers of this shape, the same for every solution."""
    # Drawn in float64 and cast: one seed gives other numbers in float32.
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def get_member(module: Any, name: str, kind: str) -> Any:
    """The function or class (`kind`) of this name in the learner's module."""
    member = getattr(module, name, None)
    if member is None:
        names = [key for key in vars(module) if not key.startswith("_")]
        raise MistakeError(
            f"the file defines no {kind} {name}; {suggest_closest(name, names)}the skeleton has "
            f"its first line."
        )
    is_class = inspect.isclass(member)
    if not callable(member) or is_class != (kind == "class"):
        given = "a class" if is_class else describe_value(member)
        raise MistakeError(f"{name} is {given}; it must be a {kind}.")
    return member


def call_solution(
    call: str,
    function: Callable[..., Any],
    *arguments: Any,
    unchanged: Mapping[str, Tensor] = MappingProxyType({}),
) -> Any:
    """What the solution returns; an exception becomes a mistake. `call` is how it is written.

    `unchanged` are tensors, by name, that the call must not change in place.
    """
    before = {name: tensor.clone() for name, tensor in unchanged.items()}
    try:
        result = function(*arguments)
    except MistakeError:  # the judge's own, from inside the call
        raise
    except NotImplementedError as error:
        raise MistakeError(
            f"{call} is not written yet: it raises NotImplementedError, as in the skeleton."
        ) from error
    except BaseException as error:  # exit, and KeyboardInterrupt, are the learner's own too
        if is_memory_error(error):
            raise
        raise name_error(call, error) from error
    if inspect.iscoroutine(result):
        result.close()  # else Python warns that nobody has waited for it
    if inspect.iscoroutine(result) or inspect.isasyncgen(result):
        raise MistakeError(f"{call} is async and gives no value; write def without async.")
    if inspect.isgenerator(result):
        raise MistakeError(f"{call} gives a generator, because it has a yield; use return.")
    for name, tensor in unchanged.items():
        if not torch.equal(tensor, before[name]):
            raise MistakeError(f"{call} changes {name} in place; it must make a new tensor.")
    return result


def name_error(call: str, error: BaseException) -> MistakeError:
    """The mistake that an exception shows, with the line of the learner's file that raised it."""
    name, line = _find_line(error)
    where = f" (line {line} of {name})" if line else ""
    if isinstance(error, SystemExit):
        return MistakeError(f"{call} ends the program{where}; remove the call of exit.")
    if isinstance(error, ModuleNotFoundError):
        return MistakeError(
            f"{f'line {line} of {name}' if line else call} imports {error.name}, which is not "
            f"installed; the exercises need torch only."
        )
    # The limit of a file's size, which holds for what is printed too: see check_process.
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return MistakeError(
            f"{f'line {line} of {name}' if line else call} prints or writes too much, without "
            f"end; remove it."
        )
    reason = ""
    with suppress(Exception):  # an exception of the learner's own may have no text
        reason = excerpt(one_line(error), 200).rstrip(".")
    advice = next((text for words, text in _ADVICE.items() if re.search(words, reason)), "")
    raised = f"{type(error).__name__}{': ' * bool(reason)}{reason}"
    return MistakeError(f"{call} raises {raised}{where}.{advice}")


# By what an exception says: what to do. The words are those of torch's and Python's messages; in a
# version with other words only the advice is missing.
_ADVICE = {
    "size of tensor|must match": " A statistic of a token needs keepdim=True, so that it can be "
    "divided by.",
    "maximum recursion depth": " A function calls itself without end.",
    "Dimension out of range": " Use dim=-1: the last axis.",
    r"Module\.__init__\(\) call|has no attribute '_(parameters|modules|\w+_hooks)'": " Call "
    "super().__init__() first in __init__.",
}


def _find_line(error: BaseException) -> tuple[str, int]:
    """The last line of the learner's own file that an exception has passed, or none: 0."""
    name, line = "", 0
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        # Below the learner's line there may be frames of torch, whose lines help nobody.
        if frame.f_globals.get("__name__") == SOLUTION:
            name, line = Path(frame.f_code.co_filename).name, traceback.tb_lineno
        traceback = traceback.tb_next
    return name, line


def build_module(name: str, build: Callable[..., Any], *arguments: Any) -> nn.Module:
    """The `nn.Module` that the learner's class gives for these arguments."""
    words = [str(value) if isinstance(value, int | float) else "…" for value in arguments]
    call = f"{name}({', '.join(words)})"
    module = call_solution(call, build, *arguments)
    if not isinstance(module, nn.Module):
        raise MistakeError(f"{name} gives {describe_value(module)}; it must be an nn.Module.")
    return module


def read_configuration(path: Path) -> Any:
    """The content of a solution that is a YAML file, within the bounds of a configuration."""
    try:
        return read_yaml(path)
    except ConfigError as error:
        raise MistakeError(str(error)) from error


def check_result(call: str, value: Any, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The value, when it is a finite tensor of this shape and dtype."""
    if not isinstance(value, Tensor):
        raise MistakeError(
            f"{call} gives {describe_value(value)}; it must give a tensor (is `return` missing?)."
        )
    if value.shape != torch.Size(shape):
        raise MistakeError(
            f"{call} gives a tensor of shape {tuple(value.shape)}; it must have {tuple(shape)}."
        )
    if value.dtype != dtype:
        raise MistakeError(
            f"{call} gives {name_dtype(value.dtype)}; the output must have the dtype of the "
            f"input, {name_dtype(dtype)} (a product of a half-precision tensor and an fp32 tensor "
            f"is fp32)."
        )
    if value.isnan().any():
        raise MistakeError(
            f"{call} gives NaN for ordinary numbers, N(0, 1); it must give finite numbers."
        )
    if value.isinf().any():
        raise MistakeError(
            f"{call} gives an infinity for ordinary numbers, N(0, 1); it must give finite numbers."
        )
    return value


def relative_difference(value: Tensor, reference: Tensor) -> float:
    """RMS of the difference over the RMS of the reference; infinite where it is not finite."""
    difference = (value.double() - reference.double()).square().mean().sqrt()
    scale = reference.double().square().mean().sqrt().clamp(min=1e-300)
    ratio = float(difference / scale)
    # NaN (infinity minus infinity) is never larger than a limit, so it would pass as small.
    return ratio if ratio == ratio else float("inf")


def is_same(value: Tensor, reference: Tensor) -> bool:
    """Whether the tensors are equal up to the rounding of fp32."""
    return value.shape == reference.shape and relative_difference(value, reference) <= TOLERANCE


def name_mistake(value: Tensor, mistakes: Iterable[tuple[str, Tensor]]) -> str:
    """The sentence of the first mistake that computes this value, or nothing."""
    return next((sentence for sentence, wrong in mistakes if is_same(value, wrong)), "")


def raise_mistakes(
    mistakes: Mapping[str, Mapping[str, Any]],
    is_made: Callable[[dict[str, Any]], bool],
    difference: str,
    most: int = 2,
) -> None:
    """Raise the fewest mistakes, at most `most`, that explain the solution; return where none do.

    `mistakes` are, by sentence, the choices that they change; `is_made` says whether the solution
    computes what these changes together do.
    """
    for count in range(1, most + 1):
        for combination in combinations(mistakes.items(), count):
            keys = [key for _, changes in combination for key in changes]
            if len(set(keys)) < len(keys):  # two values of one choice
                continue
            if is_made(
                {key: of_key for _, changes in combination for key, of_key in changes.items()}
            ):
                sentences = "; and ".join(sentence for sentence, _ in combination)
                raise MistakeError(f"{sentences}. {difference}")


def format_percent(share: float) -> str:
    """0.0213 as `2.1 %`, 0.54 as `54 %`."""
    if share == float("inf"):
        return "infinitely much"
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def describe_value(value: Any) -> str:
    """A value for a sentence: its type, and what is short of it."""
    if value is None:
        return "None"
    return f"a {type(value).__name__} ({excerpt(printable_line(repr(value)), 40)})"
