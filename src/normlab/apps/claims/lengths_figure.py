"""The effect of each claim against the length of its runs, with intervals and the verdict at each.

What differs after 250 steps may not after 1000, and the other way round: a panel a claim.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from normlab.analysis import sheet
from normlab.analysis.formatting import format_axis_value
from normlab.analysis.style import GREY, figure_style
from normlab.apps.claims.figure import LOOKS, create_legend, find_limits, range_shades
from normlab.apps.claims.page import has_lengths
from normlab.apps.claims.record import ClaimsRecord, ClaimVerdict

MOST_PANELS = 21

_PANEL_HEIGHT = 1.9  # inches
_LABEL_WIDTH = 1.6  # inches, of a unit along an axis
_PUBLISHED: dict[str, Any] = {"color": GREY, "lw": 0.8, "ls": ":"}
_MARGIN = 1.25  # how far the axis of steps reaches beyond the first and the last, as a factor


def draw_lengths(record: ClaimsRecord, folder: Path, name: str = "claims_lengths") -> list[Path]:
    """Write `<name>.png` and `.svg`, and return both; none where no claim has several lengths.

    Raises:
        OSError: they cannot be written.
    """
    verdicts = list(filter(has_lengths, record.verdicts))
    if not verdicts:
        return []
    hidden = len(verdicts) - MOST_PANELS
    note = f"Runs at budget={record.budget}; bars are 95 % intervals."
    note += f" {hidden} more claims are on the page." if hidden > 0 else ""
    verdicts = verdicts[:MOST_PANELS]
    rows, columns = sheet.grid_shape(len(verdicts))
    with figure_style():
        published = Line2D([], [], **_PUBLISHED)
        title = "Claims against the length of training"
        figure, body = sheet.create_sheet(
            title, note, create_legend(published), _PANEL_HEIGHT * rows
        )
        grid = body.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(verdicts) :]:
            axes.remove()
        for axes, verdict in zip(grid, verdicts, strict=False):
            # A name has no spaces to break it at; those that help are taken out again.
            title = sheet.panel_title(verdict.name.replace("_", "_  "), columns)
            axes.set_title(title.replace("_  ", "_"))
            _draw_panel(axes, verdict)
        return sheet.save_figure(figure, folder, name)


def _draw_panel(axes: Axes, verdict: ClaimVerdict) -> None:
    horizons = [horizon for horizon in verdict.horizons if horizon.value is not None]
    low, high = _find_limits(verdict)
    axes.set_ylim(low, high)
    for range_, shade in range_shades(verdict):
        bottom = low if range_.low is None else max(low, range_.low)
        top = high if range_.high is None else min(high, range_.high)
        axes.axhspan(bottom, max(bottom, top), color=shade, lw=0, zorder=0)
    for horizon in horizons:
        colour, mark, filling = LOOKS[horizon.word]
        if horizon.low is not None and horizon.high is not None:
            axes.plot([horizon.steps] * 2, [horizon.low, horizon.high], color=colour, lw=1.6)
        axes.plot(horizon.steps, horizon.value, mark, color=colour, fillstyle=filling, ms=5.5)  # type: ignore[arg-type]
    if verdict.published_value is not None and low <= verdict.published_value <= high:
        axes.axhline(verdict.published_value, **_PUBLISHED, zorder=1)
    steps = [horizon.steps for horizon in horizons]
    axes.set_xscale("log")
    axes.set_xlim(steps[0] / _MARGIN, steps[-1] * _MARGIN)
    axes.xaxis.set_major_locator(FixedLocator(_spaced_steps(steps)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: format_axis_value(value))
    axes.set_xlabel("steps")
    axes.set_ylabel(sheet.wrap_text(verdict.unit, _LABEL_WIDTH, 9, lines=2))


def _find_limits(verdict: ClaimVerdict) -> tuple[float, float]:
    """Of the axis of effects: all values, intervals and finite ends of ranges."""
    ends: list[float | None] = [0.0] if verdict.absent is not None else []
    for horizon in verdict.horizons:
        ends += [horizon.value, horizon.low, horizon.high]
    for range_, _ in range_shades(verdict):
        ends += [range_.low, range_.high]
    return find_limits(ends)


def _spaced_steps(steps: Sequence[int]) -> list[float]:
    """The steps that get a tick: the last, and before it those that leave room for their text."""
    ticks = [float(steps[-1])]
    for step in reversed(steps[:-1]):
        if ticks[-1] / step >= (steps[-1] / steps[0]) ** 0.25:
            ticks.append(float(step))
    return ticks
