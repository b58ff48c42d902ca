"""`layernorm_vs_rmsnorm`: what to measure for a budget, and how many steps that is."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from normlab.archive.measured import Comparison
from normlab.study.measure.request import Request

TAKES = ("model.width",)


@dataclass(frozen=True)
class Sizes:
    """Rounds of timing, (tokens, width) of each, and tokens of the distributions."""

    rounds: int
    shapes: tuple[tuple[int, int], ...]
    tokens: int


# Tokens so that the tensors are from 0.4 to 32 MB: in the cache, and far out of it.
SIZES = {
    "quick": Sizes(15, ((768, 128), (1024, 512)), 512),
    "standard": Sizes(60, ((768, 128), (1024, 512), (4096, 384), (8192, 1024)), 2048),
    "full": Sizes(300, ((768, 128), (1024, 512), (4096, 384), (8192, 1024), (4096, 4096)), 2048),
}
_TOKENS = 1024  # where the user gives the width


class Measurement:
    """One command's measurement: its settings are known before torch is imported."""

    def __init__(self, request: Request) -> None:
        budget = SIZES[request.budget]
        widths = request.whole_numbers("model.width", [], 2)
        shapes = tuple((_TOKENS, width) for width in widths) or budget.shapes
        self.sizes = Sizes(**{**asdict(budget), "shapes": shapes})
        self.width = max(width for _, width in shapes[:2])
        self.seed = request.seed
        self.threads = request.threads

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the numbers, as JSON holds it."""
        shapes = [list(shape) for shape in self.sizes.shapes]
        more = {"width": self.width, "seed": self.seed, "threads": self.threads}
        return {**asdict(self.sizes), "shapes": shapes, **more}

    @property
    def steps(self) -> int:
        """How often `measure` tells that it goes on."""
        return 2 + len(self.sizes.shapes) * (1 + self.sizes.rounds)

    def measure(self, threads: int, each: Callable[[str], None]) -> Comparison:
        """Measure; `each` is called with a few words for every step."""
        from normlab.study.measure import distribution, speed

        each("distributions")
        inputs = distribution.shown(self.width, self.sizes.tokens, self.seed)
        each("invariances")
        invariances = distribution.invariances_of(self.width)
        times, not_timed = speed.times(self.sizes.shapes, self.sizes.rounds, self.seed, each)
        return Comparison(
            inputs=tuple(inputs),
            invariances=invariances,
            width=self.width,
            parameters=distribution.parameters(self.width),
            times=tuple(times),
            not_timed=not_timed,
        )
