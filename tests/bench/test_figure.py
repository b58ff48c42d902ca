"""Every kind of panel is drawn, within the page, and no two words on top of each other."""

from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from normlab.analysis import page
from normlab.analysis.spread import spread
from normlab.analysis.style import RC
from normlab.bench import figure
from normlab.bench.result import Bar, Panel, Report, Result
from pictured import overlaps, words


def drawn(report: Report) -> Figure:
    with matplotlib.rc_context(RC):
        sheet = figure._sheet(report)
        page.settle(sheet)
    return sheet


def only(report: Report, *panels: Panel) -> Report:
    result: Result = replace(report.result, panels=panels)
    return replace(report, result=result)


def test_bars_curves_and_grids_are_drawn_without_overlaps(report: Report) -> None:
    for panel in report.result.panels:
        assert overlaps(drawn(only(report, panel))) == []


def test_four_panels_stand_in_two_rows_without_overlaps(report: Report) -> None:
    curves = report.result.panels[1]
    panels = [replace(curves, title=f"By {axis}") for axis in ("depth", "width", "context", "size")]
    sheet = drawn(only(report, *panels))
    assert len(sheet.axes) == 4
    assert overlaps(sheet) == []


def test_bars_are_as_long_as_the_medians(report: Report) -> None:
    bars = report.result.panels[0]
    (axes,) = drawn(only(report, bars)).axes
    lengths = [patch.get_width() for patch in axes.patches]  # type: ignore[attr-defined]
    assert lengths == [bar.value.median for bar in bars.bars]


def test_bars_of_very_different_lengths_are_told_apart(report: Report) -> None:
    bars = (Bar("short", spread([0.01]), "ours"), Bar("long", spread([100.0]), "peer"))
    sheet = drawn(only(report, Panel("bars", "ms", bars=bars)))
    (axes,) = sheet.axes
    assert axes.get_xscale() == "log"
    assert overlaps(sheet) == []
    assert {"0.1", "1", "10", "100"} < {one.get_text() for one in words(sheet)}


def test_a_gap_in_a_grid_is_a_dash(report: Report) -> None:
    sheet = drawn(only(report, report.result.panels[2]))
    said = [one.get_text() for one in words(sheet)]
    assert "–" in said
    assert "8.00" in said


def test_a_curve_names_its_exponent(report: Report) -> None:
    said = [one.get_text() for one in words(drawn(only(report, report.result.panels[1])))]
    assert "ms, exponent 0.50 (0.20–0.80)" in said


def test_colours_say_whose_a_bar_is(report: Report) -> None:
    sheet = drawn(only(report, report.result.panels[0]))
    colours = [patch.get_facecolor() for patch in sheet.axes[0].patches]
    assert len({tuple(np.round(colour, 3)) for colour in colours}) == 3


def test_the_files_are_a_png_and_an_svg(report: Report, tmp_path: Path) -> None:
    png, svg = figure.draw(report, tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text()


def test_labels_that_would_run_into_each_other_are_left_out() -> None:
    assert figure._apart([65, 1024, 4096, 16384, 32768]) == ["65", "1024", "4096", "", "32768"]
    assert figure._apart([32, 64, 128]) == ["32", "64", "128"]
