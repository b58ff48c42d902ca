"""`gradient_vanishing`: what to measure, and how many steps that is.

The budgets are those of conf/experiment/gradient_vanishing.yaml.
"""

import math
from collections.abc import Callable
from typing import Any

from normlab.apps.experiments.record import Profile, Vanishing
from normlab.apps.experiments.request import Request

TAKES = ("norm", "norm.", "placement", "model.width", "model.depth", "model.heads")

# The deep stack has so many times the layers: what is a floor is the same there.
DEEPER = 10
INPUTS = 128
# One in so many seeds measures the deep stack and other widths, and the Transformers.
_ONE_IN_FEW, _ONE_IN_FEWER = 10, 30
_GPT2 = "GPT-2", 0.02, "1/sqrt(2*L)"


class Measurement:
    """One command's measurement: its settings are known before torch is imported."""

    def __init__(self, request: Request) -> None:
        self.widths = request.whole_numbers("model.width", [512])
        why = "every layer up to the depth is measured anyway"
        self.depth = request.one("model.depth", 8, why)
        self.seeds = request.whole_numbers("seed", [0], 0)
        self.few = self.seeds[: math.ceil(len(self.seeds) / _ONE_IN_FEW)]
        self.fewer = self.seeds[: math.ceil(len(self.seeds) / _ONE_IN_FEWER)]
        shape = {"model__width": self.widths[0], "model__depth": self.depth, "seed": 0}
        self.specs = list(request.specs(("norm", "placement"), **shape))
        self.norms = {
            spec.choices["norm"]: spec.plain["norm"]
            for spec in request.specs(("norm",), placement="pre", **shape)
        }

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the numbers, as JSON holds it."""
        return {
            "widths": self.widths,
            "depth": self.depth,
            "deep": DEEPER * self.depth,
            "inputs": INPUTS,
            "seeds": self.seeds,
            "norms": self.norms,
            "networks": {spec.name.rpartition("-lr")[0]: spec.id for spec in self.specs},
        }

    @property
    def steps(self) -> int:
        """How often `measure` tells that it goes on."""
        few = len(self.widths) * len(self.few)  # of the other widths, and of the deep stack
        return len(self.seeds) + few + 2 * len(self.specs) * len(self.fewer)

    def measure(self, threads: int, each: Callable[[str], None]) -> Vanishing:
        """Measure; `each` is called with a few words for every step.

        Raises:
            ConfigError: a norm cannot be built, or cannot stand in a causal model.
        """
        from normlab.apps.experiments import stack
        from normlab.training.build import check_networks

        check_networks(self.specs)
        width, *others = self.widths
        normed = {name: config for name, config in self.norms.items() if name != "none"}
        variants = [*stack.BARE, *stack.norms_variants(normed)]
        stacks = stack.profiles(variants, width, self.depth, self.seeds, INPUTS, each)
        for other in others:
            stacks += stack.profiles([stack.PLAIN], other, self.depth, self.few, INPUTS, each)
        (deep,) = stack.profiles(
            [stack.PLAIN], width, DEEPER * self.depth, self.few, INPUTS, each, backward=False
        )
        return Vanishing(tuple(stacks), deep, tuple(self._transformers(each)))

    def _transformers(self, each: Callable[[str], None]) -> list[Profile]:
        from normlab.apps.experiments import transformer

        inits = [("1/√width", self.widths[0] ** -0.5, 1.0), _GPT2]
        return [
            profile
            for init in inits
            for profile in transformer.profiles(self.specs, *init, self.fewer, each)
        ]
