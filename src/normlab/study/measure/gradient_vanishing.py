"""`gradient_vanishing`: what to measure for a budget, and how many steps that is."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from normlab.archive.measured import Vanishing
from normlab.study.measure.request import Request

TAKES = ("norm", "norm.", "placement", "model.width", "model.depth", "model.heads")

# The deep stack has so many times the layers: what is a floor is the same there.
DEEPER = 10
_GPT2 = 0.02, "1/sqrt(2*L)"


@dataclass(frozen=True)
class Sizes:
    """How much is measured: layers, and numbers of seeds and of inputs."""

    depth: int
    widths: tuple[int, ...]
    seeds: int
    inputs: int
    other_seeds: int  # of other widths, of the deep stack
    transformer_seeds: int


SIZES = {
    "quick": Sizes(8, (512,), 60, 128, 6, 2),
    "standard": Sizes(16, (512, 128, 2048), 200, 128, 20, 5),
    "full": Sizes(32, (512, 128, 2048), 400, 128, 40, 10),
}


class Measurement:
    """One command's measurement: its settings are known before torch is imported."""

    def __init__(self, request: Request) -> None:
        budget = SIZES[request.budget]
        widths = request.whole_numbers("model.width", budget.widths)
        why = "every layer up to the depth is measured anyway"
        depth = request.one("model.depth", budget.depth, why)
        self.sizes = Sizes(**{**asdict(budget), "widths": tuple(widths), "depth": depth})
        self.seed = request.seed
        shape = {"model__width": widths[0], "model__depth": depth, "seed": self.seed}
        self.specs = list(request.specs(("norm", "placement"), **shape))
        self.norms = {
            spec.choices["norm"]: spec.plain["norm"]
            for spec in request.specs(("norm",), placement="pre", **shape)
        }

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the numbers, as JSON holds it."""
        return {
            **asdict(self.sizes),
            "widths": list(self.sizes.widths),
            "deep": DEEPER * self.sizes.depth,
            "seed": self.seed,
            "norms": self.norms,
            "networks": {spec.name.rpartition("-lr")[0]: spec.id for spec in self.specs},
        }

    @property
    def steps(self) -> int:
        """How often `measure` tells that it goes on."""
        sizes = self.sizes
        few = len(sizes.widths) * sizes.other_seeds  # of the other widths, and of the deep stack
        return sizes.seeds + few + 2 * len(self.specs) * sizes.transformer_seeds

    def measure(self, threads: int, each: Callable[[str], None]) -> Vanishing:
        """Measure; `each` is called with a few words for every step.

        Raises:
            ConfigError: a norm cannot be built, or cannot stand in a causal model.
        """
        from normlab.study.measure import stack
        from normlab.training.build import check_networks

        check_networks(self.specs)
        sizes = self.sizes
        width, *others = sizes.widths
        normed = {name: config for name, config in self.norms.items() if name != "none"}
        variants = [*stack.BARE, *stack.norms_variants(normed)]
        seeds, few = (
            range(self.seed, self.seed + count) for count in (sizes.seeds, sizes.other_seeds)
        )
        stacks = stack.profiles(variants, width, sizes.depth, seeds, sizes.inputs, each)
        for other in others:
            stacks += stack.profiles([stack.PLAIN], other, sizes.depth, few, sizes.inputs, each)
        (deep,) = stack.profiles(
            [stack.PLAIN], width, DEEPER * sizes.depth, few, sizes.inputs, each, backward=False
        )
        return Vanishing(tuple(stacks), deep, tuple(self._transformers(each)))

    def _transformers(self, each: Callable[[str], None]) -> list[Any]:
        from normlab.study.measure import transformer

        seeds = range(self.seed, self.seed + self.sizes.transformer_seeds)
        width = self.sizes.widths[0]
        inits = {"1/√width": (width**-0.5, 1.0), "GPT-2": _GPT2}
        return [
            profile
            for name, (std, output) in inits.items()
            for profile in transformer.profiles(self.specs, name, std, output, seeds, each)
        ]
