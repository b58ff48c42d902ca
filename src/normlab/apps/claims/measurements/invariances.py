"""By how much equations of RMSNorm and LayerNorm fail when their eps is zero (1910.07467)."""

from normlab.apps.claims.measurement import Measurement, Series, Size

_WIDTHS = (32, 48, 64, 96, 128)
_LARGE = 1e9
_TARGETS = {"rmsnorm": "normlab.norms.RMSNorm", "layernorm": "normlab.norms.LayerNorm"}


def _measure(size: Size) -> Series:
    """`rmsnorm weight scale` and so on: the largest difference relative to the output, by width."""
    from normlab.apps.card.invariances import measure_invariances
    from normlab.norms import norm_factory

    series: Series = {}
    for name, target in _TARGETS.items():
        for width in _WIDTHS:
            norm = norm_factory({"_target_": target, "eps": 0.0})(width)
            for one in measure_invariances(norm, width):
                # An equation whose sides are not finite fails by as much as one likes.
                deviation = _LARGE if one.deviation is None else one.deviation
                series.setdefault(f"{name} {one.name}", []).append(deviation)
    return series


INVARIANCES = Measurement(
    _measure,
    f"normlab's norms at widths {', '.join(map(str, _WIDTHS))}, eps 0, gains moved off 1, random "
    "tokens",
    over="width",
)
