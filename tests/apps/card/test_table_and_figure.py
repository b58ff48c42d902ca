"""Cards are shown side by side, and drawn, without torch."""

import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread
from rich.console import Console

from every_figure import captured
from example_card import make_example_card
from normlab.apps.card.figure import MOST_CARDS, card_colours, draw_cards
from normlab.apps.card.record import Card, Invariance
from normlab.apps.card.table import card_rows, print_cards

NAMES = ["rmsnorm", "layernorm", "dyt", "my_norm eps=1e-6", "none"]


def printed(cards: list[Card], width: int) -> str:
    console = Console(file=StringIO(), width=width)
    print_cards(console, cards)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_table_shows_every_norm_within_the_terminal(width: int) -> None:
    text = printed([make_example_card(name) for name in NAMES], width)
    headings = [line for line in text.splitlines() if line.startswith("width 8")]
    assert [name for line in headings for name in NAMES if f" {name} " in f"{line} "] == NAMES
    assert max(map(len, text.splitlines())) <= width
    assert len(headings) == {60: 3, 80: 2, 100: 2, 200: 1}[width]


def test_a_file_gets_no_colours_and_a_terminal_does() -> None:
    assert "\x1b" not in printed([make_example_card("dyt")], 80)
    console = Console(file=StringIO(), width=80, force_terminal=True)
    print_cards(console, [make_example_card("dyt")])
    assert "\x1b[32myes (0)" in console.file.getvalue()


def test_a_norm_that_leaks_is_called_out_by_name() -> None:
    leak = Invariance("token alone", "no leak across tokens", "no", 2.0)
    cards = [
        make_example_card("dyt"),
        replace(make_example_card("batchnorm"), invariances=(leak,) * 3),
    ]
    assert "batchnorm: tokens see each other" in printed(cards, 100)
    assert "tokens see each other" not in printed(cards[:1], 100)


def test_every_number_of_the_card_is_a_row() -> None:
    found = dict(card_rows(make_example_card("dyt")))
    assert found["numbers"] == "9"
    assert found["tensors"] == "gain 8, alpha scalar"
    assert found["N(0,1)"] == "0.630 (-0.0100)"
    assert found["N(cx) = N(x), c > 0"] == "no (1.25)"
    assert found["N(x + c1) = N(x)"] == "to eps (3.4e-4)"
    assert found["median, smallest"] == "1.00, 1e-17"
    assert found["zeros"] == "0, ∂ 316"
    assert found["a NaN"] == "NaN, ∂ inf"
    assert found["  reaches"] == "token"
    assert found["bf16 ∂ input"] == "2.50, 105"
    assert found["fp16 output"] == "– (no kernel)"
    assert found["second derivative"] == "refuses"
    assert found["forward"] == "1.50 (1.35–1.80)"
    assert found["forward and backward"] == "not comparable"


@pytest.mark.parametrize("names", [["dyt"], [*NAMES, *(f"norm_{k}" for k in range(9))]], ids=len)
def test_the_figure_is_drawn_the_same_every_time(names: list[str], tmp_path: Path) -> None:
    cards = [make_example_card(name, time=0.2 + 3 * at) for at, name in enumerate(names)]
    png, svg = draw_cards(cards, tmp_path / "one")
    assert imread(png).shape[1] == 1760
    assert all(name in svg.read_text() for name in names[:MOST_CARDS])
    if len(names) == 1:
        again = draw_cards(cards, tmp_path / "two")
        assert [path.read_bytes() for path in again] == [png.read_bytes(), svg.read_bytes()]


def test_a_norm_has_the_colour_it_has_in_studies_unless_it_is_there_twice() -> None:
    alone = card_colours([make_example_card("rmsnorm eps=1e-6"), make_example_card("layernorm")])
    assert alone == {"rmsnorm eps=1e-6": "#0072B2", "layernorm": "#D55E00"}
    twice = card_colours([make_example_card("rmsnorm eps=1e-6"), make_example_card("rmsnorm")])
    assert twice["rmsnorm"] == "#0072B2"
    assert len(set(twice.values())) == 2


def test_showing_a_card_imports_no_torch() -> None:
    code = (
        "import sys; import normlab.apps.card.table, normlab.apps.card.figure; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def times(cards: list[Card], monkeypatch: pytest.MonkeyPatch, folder: Path) -> Axes:
    with captured(monkeypatch) as found:
        draw_cards(cards, folder)
    return found["card"].axes[-1]


def test_times_that_cannot_be_compared_are_a_sentence_or_a_dot_in_the_colour_of_their_norm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def varying(card: Card) -> Card:
        unsteady = replace(card.speed.both, variation=0.2)
        return replace(card, speed=replace(card.speed, forward=unsteady, both=unsteady))

    one, other = (varying(make_example_card(name)) for name in ("rmsnorm", "layernorm"))
    none = times([one, other], monkeypatch, tmp_path)
    (sentence,) = [text.get_text() for text in none.texts]
    assert sentence.startswith("No time is comparable")
    assert not none.axison
    some = times([one, make_example_card("layernorm")], monkeypatch, tmp_path)
    dots = [line for line in some.lines if line.get_marker() == "o"]
    look = card_colours([one, other])
    assert [dot.get_color() for dot in dots] == [look["rmsnorm"]] * 2 + [look["layernorm"]]
    assert dots[0].get_alpha() < dots[1].get_alpha()  # forward is pale


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [0.0, 1e-150])
def test_a_norm_that_gives_zeros_is_drawn(size: float, tmp_path: Path) -> None:
    card = make_example_card("rmsnorm")
    curves = replace(card.curves, rms_out=(size,) * len(card.curves.rms_in))
    spectrum = replace(card.spectrum, values=(size,) * len(card.spectrum.values))
    assert draw_cards([replace(card, curves=curves, spectrum=spectrum)], tmp_path)


def test_of_equal_norms_every_curve_is_seen_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with captured(monkeypatch) as found:
        draw_cards([make_example_card("rmsnorm"), make_example_card("layernorm")], tmp_path)
    response, *_ = found["card"].axes
    widths = [line.get_linewidth() for line in response.lines]
    assert widths[0] > 1.5 * widths[1]
    assert "inside a wider one" in found["card"].subfigs[2].texts[0].get_text()
