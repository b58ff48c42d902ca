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
from matplotlib.gridspec import GridSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from normlab.analysis.lettering import shorten, text_width, wrap
from normlab.analysis.scales import write_plain_ticks
from normlab.analysis.style import DPI, GREY, WIDTH
from normlab.analysis.visibility import HIDDEN_NOTE, mark_cut_curves, widen_hidden_curves
from normlab.archive.files import replace_atomically, write_text
from normlab.text import printable, printable_line

Legend = tuple[list[Artist], list[str]]

# An artist's name in the SVG, which stands in quotes and is escaped, becomes what is told of it.
_TELLS = "tells "
_TOLD = re.compile(f'<g id="{_TELLS}([^"]*)">')

# Points.
_TITLE_SIZE, _PANEL_TITLE_SIZE, _LEGEND_SIZE, _ROW_SIZE, NOTE_SIZE = 11.5, 10.0, 9.0, 8.5, 7.5
# Inches.
_MARGIN, _TITLE_LINE, _LEGEND_LINE, _FOOTNOTE_LINE = 0.1, 0.2, 0.2, 0.17
_PAD = 0.04  # around every panel and what belongs to it
_HANDLE = 0.7  # of a legend: the line, and what separates it from its name and the next column
_FRAME = 0.2  # around a legend
_BESIDE_PANEL = 0.55  # what the labels of an axis take of a panel's share of the width
_MOST_TITLE_LINES = 2
_MOST_LEGEND_COLUMNS = 5


class Sheet(Figure):
    """A figure in three parts, one under the other: heading and legend, panels, note."""

    heights: GridSpec

    def add_note(self, words: str) -> None:
        """Add words to the note; the figure grows by their lines."""
        (note,) = self.subfigs[2].texts
        words = wrap(words, WIDTH - 2 * _MARGIN, NOTE_SIZE)
        note.set_text(f"{note.get_text()}\n{words}")
        more = _FOOTNOTE_LINE * (words.count("\n") + 1)
        head, body, foot = cast("list[float]", self.heights.get_height_ratios())
        self.heights.set_height_ratios([head, body, foot + more])
        self.set_figheight(self.get_figheight() + more)


def sheet(title: str, note: str, legend: Legend | None, height: float) -> tuple[Figure, SubFigure]:
    """An empty figure and the part of it, `height` inches high, that the panels go into.

    The title and one legend for all panels stand above it, the note below; all are broken into
    lines of the figure's width, and names too long for a line are shortened.
    """
    inside = WIDTH - 2 * _MARGIN
    title = wrap(title, inside, _TITLE_SIZE, bold=True, lines=_MOST_TITLE_LINES)
    note = wrap(note, inside, NOTE_SIZE)
    labels = (
        [shorten(label, inside - _HANDLE - _FRAME, _LEGEND_SIZE) for label in legend[1]]
        if legend
        else []
    )
    columns, lines = _legend_shape(labels, inside - _FRAME)
    head = _TITLE_LINE * (title.count("\n") + 1) + _LEGEND_LINE * lines + 2 * _MARGIN
    foot = _FOOTNOTE_LINE * (note.count("\n") + 1) + _MARGIN
    # The solver pads panels; with the rest of the margin, labels begin where the title does.
    edge = (_MARGIN - _PAD) / WIDTH
    layout = ConstrainedLayoutEngine(h_pad=_PAD, w_pad=_PAD, rect=(edge, 0, 1 - 2 * edge, 1))
    figure = Sheet(figsize=(WIDTH, head + height + foot), dpi=DPI, layout=layout)
    figure.heights = figure.add_gridspec(3, 1, height_ratios=[head, height, foot])
    header, body, footer = (figure.add_subfigure(figure.heights[at]) for at in range(3))
    left = (_MARGIN / WIDTH - edge) / (1 - 2 * edge)
    header.text(left, 1 - _MARGIN / head, title, va="top", fontsize=_TITLE_SIZE, weight="bold")
    if legend:
        at = (left - _FRAME / 4 / WIDTH, 0.06 / head)  # its frame, which is not drawn, stands out
        header.legend(
            legend[0], labels, loc="lower left", bbox_to_anchor=at, ncols=columns, borderaxespad=0,
            handlelength=2.6, fontsize=_LEGEND_SIZE,
        )  # fmt: skip
    footer.text(left, 1.0, note, va="top", fontsize=NOTE_SIZE, color=GREY, linespacing=1.3)
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
        axes.set_title(panel_title(title, columns))
        yield axes


def panel_title(title: str, columns: int) -> str:
    """The title of a panel in one of so many columns, broken or cut to the panel's width."""
    width = WIDTH / columns - _BESIDE_PANEL
    return wrap(title, width, _PANEL_TITLE_SIZE, bold=True, lines=_MOST_TITLE_LINES)


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


def name_rows(axes: Axes, names: Sequence[str], width: float) -> None:
    """Write the names of rows beside a panel, the first at the top; at most `width` inches each."""
    axes.set_yticks(range(len(names)), [shorten(name, width, _ROW_SIZE) for name in names])
    axes.tick_params(axis="y", length=0, labelsize=_ROW_SIZE)
    axes.grid(visible=False, axis="y")


def tell(artist: Artist, words: str) -> None:
    """Have the figure's SVG say these words where one points at what is drawn."""
    artist.set_gid(_TELLS + printable_line(words))


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<name>.png` and `<name>.svg`, each whole or not at all, the same bytes every time.

    Raises:
        OSError: the folder cannot be written.
    """
    _clean(figure)
    settle(figure)
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


def settle(figure: Figure) -> None:
    """Lay out once and round: the last digits of the layout solver differ from call to call."""
    write_plain_ticks(figure)
    mark_cut_curves(figure)
    if widen_hidden_curves(figure) and isinstance(figure, Sheet):
        figure.add_note(HIDDEN_NOTE)
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
    with replace_atomically(path) as draft:
        figure.savefig(draft, format=kind, metadata=metadata)


def _legend_shape(labels: Sequence[str], width: float) -> tuple[int, int]:
    """Columns and lines: as few lines as the labels, filled in column by column, allow."""
    widths = [_HANDLE + text_width(label, _LEGEND_SIZE) for label in labels]
    for count in range(min(_MOST_LEGEND_COLUMNS, len(labels)), 1, -1):
        columns = np.array_split(widths, count)  # as a legend divides its entries
        if sum(map(max, columns)) < width:
            return count, len(columns[0])
    return 1, len(labels)
