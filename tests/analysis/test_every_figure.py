"""Every figure can be read: at one and four arms, (slow) at up to 200 arms."""

import ast
import itertools
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import normlab
from every_figure import DRAWN_WITH_A_STUDY, FIGURES, captured
from figure_checks import faults
from normlab.analysis import sheet
from normlab.analysis.report import CAPTIONS
from normlab.analysis.style import RC

_SOURCES = Path(normlab.__file__).parent
COUNTS = (1, 4, 2, 12, 40, 200)
FAST_COUNTS = (1, 4)


@pytest.mark.parametrize(
    ("module", "number", "count"),
    [
        pytest.param(*case, marks=[] if case[-1] in FAST_COUNTS else [pytest.mark.slow])
        for module, draws in FIGURES.items()
        for case in itertools.product([module], range(len(draws)), COUNTS)
    ],
)
def test_every_figure_can_be_read(
    module: str, number: int, count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with captured(monkeypatch) as drawn:
        FIGURES[module][number](count, tmp_path)
    found = {name: faults(figure) for name, figure in drawn.items()}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_every_module_that_saves_a_figure_is_in_the_list() -> None:
    saving = set()
    for path in _SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("savefig", "save_figure"):
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                if node.attr == "savefig" or owner == "sheet":
                    saving.add(path.relative_to(_SOURCES).as_posix())
    assert saving == {*FIGURES, *DRAWN_WITH_A_STUDY, "analysis/sheet.py"}


def test_every_figure_of_a_report_is_in_the_list(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names: set[str] = set()
    for module in ("analysis/figures.py", "apps/experiments/report.py"):
        for draw in FIGURES[module]:
            with captured(monkeypatch, laid_out=False) as drawn:
                draw(1, tmp_path)
            names |= {name for name in drawn if "/" not in name}  # not those of single scalars
    assert names == set(CAPTIONS)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda axes: axes.set_yscale("log"), "markup"),
        (lambda axes: axes.text(0.5, 1, "far out " * 30), "leaves the canvas"),
        (lambda axes: (axes.text(1, 1, "some words"), axes.text(1.1, 1, "others")), "lies on"),
        (lambda axes: axes.set_position((0.4, 0.2, 0.04, 0.6)), "of the width"),
        (lambda axes: axes.plot([0, 1], color="#D55E00"), "no legend for the colour"),
    ],
    ids=["markup", "outside", "overlap", "sliver", "legend"],
)
def test_the_checks_find_what_they_are_for(wrong, word: str) -> None:  # type: ignore[no-untyped-def]
    import matplotlib

    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(8, 4))
        axes = figure.add_axes((0.2, 0.2, 0.6, 0.6))
        axes.plot([1, 10, 100], color="#222222")
        assert faults(figure) == []
        wrong(axes)
        assert any(word in fault for fault in faults(figure))


def test_one_place_writes_ticks_plainly_whatever_drew_the_axis() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    axes.loglog([1e-6, 1e6], [1e-6, 1e6])
    sheet.fix_layout(figure)
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert not [tick for tick in ticks if "$" in tick]
    assert {"1e-4", "1"} <= set(ticks)
