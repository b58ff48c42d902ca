"""The figure of a result: panels of bars, of curves with fitted exponents, or of ratios."""

import math
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from normlab.analysis import sheet
from normlab.analysis.formatting import format_timing
from normlab.analysis.sheet import log_ticks
from normlab.analysis.statistics import Spread
from normlab.analysis.style import INK, figure_style

Json = dict[str, Any]

# By owner: the colour, and what the legend calls it.
OWNERS = {
    "ours": ("#0072B2", "normlab"),
    "peer": ("#B4B4B4", "other packages"),
    "limit": ("#009E73", "the machine's limit"),
    "other": ("#8FA3B5", "for comparison"),
}
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
LOG_RANGE = 30  # beyond this ratio, short bars cannot be told from none


def draw_report(result: Json, note: str, folder: Path) -> list[Path]:
    """Write `<suite>.png` and `.svg` into the folder; returns their paths. Raises OSError."""
    with figure_style():
        return sheet.save_figure(build_figure(result, note), folder, result["suite"])


def build_figure(result: Json, note: str) -> Figure:
    """All panels of a result on one page, in two columns where they are narrow."""
    panels = result["panels"]
    columns = 1 if len(panels) == 1 or any(panel.get("grid") for panel in panels) else 2
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [max(map(panel_height, row)) for row in rows]
    bars = [bar for panel in panels for bar in panel.get("bars", ())]
    owners = {bar["kind"] for bar in bars}
    entries = [entry for owner, entry in OWNERS.items() if owner in owners]
    handles: list[Artist] = [Patch(color=colour) for colour, _ in entries]
    legend = (handles, [name for _, name in entries]) if len(entries) > 1 else None
    if any(bar["value"]["count"] > 1 for bar in bars):
        note = f"Median and quartiles. {note}"
    figure, body = sheet.create_sheet(result["title"], note, legend, sum(heights))
    grid = body.subplots(len(rows), columns, squeeze=False, height_ratios=heights).ravel()
    # An odd number of panels in two columns leaves one place empty.
    for axes in grid[len(panels) :]:
        axes.remove()
    # Older files hold all keys, with empty lists and None; newer ones leave them out.
    for axes, panel in zip(grid, panels, strict=False):
        axes.set(title=panel["title"], xlabel=panel.get("x_label", ""))
        axes.set(ylabel=panel.get("y_label", ""))
        if panel.get("bars"):
            draw_bars(axes, panel["bars"], panel.get("whole"))
        elif panel.get("grid"):
            draw_grid(axes, panel["grid"])
        else:
            draw_lines(axes, panel["lines"])
    return figure


def panel_height(panel: Json) -> float:
    """Inches that a panel needs."""
    if panel.get("bars"):
        return 1.1 + 0.21 * len(panel["bars"])
    return 0.9 + 0.165 * len(panel["grid"]["rows"]) if panel.get("grid") else 2.6


def draw_bars(axes: Axes, bars: list[Json], total: float | None) -> None:
    """A bar for each median, the quartiles as a line, the number at its end."""
    largest = total or max(bar["value"]["high"] for bar in bars)
    smallest = min(bar["value"]["median"] for bar in bars)
    axes.set_xlim(0, 1.3 * largest)
    if total is None and smallest > 0 and largest / smallest > LOG_RANGE:
        axes.set_xscale("log")
        # Over any range the shortest bar is seen, and the number behind the longest fits.
        low, high = smallest / 1.6, largest * (largest / smallest) ** 0.28
        axes.set_xlim(low, high)
        axes.minorticks_off()
        axes.set_xticks(log_ticks(low, high))
    for row, bar in enumerate(bars):
        value = Spread(**bar["value"])
        axes.barh(row, value.median, height=0.68, color=OWNERS[bar["kind"]][0])
        axes.plot([value.low, value.high], [row, row], color=INK, lw=1.0)
        end = max(value.high, value.median)
        label = axes.annotate(
            format_timing(value.median), (end, row), (4, 0), textcoords="offset points"
        )
        label.set(va="center", fontsize=7.5)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_yticks(range(len(bars)), [bar["name"] for bar in bars], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def draw_lines(axes: Axes, lines: list[Json]) -> None:
    """Curves on logarithmic axes; the legend holds the exponents."""
    axes.set(xscale="log", yscale="log")
    for line, colour, marker in zip(lines, LINE_COLOURS, "os^D", strict=False):
        label = f"{line['name']}, exponent {Spread(**line['exponent'])}"
        values = [Spread(**y) for y in line["y"]]
        medians = [value.median for value in values]
        axes.plot(line["x"], medians, color=colour, marker=marker, ms=4, label=label)
        lows, highs = [value.low for value in values], [value.high for value in values]
        axes.vlines(line["x"], lows, highs, color=colour)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.35)  # the legend stands above the curves
    axes.legend(loc="upper left", fontsize=7.5, borderaxespad=0.2)
    axes.set_yticks(log_ticks(low, high))
    axes.set_xticks(log_ticks(*axes.get_xlim()))
    axes.minorticks_off()


def draw_grid(axes: Axes, grid: Json) -> None:
    """Ratios, blue below 1 and red above, on a scale of powers of two; None is a gap."""
    logs = [[math.nan if v is None else math.log2(v) for v in row] for row in grid["values"]]
    # The colours go from an eighth to eight times; white is 1.
    axes.imshow(logs, cmap="RdBu_r", norm=TwoSlopeNorm(0, -3, 3), aspect="auto", alpha=0.75)
    for y, values in enumerate(grid["values"]):
        for x, value in enumerate(values):
            text = "–" if value is None else format_timing(value)
            label = axes.text(x, y, text, ha="center", va="center", fontsize=7.5)
            label.set_color("white" if abs(logs[y][x]) > 2.2 else INK)
    axes.set_xticks(range(len(grid["columns"])), grid["columns"], fontsize=7.5)
    axes.set_yticks(range(len(grid["rows"])), grid["rows"], fontsize=8)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
