"""The sheet a figure is drawn on: heading, legend, a grid of panels, a footnote; and its files."""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text

from normlab.analysis.style import DPI, GREY, WIDTH
from normlab.archive.durable import write_text, write_with
from normlab.text import on_a_line, printable

Legend = tuple[list[Artist], list[str]]

# An artist's name in the SVG, which stands in quotes and is escaped, becomes what is told of it.
_TELLS = "tells "
_TOLD = re.compile(f'<g id="{_TELLS}([^"]*)">')

# Inches.
_MARGIN, _TITLE, _LEGEND_LINE, _FOOTNOTE_LINE = 0.1, 0.32, 0.2, 0.17
_HANDLE, _CHARACTER = 0.6, 0.073


def sheet(title: str, note: str, legend: Legend | None, height: float) -> tuple[Figure, SubFigure]:
    """An empty figure and the part of it, `height` inches high, that the panels go into.

    The title and one legend for all panels stand above it, the note below.
    """
    columns, lines = _legend_shape(legend[1]) if legend else (1, 0)
    head = _TITLE + _LEGEND_LINE * lines + _MARGIN
    foot = _FOOTNOTE_LINE * (note.count("\n") + 1) + _MARGIN
    figure = Figure(figsize=(WIDTH, head + height + foot), dpi=DPI, layout="constrained")
    parts = figure.subfigures(3, 1, height_ratios=[head, height, foot])
    header, body, footer = cast("list[SubFigure]", parts)
    left = _MARGIN / WIDTH
    header.text(left, 1 - _MARGIN / head, title, va="top", fontsize=11.5, weight="bold")
    if legend:
        at = (left / 2, 0.0)
        header.legend(*legend, loc="lower left", bbox_to_anchor=at, ncols=columns, handlelength=2.6)
    footer.text(left, 1.0, note, va="top", fontsize=7.5, color=GREY, linespacing=1.3)
    return figure, body


def grid_shape(count: int) -> tuple[int, int]:
    """Rows and columns for so many panels: at most three beside each other."""
    columns = 2 if count == 4 else min(count, 3)
    return math.ceil(count / columns), columns


def panels_of(body: SubFigure, titles: Sequence[str]) -> Iterator[Axes]:
    """A panel for every title, sharing both axes; labels only at the outer ones."""
    rows, columns = grid_shape(len(titles))
    grid = body.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in grid[len(titles) :]:
        axes.remove()
    for axes, title in zip(grid, titles, strict=False):
        axes.set_title(title)
        yield axes


def label_outer(body: SubFigure) -> None:
    """Keep tick and axis labels at the lowest panel of every column and the first of every row."""
    places = [cast(Any, axes.get_subplotspec()) for axes in body.axes]
    lowest = {place.colspan.start: place.rowspan.start for place in places}
    for axes, place in zip(body.axes, places, strict=True):
        last = place.rowspan.start == lowest[place.colspan.start]
        first = place.colspan.start == 0
        axes.tick_params(labelbottom=last, labelleft=first)
        axes.xaxis.label.set_visible(last)
        axes.yaxis.label.set_visible(first)


def tell(artist: Artist, words: str) -> None:
    """Have the figure's SVG say these words where one points at what is drawn."""
    artist.set_gid(_TELLS + on_a_line(words))


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<name>.png` and `<name>.svg`, each whole or not at all, the same bytes every time.

    Raises:
        OSError: the folder cannot be written.
    """
    _clean(figure)
    _settle(figure)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    _write(figure, png, {"Software": None})
    _write(figure, svg, {"Date": None, "Creator": None})
    write_text(svg, _TOLD.sub(r"<g><title>\1</title>", svg.read_text(encoding="utf-8")))
    return [png, svg]


def _clean(figure: Figure) -> None:
    """Leave in the figure's texts only what can be drawn, and stand in an SVG."""
    for text in cast("list[Text]", figure.findobj(Text)):
        if text.get_text() != printable(text.get_text()):
            text.set_text(printable(text.get_text()))
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            # Labels of ticks are made anew from the formatter whenever they are drawn.
            labels = [label.get_text() for label in axis.get_ticklabels()]
            if any(label != printable(label) for label in labels):
                axis.set_ticks(axis.get_ticklocs(), labels=list(map(printable, labels)))


def _settle(figure: Figure) -> None:
    """Lay out once and round: the last digits of the layout solver differ from call to call."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for part in _parts(figure):
        part.bbox_relative.set_points(np.round(part.bbox_relative.get_points(), 4))
    for axes in figure.axes:
        left, bottom, width, height = np.round(axes.get_position().bounds, 4)
        axes.set_position((left, bottom, width, height))


def _parts(figure: Figure | SubFigure) -> Iterator[SubFigure]:
    """The parts of a figure, and theirs."""
    for part in figure.subfigs:
        yield part
        yield from _parts(part)


def _write(figure: Figure, path: Path, metadata: dict[str, str | None]) -> None:
    kind = path.suffix[1:]  # the draft beside it has another suffix
    write_with(path, lambda draft: figure.savefig(draft, format=kind, metadata=metadata))


def _legend_shape(labels: Sequence[str]) -> tuple[int, int]:
    """Columns and lines: as few lines as the labels, filled in column by column, allow."""
    for lines in range(1, len(labels) + 1):
        columns = [labels[at : at + lines] for at in range(0, len(labels), lines)]
        widths = [_HANDLE + _CHARACTER * max(map(len, column)) for column in columns]
        if len(columns) <= 5 and sum(widths) < WIDTH - 2 * _MARGIN:
            return len(columns), lines
    return 1, len(labels)
