"""The page's numbers of stacks are those of the models: a sample is measured again."""

import json
import math

import pytest

from stack_data import (
    DEPTHS,
    INIT_STDS,
    NO_NORM,
    PLACEMENTS,
    SCRIPT,
    measure_stacks,
)

SOURCE = SCRIPT.read_text(encoding="utf-8").partition("const STACKS = ")[2]
DATA = json.loads(SOURCE.rstrip().removesuffix(";"))


def test_there_is_one_model_for_every_position_of_the_controls() -> None:
    assert DATA["axes"] == {
        "placements": [*PLACEMENTS, NO_NORM],
        "depths": list(DEPTHS),
        "stds": list(INIT_STDS),
    }
    keys = [(model["placement"], model["depth"], model["std"]) for model in DATA["models"]]
    assert len(set(keys)) == len(keys) == 6 * len(DEPTHS) * len(INIT_STDS)
    for model in DATA["models"]:
        assert len(model["stream"]) == len(model["gradient"]) == model["depth"]


@pytest.mark.parametrize("placement", ["post", "parallel", NO_NORM])
def test_a_model_that_is_measured_again_gives_the_same(placement: str) -> None:
    (again,) = measure_stacks((placement,), (4,), (0.08,))
    (stored,) = [
        model
        for model in DATA["models"]
        if (model["placement"], model["depth"], model["std"]) == (placement, 4, 0.08)
    ]
    assert again["loss"] == pytest.approx(stored["loss"], rel=2e-3)
    assert again["stream"] == pytest.approx(stored["stream"], rel=2e-3)
    assert again["gradient"] == pytest.approx(stored["gradient"], rel=2e-3)


def test_post_ln_holds_the_stream_at_one_and_pre_ln_does_not() -> None:
    for model in DATA["models"]:
        if model["placement"] == "post":
            assert all(math.isclose(value, 1, rel_tol=1e-3) for value in model["stream"])
        if model["placement"] == "pre" and model["std"] > 0.02:
            assert model["stream"][-1] > model["stream"][0]
