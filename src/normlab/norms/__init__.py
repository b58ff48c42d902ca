"""What normalizes: modules that take the width. `normlab.norms.X` is the path in configurations."""

from normlab.norms.build import norm_factory
from normlab.norms.formula import Formula
from normlab.norms.norms import (
    DynamicTanh,
    GradientPreservingScale,
    GroupNorm,
    LayerNorm,
    PartialRMSNorm,
    RMSNorm,
    ScaleNorm,
    UnitOffsetRMSNorm,
    WindowNorm,
)

__all__ = [
    "DynamicTanh",
    "Formula",
    "GradientPreservingScale",
    "GroupNorm",
    "LayerNorm",
    "PartialRMSNorm",
    "RMSNorm",
    "ScaleNorm",
    "UnitOffsetRMSNorm",
    "WindowNorm",
    "norm_factory",
]
