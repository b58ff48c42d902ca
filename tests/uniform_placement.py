"""One wiring for every sublayer, for tests of the model without a configuration."""

from collections.abc import Callable
from typing import Any

from torch import nn

from normlab.config.placement import Scale
from normlab.model.placement import Placement, Wiring

Norm = Callable[[int], nn.Module] | None


def make_wiring(qk: Norm = None, **sites: Any) -> Wiring:
    """A wiring whose scales may be plain numbers."""
    scales = {
        name: Scale(float(value)) if isinstance(value, int | float) else value
        for name, value in sites.items()
    }
    return Wiring(**{"q": qk, "k": qk, **scales})


def uniform_placement(
    embedding: Norm = None, final: Norm = None, output_factor: float | None = None, **sites: Any
) -> Placement:
    """The same wiring in every sublayer of up to 64 blocks."""
    wiring = make_wiring(**sites)
    return Placement([(wiring, wiring)] * 64, embedding, final, output_factor)
