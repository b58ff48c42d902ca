"""How far the output moves when every weight moves a little, over depth (2004.08249)."""

import math
from collections import defaultdict
from dataclasses import replace

from normlab.apps.claims.arms import slope
from normlab.apps.claims.measurement import Measurement, Series, Size
from normlab.apps.claims.studies import composed
from normlab.config.run_spec import RunSpec

_DEPTHS = (2, 4, 8, 16)
_DELTA = 1e-3  # so small that the change is linear in it
_SEQUENCES = 8


def _measure(size: Size) -> Series:
    """Slope of ln E‖Δ output‖² on ln L, for each seed: 1 is O(L)."""
    series: Series = defaultdict(list)
    for placement in ("pre", "post"):
        spec = composed(["experiment=theory_init", f"placement={placement}"])
        for seed in range(size.seeds):
            points = [(math.log(depth), _change(spec, depth, seed)) for depth in _DEPTHS]
            series[placement].append(slope(points))
    return dict(series)


def _change(spec: RunSpec, depth: int, seed: int) -> float:
    """Ln of the mean squared change of a token's logits."""
    import torch

    from normlab.training.build import build_model
    from normlab.training.probes import output_change

    vocabulary = int(spec.plain["data"]["vocabulary"])
    shape = replace(spec.config.model, depth=depth)
    model = build_model(replace(spec.config, model=shape, seed=seed), vocabulary)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(vocabulary, (_SEQUENCES, shape.context), generator=generator)
    return math.log(output_change(model, tokens, _DELTA, seed))


OUTPUT_CHANGE = Measurement(
    _measure,
    f"the theory's initialisation with LayerNorm, {_DEPTHS[0]} to {_DEPTHS[-1]} blocks; every "
    f"weight matrix moved by {_DELTA:g} of its RMS, at random",
)
