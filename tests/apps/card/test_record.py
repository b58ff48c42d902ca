"""A card on disk: strict JSON, read back as it was."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from example_card import make_example_card
from normlab.apps.card.record import Rounding, read_cards, write_cards
from normlab.archive.versioned_json import finite_or_none
from normlab.errors import NormlabError


def no_constant(text: str) -> NoReturn:
    raise AssertionError(f"{text} is no JSON")


def test_cards_come_back_as_they_went(tmp_path: Path) -> None:
    cards = [
        make_example_card("rmsnorm"),
        replace(make_example_card("odd"), rounding=(Rounding("bf16", problem="x"),)),
    ]
    path = write_cards(tmp_path / "new", cards, {"torch": "2"})
    assert path == tmp_path / "new" / "card.json"
    assert read_cards(path) == cards
    raw = json.loads(path.read_text(), parse_constant=no_constant)
    assert raw["versions"] == {"torch": "2"}
    assert [card["name"] for card in raw["cards"]] == ["rmsnorm", "odd"]
    assert raw["cards"][1]["rounding"][0]["output_max"] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_none(value: float) -> None:
    assert finite_or_none(value) is None
    assert finite_or_none(0.5) == 0.5


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-40], lambda text: text.replace('"width"', '"wide"'),
               lambda text: text.replace('"schema_version": 1', '"schema_version": 99')]
)  # fmt: skip
def test_a_damaged_or_newer_file_is_one_sentence(tmp_path: Path, damage) -> None:
    path = write_cards(tmp_path, [make_example_card("rmsnorm")], {})
    path.write_text(damage(path.read_text()))
    with pytest.raises(NormlabError, match=r"card\.json is damaged"):
        read_cards(path)
