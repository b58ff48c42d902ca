"""`layernorm_vs_rmsnorm`: what to measure for a budget, and how many steps that is."""

from collections.abc import Callable
from typing import Any

from normlab.apps.experiments.record import Comparison
from normlab.apps.experiments.request import Request

TAKES = ("model.width",)


# Rounds of timing; the budgets' widths are in conf/experiment/layernorm_vs_rmsnorm.yaml.
ROUNDS = {"quick": 15, "standard": 60, "full": 300}
TOKENS = 1024


class Measurement:
    """One command's measurement: its settings are known before torch is imported."""

    def __init__(self, request: Request) -> None:
        widths = request.whole_numbers("model.width", [512], 2)
        self.shapes = [(TOKENS, width) for width in widths]
        self.width = widths[-1] if len(widths) < 3 else widths[1]
        self.seed = request.one("seed", 0, "one draw of inputs is timed", 0)
        self.rounds, self.threads = ROUNDS[request.budget], request.threads

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the numbers, as JSON holds it."""
        return {
            "rounds": self.rounds,
            "shapes": [list(shape) for shape in self.shapes],
            "width": self.width,
            "seeds": [self.seed],
            "threads": self.threads,
        }

    @property
    def steps(self) -> int:
        """How often `measure` tells that it goes on."""
        return 2 + len(self.shapes) * (1 + self.rounds)

    def measure(self, threads: int, each: Callable[[str], None]) -> Comparison:
        """Measure; `each` is called with a few words for every step."""
        from normlab.apps.experiments import distribution, speed

        each("distributions")
        inputs = distribution.shown(self.width, TOKENS, self.seed)
        each("invariances")
        invariances = distribution.invariances_of(self.width)
        times, not_timed = speed.times(self.shapes, self.rounds, self.seed, each)
        return Comparison(
            inputs=tuple(inputs),
            invariances=invariances,
            width=self.width,
            parameters=distribution.parameters(self.width),
            times=tuple(times),
            not_timed=not_timed,
        )
