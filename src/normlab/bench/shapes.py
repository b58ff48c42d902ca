"""The sizes that are measured, and the matrix products that a training step of each must do."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from normlab.errors import ConfigError


@dataclass(frozen=True)
class Shape:
    """A decoder-only Transformer with a feed-forward network four times as wide, and its batch."""

    name: str
    depth: int
    heads: int
    width: int
    context: int
    batch: int
    vocabulary: int = 65
    steps: int = 1  # in a block

    @property
    def tokens(self) -> int:
        """Of a batch."""
        return self.batch * self.context

    @property
    def parameters(self) -> int:
        """Of the matrices and embeddings, with a tied head and without biases and norms."""
        return 12 * self.depth * self.width**2 + (self.vocabulary + self.context) * self.width

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    def overrides(self) -> list[str]:
        """Of normlab's configuration: this model, on tokens that cost nothing to draw."""
        return [
            "model=nanogpt",
            "trainer.device=cpu",
            *(f"model.{key}={getattr(self, key)}" for key in ("depth", "heads", "width")),
            f"model.context={self.context}",
            "data=synthetic",
            "data.source=random",
            f"data.vocabulary={self.vocabulary}",
            f"data.batch_size={self.batch}",
            "data.validation_windows=16",
        ]

    def products(self) -> list["Product"]:
        """Every matrix product of a step forward; attention over the full square."""
        attention = self.batch * self.heads
        head = self.width // self.heads
        return [
            Product(self.depth, 1, self.tokens, self.width, 3 * self.width),
            Product(self.depth, attention, self.context, head, self.context),
            Product(self.depth, attention, self.context, self.context, head),
            Product(self.depth, 1, self.tokens, self.width, self.width),
            Product(self.depth, 1, self.tokens, self.width, 4 * self.width),
            Product(self.depth, 1, self.tokens, 4 * self.width, self.width),
            Product(1, 1, self.tokens, self.width, self.vocabulary),
        ]


@dataclass(frozen=True)
class Product:
    """(group, rows, inner) @ (group, inner, columns), so many times in a step."""

    times: int
    group: int
    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        """Of all of them, forward and backward, which is two more products of the same size."""
        return 3 * 2 * self.times * self.group * self.rows * self.inner * self.columns


NANO = Shape("nano", depth=4, heads=4, width=128, context=64, batch=12, steps=20)
RECIPE = Shape("recipe", depth=6, heads=6, width=384, context=256, batch=16, steps=1)
# So small that everything can be tried in seconds.
TINY = Shape("tiny", depth=2, heads=2, width=32, context=16, batch=4, steps=4)
SHAPES = {shape.name: shape for shape in (NANO, RECIPE, TINY)}


def chosen(given: Sequence[str], known: Sequence[str], usual: Sequence[str]) -> list[str]:
    """The names that were given, or the usual ones.

    Raises:
        ConfigError: one is not known.
    """
    for name in given:
        if name not in known:
            raise ConfigError(
                f"--shapes {name} is not known to this suite; choose from {', '.join(known)}."
            )
    return list(given or usual)
