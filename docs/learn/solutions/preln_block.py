"""Pre-LN: the stream itself meets no norm before the final one."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class PreLNStack(nn.Module):
    """Blocks of x ← x + f(N(x)), then a final norm."""

    def __init__(
        self,
        width: int,
        blocks: Sequence[tuple[nn.Module, nn.Module]],
        build_norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.sublayers = nn.ModuleList(sublayer for block in blocks for sublayer in block)
        self.norms = nn.ModuleList(build_norm(width) for _ in self.sublayers)
        self.final_norm = build_norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) → (batch, time, width)."""
        for norm, sublayer in zip(self.norms, self.sublayers, strict=True):
            x = x + sublayer(norm(x))
        return self.final_norm(x)
