"""Residual sublayers with two streams: one that is normalized as it goes, one that is not."""

from torch import Tensor, nn

from normlab.errors import ConfigError
from normlab.model.placement import ZERO_SCALE, Residual, Wiring

Streams = tuple[Tensor, Tensor]


class TwoStream(Residual):
    """u = branch·output(f(x + input(y))); x ← stream(skip·x + u); y ← y + u; out x + final(y).

    Both streams begin as the embedding. Without a norm at `input`, f reads x alone: with one at
    `stream` that is ResiDual (2304.14802); with both it is SiameseNorm (2602.08064).
    """

    def __init__(self, sublayer: nn.Module, wiring: Wiring, width: int) -> None:
        if wiring.reads != "stream" or wiring.block_skip != ZERO_SCALE:
            raise ConfigError(
                "placement.reads=block and placement.block_skip need a placement of one stream; "
                "leave them out with a _target_ of two."
            )
        super().__init__(sublayer, wiring, width)
        self.reads_both = wiring.input is not None

    def forward(self, streams: Streams, entered: Streams) -> Streams:
        """Two streams (batch, time, width) → two streams after the sublayer."""
        x, y = streams
        read = self.input_scale(x + self.input(y) if self.reads_both else x)
        update = self.branch(self.output(self.sublayer(read)))
        return self.stream(self.skip(x) + update), y + update

    @staticmethod
    def enter(x: Tensor) -> Streams:
        """Embedding (batch, time, width) → both streams."""
        return x, x

    @staticmethod
    def leave(stream: Streams, final: nn.Module) -> Tensor:
        """Both streams → what the head reads (batch, time, width)."""
        x, y = stream
        return x + final(y)  # type: ignore[no-any-return]
