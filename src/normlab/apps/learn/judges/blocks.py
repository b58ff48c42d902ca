"""Pre-LN and Post-LN stacks of the learner, compared with every wiring that is a known mistake.

The norms are the judge's own: it counts them and their calls. The sublayers are a causal mixing of
tokens for attention and a pointwise network, both nonlinear, with fixed weights.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normlab.apps.learn.judges.mistake import (
    MistakeError,
    build_module,
    call_solution,
    check_result,
    format_percent,
    get_member,
    is_same,
    name_mistake,
    normal_tensor,
    relative_difference,
)

WIDTH, BLOCKS = 8, 2
_EPS = 1e-5

_EXTRA_FINAL_NORM = (
    "there is a norm after the last block; the stream of Post-LN is normalized already"
)

Function = Callable[[Tensor], Tensor]


class CountedNorm(nn.Module):
    """RMSNorm without a gain that counts its calls."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width)."""
        self.calls += 1
        return normalize(x)


def normalize(x: Tensor) -> Tensor:
    """RMSNorm without a gain: x / √(mean x² + ε), (…, width) → (…, width)."""
    return x / (x.square().mean(-1, keepdim=True) + _EPS).sqrt()


class CausalMixing(nn.Module):
    """In place of attention: tanh of a linear map of the mean over this token and the earlier."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal_tensor(WIDTH, WIDTH, seed=seed))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) → (batch, time, width)."""
        # (time, 1): how many tokens each mean is over.
        counts = torch.arange(1, x.shape[-2] + 1, dtype=x.dtype)[:, None]
        return torch.tanh(x.cumsum(-2) / counts @ self.weight) + 0.3


class PointwiseNetwork(nn.Module):
    """In place of the feed-forward network: tanh of a linear map of the token."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal_tensor(WIDTH, WIDTH, seed=seed))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width)."""
        return torch.tanh(x @ self.weight) - 0.2


@dataclass(frozen=True)
class BlocksExercise:
    """A stack that a learner writes as a class.

    Attributes:
        name: of the class.
        wiring: the right wiring, a key of `_WIRINGS`.
        final: whether a norm follows the last block.
    """

    name: str
    wiring: str
    final: bool

    @property
    def norms(self) -> int:
        """How many norms the stack has."""
        return 2 * BLOCKS + self.final


_PRE = BlocksExercise("PreLNStack", "pre", True)
_POST = BlocksExercise("PostLNStack", "post", False)


# By wiring: what it is as a mistake, in words, and one sublayer of it, of x and the block's input.
_WIRINGS: dict[str, tuple[str, Callable[[Tensor, Function, Tensor], Tensor]]] = {
    "pre": (
        "each sublayer computes x + f(N(x)), which is Pre-LN",
        lambda x, f, entered: x + f(normalize(x)),
    ),
    "post": (
        "the norm stands on the residual path: each sublayer computes N(x + f(x)), which is "
        "Post-LN",
        lambda x, f, entered: normalize(x + f(x)),
    ),
    "residual-around-norm": (
        "the residual connection starts after the norm: each sublayer computes N(x) + f(N(x)), so "
        "the norm stands on the residual path",
        lambda x, f, entered: normalize(x) + f(normalize(x)),
    ),
    "norm-on-stream": (
        "the norm stands on the residual path alone, and the sublayer reads what is not "
        "normalized: each sublayer computes N(x) + f(x)",
        lambda x, f, entered: normalize(x) + f(x),
    ),
    "residual-missing": (
        "the residual connection is missing: each sublayer computes f(N(x))",
        lambda x, f, entered: f(normalize(x)),
    ),
    "residual-missing-post": (
        "the residual connection is missing: each sublayer computes N(f(x))",
        lambda x, f, entered: normalize(f(x)),
    ),
    "output-norm": (
        "the norm stands after the sublayer, before the addition: x + N(f(x))",
        lambda x, f, entered: x + normalize(f(x)),
    ),
    "sandwich": (
        "there is a norm before and after each sublayer: x + N(f(N(x))), which is the sandwich "
        "placement",
        lambda x, f, entered: x + normalize(f(normalize(x))),
    ),
    "pre-and-post": (
        "there is a norm before each sublayer and another on the residual path: N(x + f(N(x)))",
        lambda x, f, entered: normalize(x + f(normalize(x))),
    ),
    "norm-missing": ("the sublayers have no norm: x + f(x)", lambda x, f, entered: x + f(x)),
    "residual-from-block": (
        "the feed-forward network's output is added to the input of the block; it must be added "
        "to the stream after attention",
        lambda x, f, entered: entered + f(normalize(x)),
    ),
    "parallel": (
        "the feed-forward network reads the input of the block; it must read the stream after "
        "attention",
        lambda x, f, entered: x + f(normalize(entered)),
    ),
}


def judge_preln_block(module: Any) -> None:
    """Pre-LN: x + f(N(x)) for both sublayers of each block, and a final norm (2002.04745)."""
    judge_stack(_PRE, module)


def judge_postln_block(module: Any) -> None:
    """Post-LN: N(x + f(x)) for both sublayers of each block, and no final norm (1706.03762)."""
    judge_stack(_POST, module)


def judge_stack(exercise: BlocksExercise, module: Any) -> None:
    """Measure the learner's stack: its output, its norms, its parameters.

    Raises:
        MistakeError: the first mistake.
    """
    build = get_member(module, exercise.name, "class")
    norms: list[CountedNorm] = []

    def build_norm(width: int) -> CountedNorm:
        norms.append(CountedNorm(width))
        return norms[-1]

    # Other weights in every sublayer, so that blocks or sublayers that are exchanged are seen.
    blocks = [(CausalMixing(50 + 2 * l), PointwiseNetwork(51 + 2 * l)) for l in range(BLOCKS)]
    stack = build_module(exercise.name, build, WIDTH, blocks, build_norm)
    x = 3 * normal_tensor(2, 5, WIDTH, seed=41)
    call = f"{exercise.name} of an input of shape {tuple(x.shape)}"
    with torch.no_grad():
        y = call_solution(call, stack, x, unchanged={"its input": x})
        check_result(call, y, x.shape, torch.float64)
        right = compute_stack(exercise.wiring, exercise.final, blocks, x)
        if not is_same(y, right):
            _raise_wiring_mistake(exercise, blocks, x, y, right)
    # A copy of a norm is a norm of its own; one that is neither called nor kept does no harm.
    kept = [module for module in stack.modules() if isinstance(module, CountedNorm)]
    copies = [norm for norm in kept if norm not in norms]
    _check_norms(exercise, [norm for norm in norms + copies if norm.calls or norm in kept])
    _check_registered(exercise, stack, blocks)


def compute_stack(
    wiring: str, final: bool, blocks: Sequence[tuple[nn.Module, nn.Module]], x: Tensor
) -> Tensor:
    """(batch, time, width) → the same shape, by one wiring of both sublayers."""
    first, sublayer = _WIRINGS["pre"][1], _WIRINGS[wiring][1]
    for block in blocks:
        entered = x
        for index, f in enumerate(block):
            # The first sublayer of a block reads its input by any wiring.
            is_first = index == 0 and wiring in ("residual-from-block", "parallel")
            x = (first if is_first else sublayer)(x, f, entered)
    return normalize(x) if final else x


def _raise_wiring_mistake(
    exercise: BlocksExercise,
    blocks: Sequence[tuple[nn.Module, nn.Module]],
    x: Tensor,
    y: Tensor,
    right: Tensor,
) -> None:
    sentence = name_mistake(y, _wiring_mistakes(exercise, blocks, x))
    share = format_percent(relative_difference(y, right))
    raise MistakeError(
        f"{sentence}. The output differs by {share}."
        if sentence
        else f"the output differs from that of {exercise.name} by {share}, and is that of no "
        f"wiring that is known here."
    )


def _wiring_mistakes(
    exercise: BlocksExercise, blocks: Sequence[tuple[nn.Module, nn.Module]], x: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """Sentences about stacks that are wrong, and what each computes."""
    wiring, final = exercise.wiring, exercise.final
    other_final = "the final norm after the last block is missing" if final else _EXTRA_FINAL_NORM
    # First, because the loop below has this stack too, and would call its right wiring the mistake.
    yield other_final, compute_stack(wiring, not final, blocks, x)
    for has_final in (final, not final):
        for key, (sentence, _) in _WIRINGS.items():
            addition = "" if has_final == final else f"; and {other_final}"
            yield sentence + addition, compute_stack(key, has_final, blocks, x)
        yield (
            "the feed-forward network comes before attention; attention comes first",
            compute_stack(wiring, has_final, [block[::-1] for block in blocks], x),
        )
    yield (
        "there is a norm before the first block; the first block gets the input as it is",
        compute_stack(wiring, final, blocks, normalize(x)),
    )
    yield (
        f"only the first of {BLOCKS} blocks is applied",
        compute_stack(wiring, final, blocks[:1], x),
    )


def _check_norms(exercise: BlocksExercise, norms: Sequence[CountedNorm]) -> None:
    """Refuse norms that are shared, unused, or of another width."""
    if any(norm.width != WIDTH for norm in norms):
        raise MistakeError(f"a norm has another width than the stream, {WIDTH}.")
    called = sum(norm.calls > 0 for norm in norms)
    if not exercise.final and called > exercise.norms:
        # The norm of what is normalized already is the same again: only the count shows it.
        raise MistakeError(f"{_EXTRA_FINAL_NORM}.")
    if len(norms) != exercise.norms or any(norm.calls != 1 for norm in norms):
        final = " and a final one" if exercise.final else ""
        # By their number in the order of building.
        calls = [
            f"norm {number} is called {norm.calls} times"
            for number, norm in enumerate(norms, 1)
            if norm.calls > 1
        ]
        never = [str(number) for number, norm in enumerate(norms, 1) if not norm.calls]
        if never:
            calls.append(f"never called: norm{'s' * (len(never) > 1)} {', '.join(never)}")
        most = max((norm.calls for norm in norms), default=0)
        shared = f"one norm object is shared by {most} places" if most > 1 else ""
        raise MistakeError(
            f"the output is right, but {shared or f'there are {len(norms)} norms'}. Of "
            f"{len(norms)} norms that were built with build_norm, counted from 1 as they are "
            f"built, {'; '.join(calls) or 'each is called once'}. {BLOCKS} blocks have two norms "
            f"each{final}, {exercise.norms} in all, each with a gain of its own and called once: "
            f"call build_norm once for each place."
        )


def _check_registered(
    exercise: BlocksExercise, stack: nn.Module, blocks: Sequence[tuple[nn.Module, nn.Module]]
) -> None:
    """Refuse sublayers and norms that the stack's parameters do not include."""
    modules = set(stack.modules())
    norms = sum(isinstance(module, CountedNorm) for module in modules)
    sublayers = [sublayer for block in blocks for sublayer in block]
    if norms < exercise.norms or any(sublayer not in modules for sublayer in sublayers):
        raise MistakeError(
            "some sublayers or norms are no submodules, so the optimizer would not train them; "
            "keep modules in attributes or in an nn.ModuleList, not in a plain list."
        )
