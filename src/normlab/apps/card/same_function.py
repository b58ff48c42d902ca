"""Are two norms the same function? Tried on inputs that tell known mistakes apart, in float64.

Each input is a (BATCH, TOKENS, width) tensor. Compared are the outputs, and the gradients of one
random weighted sum of them with respect to the input. Parameters of the same name and shape are
moved off their start alike in both norms, in whatever order they are registered; where names or
shapes differ, both stay as they start.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from normlab.analysis.formatting import format_number
from normlab.apps.card.invariances import (
    BATCH,
    TOKENS,
    computing_dtype,
    copy_to_float64,
    move_parameters,
    normal_input,
    rounding_of,
)
from normlab.apps.card.measure import output_and_gradient

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Deviation:
    """Where two tensors of one shape differ most.

    Attributes:
        relative: the largest difference over the RMS of the second tensor; infinite where only one
            of the two is finite.
        token, feature: where it is; the token counts over all sequences.
        first, second: the two values there.
    """

    relative: float
    token: int
    feature: int
    first: float
    second: float


@dataclass(frozen=True)
class FunctionComparison:
    """Two norms at a width: by input, how far their outputs and input gradients are apart.

    Attributes:
        first, second: the names of the norms.
        has_moved: whether the parameters were moved off their start.
        has_parameters: whether one of the norms has any.
        rounding: up to which relative difference two numbers count as the same.
        outputs, gradients: the largest deviation by the name of the input.
    """

    first: str
    second: str
    has_moved: bool
    has_parameters: bool
    rounding: float
    outputs: dict[str, Deviation]
    gradients: dict[str, Deviation]

    @property
    def is_same(self) -> bool:
        """Whether all outputs and gradients agree to rounding."""
        both = [*self.outputs.values(), *self.gradients.values()]
        return all(deviation.relative <= self.rounding for deviation in both)


def compare_functions(
    first: nn.Module, second: nn.Module, width: int, names: tuple[str, str]
) -> FunctionComparison:
    """Compare two norms of one width on every input of `_inputs`."""
    shapes = [{name: p.shape for name, p in norm.named_parameters()} for norm in (first, second)]
    has_moved = shapes[0] == shapes[1]
    has_parameters = bool(shapes[0] or shapes[1])
    prepare: Callable[[nn.Module], nn.Module] = copy_to_float64
    if has_moved:
        prepare = partial(move_parameters, by_name=True)
    weights = normal_input(BATCH, TOKENS, width, seed=1)
    # A norm that computes in fp32 inside is not held to the rounding of float64.
    rounding = max(rounding_of(computing_dtype(norm, width)) for norm in (first, second))
    outputs, gradients = {}, {}
    for name, x in _inputs(width):
        pairs = [output_and_gradient(prepare(norm), x, weights) for norm in (first, second)]
        (output, gradient), (other_output, other_gradient) = pairs
        outputs[name] = _largest_deviation(output, other_output)
        gradients[name] = _largest_deviation(gradient, other_gradient)
    return FunctionComparison(*names, has_moved, has_parameters, rounding, outputs, gradients)


def _inputs(width: int) -> Iterator[tuple[str, Tensor]]:
    """Inputs by name: sizes tell where an eps stands, a shift whether the mean is removed."""
    x = normal_input(BATCH, TOKENS, width)
    yield "N(0, 1)", x
    yield "RMS 1e-3", 1e-3 * x
    yield "RMS 1e3", 1e3 * x
    yield "mean 3", x + 3
    outlier = x.clone()
    outlier[..., 0] = 100
    yield "one feature 100", outlier
    # Every token of another size: a statistic over several tokens shows.
    yield "sizes 0.01 to 100", x * torch.logspace(-2, 2, TOKENS, dtype=x.dtype)[:, None]


def _largest_deviation(first: Tensor, second: Tensor) -> Deviation:
    # ∞ − ∞ is NaN: what is equal is taken out first, then every NaN counts as infinite.
    same = (first == second) | (first.isnan() & second.isnan())
    difference = (first - second).abs().masked_fill(same, 0.0)
    difference = difference.nan_to_num(nan=math.inf, posinf=math.inf)
    flat, width = int(difference.argmax()), first.shape[-1]
    size = float(second[second.isfinite()].square().mean().sqrt())
    largest = float(difference.flatten()[flat])
    return Deviation(
        relative=largest / size if size and 0 < largest < math.inf else largest,
        token=flat // width,
        feature=flat % width,
        first=float(first.flatten()[flat]),
        second=float(second.flatten()[flat]),
    )


def describe_comparison(comparison: FunctionComparison) -> str:
    """One sentence: the same function or not, by how much, and where."""
    rows = [
        (deviation.relative, quantity, name, deviation)
        for quantity, of in (("output", comparison.outputs), ("gradient", comparison.gradients))
        for name, deviation in of.items()
    ]
    relative, quantity, name, deviation = max(rows, key=lambda row: row[0])
    first, second = comparison.first, comparison.second
    start = ""
    if comparison.has_parameters:
        start = (
            " with equal parameters off their start"
            if comparison.has_moved
            else " as they start (their parameters have other names or shapes)"
        )
    if comparison.is_same:
        return (
            f"{first} and {second} are the same function{start}: over {len(comparison.outputs)} "
            f"kinds of input, outputs and gradients differ by at most {format_number(relative)} of "
            f"their RMS, which is rounding."
        )
    return (
        f"{first} and {second} are not the same function{start}: the {quantity} differs most for "
        f"the input {name!r}, by {format_number(relative)} of its RMS, at token {deviation.token}, "
        f"feature {deviation.feature}: {format_number(deviation.first)} against "
        f"{format_number(deviation.second)}."
    )


def print_comparison(console: "Console", comparison: FunctionComparison) -> None:
    """The sentence, over a table of all inputs."""
    from rich import box
    from rich.text import Text

    from normlab.analysis.terminal_tables import FittingTable

    table = FittingTable(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("largest difference over the RMS, for inputs")
    for heading in ("output", "gradient"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, output in comparison.outputs.items():
        cells = (output.relative, comparison.gradients[name].relative)
        texts = ("0" if value == 0 else f"{value:.2g}" for value in cells)
        table.add_row(Text(f"  {name}"), *map(Text, texts))
    console.print(table)
    console.print()
    console.print(describe_comparison(comparison), markup=False, soft_wrap=False)
