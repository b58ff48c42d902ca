"""A card that nobody measured, for tests of what is done with cards."""

import math

from normlab.apps.card.record import (
    Card,
    Curves,
    Extreme,
    Invariance,
    Output,
    Parameter,
    Ratio,
    Rounding,
    Spectrum,
    Speed,
)


def make_example_card(name: str, *, time: float = 1.5, width: int = 8) -> Card:
    """The card of a tanh that would not let NaN through."""
    sweep = tuple(float(x) for x in range(-6, 7))
    sizes = tuple(10.0**k for k in range(-6, 7))
    return Card(
        name=name,
        config={"_target_": "mine.Norm", "eps": 1e-5},
        width=width,
        parameters=(Parameter("gain", (width,)), Parameter("alpha", ())),
        computes_in="float64",
        outputs=(Output("N(0,1)", -0.01, 0.63, None),),
        invariances=(
            Invariance("input scale", "N(cx) = N(x), c > 0", "no", 1.25),
            Invariance("input shift", "N(x + c1) = N(x)", "to eps", 3.4e-4),
            Invariance("odd", "N(−x) = −N(x)", "yes", 0.0),
        ),
        spectrum=Spectrum(width, (1.0,) * (width - 1) + (1e-17,), width - 1, 1, 1.0),
        extremes=(
            Extreme("zeros", "finite", 0.0, "finite", 316.2),
            Extreme("a NaN", "NaN", None, "inf", None, "token"),
        ),
        rounding=(
            Rounding("bf16", 0.21, 0.5, 2.5, 105.0),
            Rounding("fp16", problem="no kernel"),
        ),
        gradcheck="passes",
        second_gradcheck="refuses",
        speed=Speed(
            (8, 256, width), 1, 20, (0.5, 1.5), Ratio(time, 0.9 * time, 1.2 * time, 0.05),
            Ratio(2 * time, 1.9 * time, 2.2 * time, 0.12),
        ),
        curves=Curves(
            sweep,
            tuple(math.tanh(x) for x in sweep),
            (None, *(math.cosh(x) ** -2 for x in sweep[1:])),
            sizes,
            (*(min(x, 1.0) for x in sizes[:-1]), None),
        ),
    )  # fmt: skip
