"""Measurements on disk: strict JSON, read back as they were, or a sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest

from example_measurements import gradient_vanishing, measurement_record, norm_comparison, precision
from normlab.apps.experiments.gradient_vanishing import GradientVanishing
from normlab.apps.experiments.layernorm_vs_rmsnorm import LayerNormVsRmsNorm
from normlab.apps.experiments.precision import Precision
from normlab.apps.experiments.record import read_record
from normlab.errors import NormlabError


@pytest.mark.parametrize(
    "numbers",
    [gradient_vanishing(), norm_comparison(), precision()],
    ids=["vanishing", "comparison", "precision"],
)
def test_numbers_come_back_as_they_went(
    numbers: GradientVanishing | LayerNormVsRmsNorm | Precision, tmp_path: Path
) -> None:
    found = measurement_record(numbers)
    path = found.write(tmp_path / "new")
    assert path == tmp_path / "new" / f"{found.name}.json"
    assert read_record(path) == found


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-60],
        lambda text: text.replace("0.0197", "0.0297", 1),
        lambda text: text.replace('"schema_version": 1', '"schema_version": 99'),
        lambda text: "[]",
        lambda text: "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
    ids=["cut", "flipped", "newer", "another", "no JSON"],
)
def test_a_damaged_or_newer_file_is_one_sentence(
    damage: Callable[[str], str], tmp_path: Path
) -> None:
    path = measurement_record(gradient_vanishing()).write(tmp_path)
    text = path.read_text()
    assert damage(text) != text
    path.write_text(damage(text))
    with pytest.raises(NormlabError, match=r"gradient_vanishing\.json is damaged"):
        read_record(path)


def test_a_file_that_is_not_there_is_not_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path / "gradient_vanishing.json")
