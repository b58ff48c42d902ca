"""Post-LN: the norm stands after each addition, on the stream."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class PostLNStack(nn.Module):
    """Blocks of x ← N(x + f(x))."""

    def __init__(
        self,
        width: int,
        blocks: Sequence[tuple[nn.Module, nn.Module]],
        build_norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.sublayers = nn.ModuleList(sublayer for block in blocks for sublayer in block)
        self.norms = nn.ModuleList(build_norm(width) for _ in self.sublayers)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) → (batch, time, width)."""
        for norm, sublayer in zip(self.norms, self.sublayers, strict=True):
            x = norm(x + sublayer(x))
        return x
