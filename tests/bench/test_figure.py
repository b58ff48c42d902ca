"""Every kind of panel is drawn and can be read, also those of results measured earlier."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from figure import build_figure, draw_report
from figure_checks import faults
from figure_texts import visible_words
from harness import ROOT
from normlab.analysis import sheet
from normlab.analysis.style import RC
from report import format_machine, read_report


def draw_panels(report: dict[str, Any], *panels: dict[str, Any]) -> Figure:
    with matplotlib.rc_context(RC):
        result = {**report["result"], "panels": list(panels)}
        figure = build_figure(result, format_machine(report["machine"]))
        sheet.fix_layout(figure)
    return figure


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "bench").glob("*.json")), ids=str)
def test_a_stored_result_can_be_drawn_and_read(path: Path) -> None:
    report = read_report(path)
    assert faults(draw_panels(report, *report["result"]["panels"])) == []


def test_each_kind_of_panel_can_be_read(report: dict[str, Any]) -> None:
    for panel in report["result"]["panels"]:
        assert faults(draw_panels(report, panel)) == []


def test_bars_are_as_long_as_the_medians(report: dict[str, Any]) -> None:
    bars = report["result"]["panels"][0]
    (axes,) = draw_panels(report, bars).axes
    lengths = [patch.get_width() for patch in axes.patches]  # type: ignore[attr-defined]
    assert lengths == [bar["value"]["median"] for bar in bars["bars"]]


def test_bars_of_very_different_lengths_are_told_apart(report: dict[str, Any]) -> None:
    bars = [
        {"name": owner, "kind": owner, "value": dict.fromkeys(("median", "low", "high"), ms)}
        for owner, ms in (("ours", 0.01), ("peer", 100.0))
    ]
    panel = {"title": "bars", "bars": [{**b, "value": {**b["value"], "count": 1}} for b in bars]}
    figure = draw_panels(report, panel)
    assert figure.axes[0].get_xscale() == "log"
    assert faults(figure) == []


def test_a_gap_in_a_grid_is_a_dash(report: dict[str, Any]) -> None:
    texts = [
        text.get_text()
        for text in visible_words(draw_panels(report, report["result"]["panels"][2]))
    ]
    assert "–" in texts
    assert "8.00" in texts


def test_a_curve_names_its_exponent(report: dict[str, Any]) -> None:
    texts = [
        text.get_text()
        for text in visible_words(draw_panels(report, report["result"]["panels"][1]))
    ]
    assert "ms, exponent 0.50 (0.20–0.80)" in texts


def test_colours_say_whose_a_bar_is(report: dict[str, Any]) -> None:
    figure = draw_panels(report, report["result"]["panels"][0])
    colours = [patch.get_facecolor() for patch in figure.axes[0].patches]
    assert len({tuple(np.round(colour, 3)) for colour in colours}) == 3


def test_the_files_are_a_png_and_an_svg(report: dict[str, Any], tmp_path: Path) -> None:
    png, svg = draw_report(report["result"], "a machine", tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text()
