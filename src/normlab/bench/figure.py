"""The figure of a result: panels of bars, of curves with fitted exponents, or of numbers."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from normlab.analysis import page
from normlab.analysis.scales import log_ticks
from normlab.analysis.spread import short
from normlab.analysis.style import GREY, INK, norm_colours, own_style
from normlab.bench.result import Bar, Grid, Kind, Line, Panel, Report

_COLOURS: dict[Kind, str] = {
    "ours": norm_colours(["rmsnorm"])["rmsnorm"],
    "peer": "#B4B4B4",
    "limit": norm_colours(["dyt"])["dyt"],
    "other": "#8FA3B5",
}
_LINE_COLOURS = tuple(
    norm_colours(
        [
            *("rmsnorm", "layernorm", "dyt", "scalenorm"),
            *("none", "layernorm_nobias", "partial_rmsnorm", "other"),
        ]
    ).values()
)
_WORDS: dict[Kind, str] = {
    "ours": "normlab",
    "peer": "other packages",
    "limit": "the machine's limit",
    "other": "for comparison",
}
_BAR, _GRID_ROW, _LINES, _FRAME, _LEAST = 0.21, 0.165, 2.5, 0.75, 0.6  # inches
# Beyond this ratio, short bars cannot be told from none.
_LOG_FROM = 30
_COLUMNS = 2
MOST_ROWS, MOST_LINES = 40, 8  # of a panel
# Labels of an axis are at least this share of it apart.
_LABELS_APART = 0.14


def draw(report: Report, folder: Path) -> list[Path]:
    """Write `<suite>.png` and `.svg` into the folder; returns their paths. Raises OSError."""
    with own_style():
        return page.save(_sheet(report), folder, report.result.suite)


def _sheet(report: Report) -> Figure:
    panels = [_first(panel) for panel in report.result.panels]
    cut = any(shown != panel for shown, panel in zip(panels, report.result.panels, strict=True))
    columns = 1 if len(panels) == 1 or any(panel.grid for panel in panels) else _COLUMNS
    rows = [panels[at : at + columns] for at in range(0, len(panels), columns)]
    heights = [max(_height(panel) for panel in row) for row in rows]
    spreads = any(bar.value.count > 1 for panel in panels for bar in panel.bars)
    note = f"{'Median and quartiles. ' if spreads else ''}{report.machine}"
    if cut:
        note += (
            f"\nThe first {MOST_ROWS} rows or {MOST_LINES} curves of a panel; the tables hold all."
        )
    figure, body = page.sheet(report.result.title, note, _legend(panels), sum(heights))
    grid = body.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for row, line in zip(rows, grid, strict=True):
        for axes in line[len(row) :]:
            axes.remove()
        for panel, axes in zip(row, line, strict=False):
            _panel(axes, panel)
    return figure


def _first(panel: Panel) -> Panel:
    """The panel with as much of it as can be read."""
    grid = panel.grid and replace(
        panel.grid, rows=panel.grid.rows[:MOST_ROWS], values=panel.grid.values[:MOST_ROWS]
    )
    return replace(panel, bars=panel.bars[:MOST_ROWS], lines=panel.lines[:MOST_LINES], grid=grid)


def _height(panel: Panel) -> float:
    if panel.bars:
        return _FRAME + max(_LEAST, _BAR * len(panel.bars))
    return _FRAME + (max(_LEAST, _GRID_ROW * len(panel.grid.rows)) if panel.grid else _LINES)


def _legend(panels: Sequence[Panel]) -> page.Legend | None:
    there = {bar.kind for panel in panels for bar in panel.bars}
    kinds = [kind for kind in _WORDS if kind in there]
    if len(kinds) < 2:
        return None
    handles: list[Artist] = [Patch(color=_COLOURS[kind]) for kind in kinds]
    return handles, [_WORDS[kind] for kind in kinds]


def _panel(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title)
    axes.set(xlabel=panel.x_label, ylabel=panel.y_label)
    if panel.bars:
        _bars(axes, panel.bars, panel.mark, panel.whole)
    elif panel.grid:
        _grid(axes, panel.grid)
    else:
        _lines(axes, panel.lines)


def _bars(axes: Axes, bars: Sequence[Bar], mark: float | None, whole: float | None) -> None:
    largest = max(bar.value.high for bar in bars)
    smallest = min(bar.value.median for bar in bars)
    log = whole is None and smallest > 0 and largest / smallest > _LOG_FROM
    if whole is not None:
        axes.set_xlim(0, 1.12 * whole)
    elif log:
        axes.set_xscale("log")
        low, high = smallest / 1.6, largest * (largest / smallest) ** 0.28
        axes.set_xlim(low, high)
        axes.minorticks_off()
        axes.set_xticks(log_ticks(low, high))
    else:
        axes.set_xlim(0, 1.3 * max(largest, mark or 0))
    for place, bar in enumerate(bars):
        value = bar.value
        axes.barh(place, value.median, height=0.68, color=_COLOURS[bar.kind])
        axes.plot([value.low, value.high], [place, place], color=INK, lw=1.0)
        at = (max(value.high, value.median), place)
        said = axes.annotate(short(value.median), at, (4, 0), textcoords="offset points")
        said.set(va="center", fontsize=7.5)
    if mark is not None:
        axes.axvline(mark, color=GREY, lw=1.0, ls=(0, (1.0, 1.6)), zorder=3)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _lines(axes: Axes, lines: Sequence[Line]) -> None:
    axes.set(xscale="log", yscale="log")
    for line, colour, marker in zip(lines, _LINE_COLOURS, "os^Dv<>p", strict=False):
        medians = [y.median for y in line.y]
        label = line.name if line.exponent is None else f"{line.name}, exponent {line.exponent}"
        axes.plot(line.x, medians, color=colour, marker=marker, ms=4, label=label)
        axes.vlines(line.x, [y.low for y in line.y], [y.high for y in line.y], color=colour)
    places = sorted({x for line in lines for x in line.x})
    axes.set_xticks(places, _apart(places))
    axes.minorticks_off()
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.35)  # the legend stands above the curves
    axes.legend(loc="upper left", fontsize=7.5, borderaxespad=0.2)
    axes.set_yticks(log_ticks(low, high))


def _apart(places: Sequence[float]) -> list[str]:
    """Labels of a logarithmic axis, without those that would run into the next one."""
    least = _LABELS_APART * math.log(places[-1] / places[0])
    labels, last = [f"{places[-1]:g}"], places[-1]
    for x in reversed(places[:-1]):
        fits = math.log(last / x) >= least
        labels.append(f"{x:g}" if fits else "")
        last = x if fits else last
    return labels[::-1]


def _grid(axes: Axes, grid: Grid) -> None:
    logs = [[math.nan if v is None else math.log2(v) for v in row] for row in grid.values]
    axes.imshow(logs, cmap="RdBu_r", norm=TwoSlopeNorm(0, -3, 3), aspect="auto", alpha=0.75)
    for row, values in enumerate(grid.values):
        for at, value in enumerate(values):
            dark = value is not None and not 2**-2.2 < value < 2**2.2
            axes.text(
                at,
                row,
                "–" if value is None else short(value),
                ha="center",
                va="center",
                fontsize=7.5,
                color="white" if dark else INK,
            )
    axes.set_xticks(range(len(grid.columns)), grid.columns, fontsize=7.5)
    axes.set_yticks(range(len(grid.rows)), grid.rows, fontsize=8)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
