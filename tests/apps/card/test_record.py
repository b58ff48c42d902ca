"""A card on disk: strict JSON that holds all of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from example_card import make_example_card
from normlab.apps.card.record import Card, Rounding, write_cards
from normlab.archive.versioned_json import finite_or_none, restore_value


def no_constant(text: str) -> NoReturn:
    raise AssertionError(f"{text} is no JSON")


def test_all_of_a_card_is_in_the_file(tmp_path: Path) -> None:
    cards = [
        make_example_card("rmsnorm"),
        replace(make_example_card("odd"), rounding=(Rounding("bf16", problem="x"),)),
    ]
    path = write_cards(tmp_path / "new", cards, {"torch": "2"})
    assert path == tmp_path / "new" / "card.json"
    raw = json.loads(path.read_text(), parse_constant=no_constant)
    assert [restore_value(Card, card) for card in raw["cards"]] == cards
    assert raw["versions"] == {"torch": "2"}
    assert [card["name"] for card in raw["cards"]] == ["rmsnorm", "odd"]
    assert raw["cards"][1]["rounding"][0]["output_max"] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_none(value: float) -> None:
    assert finite_or_none(value) is None
    assert finite_or_none(0.5) == 0.5
