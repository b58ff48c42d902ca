"""The sheet a figure is drawn on: heading, legend, a grid of panels, a footnote; and its files.

Text is cut or broken to fit by its width in the figures' font. Ticks of logarithmic axes are
written plainly. Curves that leave a panel or lie under others are marked.
"""

import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib import rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.gridspec import GridSpec, GridSpecBase
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.textpath import TextToPath
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogFormatter,
    MaxNLocator,
    NullFormatter,
)
from numpy.typing import NDArray

from normlab.analysis.arms import SEPARATOR
from normlab.analysis.formatting import format_axis_value
from normlab.analysis.style import DPI, GREY, WIDTH
from normlab.archive.files import replace_atomically, write_text
from normlab.archive.record import short_number
from normlab.text import printable, printable_line

_POINTS_AN_INCH = 72
_ELLIPSIS = "…"
_paths = TextToPath()


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Width in inches of a line of text, `size` in points, in the font of the figures."""
    # The fonts are part of the cache's key, because rcParams may change from call to call.
    points = _width_in_points(text, bold, tuple(rcParams["font.sans-serif"]))
    return points * size / _POINTS_AN_INCH / _UNIT


_UNIT = 100.0  # points at which widths are measured; a width is proportional to the size


@lru_cache(maxsize=4096)
def _width_in_points(text: str, bold: bool, family: tuple[str, ...]) -> float:
    font = FontProperties(family=list(family), weight="bold" if bold else "normal", size=_UNIT)
    return float(_paths.get_text_width_height_descent(text, font, False)[0])


def shorten_text(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """The text, or where it is wider than `width` inches its two ends with … between them.

    Names of variants often differ at their end alone, so that stays.
    """
    if text_width(text, size, bold=bold) <= width:
        return text
    for letters in range(len(text) - 1, 0, -1):
        end = letters // 2
        cut = text[: letters - end].rstrip() + _ELLIPSIS + text[len(text) - end :].lstrip()
        if text_width(cut, size, bold=bold) <= width:
            return cut
    return _ELLIPSIS


def wrap_text(text: str, width: float, size: float, *, bold: bool = False, lines: int = 99) -> str:
    """The text broken at spaces into lines of at most `width` inches; beyond `lines` it is cut.

    Line breaks of the text itself stay.
    """
    wrapped = [
        line for part in text.split("\n") for line in _wrapped_lines(part, width, size, bold)
    ]
    if len(wrapped) <= lines:
        return "\n".join(wrapped)
    rest = " ".join(wrapped[lines - 1 :])
    while text_width(rest + _ELLIPSIS, size, bold=bold) > width:
        rest = rest[:-1].rstrip()
    return "\n".join([*wrapped[: lines - 1], rest + _ELLIPSIS])


def _wrapped_lines(text: str, width: float, size: float, bold: bool) -> Iterator[str]:
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if line and text_width(longer, size, bold=bold) > width:
            yield line
            longer = word
        line = shorten_text(longer, width, size, bold=bold)
    yield line


# Multiples of powers of ten that have ticks where the powers alone are too few.
_MULTIPLES = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0))


def log_ticks(low: float, high: float, fewest: int = 3, most: int = 6) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, and what is between them where these are few.

    There are at least two, if need be those of a linear axis.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in _MULTIPLES:
        candidates = [factor * 10.0**power for power in powers for factor in factors]
        ticks = [tick for tick in candidates if low <= tick <= high]
        if len(ticks) >= fewest:
            return ticks[:: math.ceil(len(ticks) / most)]
    linear = MaxNLocator(most - 1).tick_values(low, high)
    return [float(tick) for tick in linear if low <= tick <= high]


def set_log_scale(axes: Axes) -> None:
    """Make the y axis logarithmic, after all is drawn on it; see `log_ticks`.

    What has no positive limits stays linear.
    """
    if not axes.yaxis.get_data_interval()[1] > 0:
        return
    axes.set_yscale("log")
    low, high = axes.yaxis.get_view_interval()
    if not 0 < low < high:
        return
    axes.yaxis.set_major_locator(FixedLocator(log_ticks(low, high)))


def write_plain_ticks(figure: Figure) -> None:
    """Write the ticks of every logarithmic axis plainly: 1e-3, 0.1, 100.

    matplotlib writes them as mathematical text, which the looks of the figures do not parse, since
    a name may hold dollar signs: an axis that is left as it is would show the raw markup.
    """
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatter):
                axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
            if isinstance(axis.get_minor_formatter(), LogFormatter):
                axis.set_minor_formatter(NullFormatter())


HIDDEN_NOTE = "A line inside a wider one: curves that differ by less than the width of a line."

_FAINT = 0.5  # opacity below which a line is background
_UNSEEN = 0.006  # share of a panel's height, half a line's width in one of two inches
_WIDER, _MOST_WIDER = 0.9, 3  # how much wider, in widths, for each curve that lies on it
_MARK_SIZE = 7.5  # points


def mark_cut_curves(figure: Figure) -> None:
    """Say in every panel how far the curves go that leave it at the top."""
    for axes in figure.axes:
        top = max(axes.get_ylim())
        starts: list[float] = []
        peaks: list[float] = []
        for line in _visible_curves(axes):
            values = np.asarray(line.get_ydata(), float)
            values = values[np.isfinite(values)]
            inside = np.flatnonzero(values <= top)
            first = int(inside[0]) if len(inside) else len(values)
            starts += values[:1].tolist() if first else []
            later = values[first:]
            peaks += [float(later.max())] if len(later) and later.max() > top else []
        words = []
        for verb, losses in (("starts at", starts), ("rises to", peaks)):
            if losses:
                ends = dict.fromkeys(format_axis_value(end(losses)) for end in (min, max))
                words.append(f"↑ {verb} {'–'.join(ends)}, above the axis")
        if words:
            # Below the crosses of diverged runs, which stand at the upper edge.
            text = axes.annotate(
                "\n".join(words), (1, 1), (-3, -11), "axes fraction", "offset points",
                ha="right", va="top", fontsize=_MARK_SIZE, color=GREY, zorder=6,
            )  # fmt: skip
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8})


def widen_hidden_curves(figure: Figure) -> bool:
    """Draw each curve wider that lies under others; returns whether there is one.

    Of one colour, as the seeds of an arm, they could not be distinguished in any case.
    """
    widened = False
    for axes in figure.axes:
        lines = sorted(_visible_curves(axes), key=lambda line: line.get_zorder())
        heights = [_relative_heights(axes, line) for line in lines]
        for at, line in enumerate(lines):
            count = sum(
                line.get_color() != other.get_color()
                and np.array_equal(line.get_xdata(), other.get_xdata())
                and _do_coincide(heights[at], other_heights)
                for other, other_heights in zip(lines[at + 1 :], heights[at + 1 :], strict=True)
            )
            if count:
                more = line.get_linewidth() * _WIDER * min(count, _MOST_WIDER)
                line.set_linewidth(line.get_linewidth() + more)
                line.set_markersize(line.get_markersize() + more)
                widened = True
    return widened


def _visible_curves(axes: Axes) -> list[Line2D]:
    # Not floors, whose transform has axes coordinates too, nor what is faint, nor single marks.
    return [
        line
        for line in axes.lines
        if line.get_transform() == axes.transData
        and line.get_linestyle() not in ("None", "", " ")
        and (line.get_alpha() or 1.0) >= _FAINT
        and len(cast("Sequence[float]", line.get_xdata())) > 1
    ]


def _relative_heights(axes: Axes, line: Line2D) -> NDArray[np.float64]:
    """Where the points stand in the panel: 0 at its lower edge, 1 at its upper one."""
    axes.get_xlim(), axes.get_ylim()  # which sets limits that are still to be found
    points = (axes.transScale + axes.transLimits).transform(line.get_xydata())
    # What is outside cannot be seen, and so makes no difference.
    return np.asarray(np.clip(points[:, 1], -_UNSEEN, 1 + _UNSEEN))


def _do_coincide(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    finite = np.isfinite(first)
    if not np.array_equal(finite, np.isfinite(second)) or not ((first >= 0) & (first <= 1)).any():
        return False
    return float(np.abs(first[finite] - second[finite]).max()) < _UNSEEN


Legend = tuple[list[Artist], list[str]]

# An artist's name in the SVG, which is quoted and escaped, becomes the text of its tooltip.
_TOOLTIP = "tells "
_TOOLTIP_GROUP = re.compile(f'<g id="{_TOOLTIP}([^"]*)">')

# Points.
_TITLE_SIZE, _PANEL_TITLE_SIZE, _LEGEND_SIZE, _ROW_SIZE, NOTE_SIZE = 11.5, 10.0, 9.0, 8.5, 7.5
# Inches.
_MARGIN, _TITLE_LINE, _LEGEND_LINE, _FOOTNOTE_LINE = 0.1, 0.2, 0.2, 0.17
_PAD = 0.04  # around every panel and what belongs to it
_HANDLE = 0.7  # of a legend: the line, and what separates it from its name and the next column
_FRAME = 0.2  # around a legend
_LABELS_WIDTH = 0.55  # what the labels of an axis take of a panel's share of the width
_MOST_TITLE_LINES = 2
_MOST_LEGEND_COLUMNS = 5


class Sheet(Figure):
    """A figure in three parts, one under the other: heading and legend, panels, note."""

    heights: GridSpec

    def add_note(self, words: str) -> None:
        """Add words to the note; the figure grows by their lines."""
        (note,) = self.subfigs[2].texts
        words = wrap_text(words, WIDTH - 2 * _MARGIN, NOTE_SIZE)
        note.set_text(f"{note.get_text()}\n{words}")
        more = _FOOTNOTE_LINE * (words.count("\n") + 1)
        head, body, foot = cast("list[float]", self.heights.get_height_ratios())
        self.heights.set_height_ratios([head, body, foot + more])
        self.set_figheight(self.get_figheight() + more)


def create_sheet(
    title: str, note: str, legend: Legend | None, height: float
) -> tuple[Figure, SubFigure]:
    """An empty figure and the part of it, `height` inches high, that the panels go into.

    The title and one legend for all panels stand above it, the note below; all are broken into
    lines of the figure's width, and names too long for a line are shortened.
    """
    inside = WIDTH - 2 * _MARGIN
    title = wrap_text(title, inside, _TITLE_SIZE, bold=True, lines=_MOST_TITLE_LINES)
    note = wrap_text(note, inside, NOTE_SIZE)
    handles, names = legend or ([], [])
    labels = [shorten_text(name, inside - _HANDLE - _FRAME, _LEGEND_SIZE) for name in names]
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
            handles, labels, loc="lower left", bbox_to_anchor=at, ncols=columns, borderaxespad=0,
            handlelength=2.6, fontsize=_LEGEND_SIZE,
        )  # fmt: skip
    footer.text(left, 1.0, note, va="top", fontsize=NOTE_SIZE, color=GREY, linespacing=1.3)
    return figure, body


def grid_shape(count: int) -> tuple[int, int]:
    """Rows and columns for so many panels: at most three beside each other."""
    columns = 2 if count == 4 else min(count, 3)
    return math.ceil(count / columns), columns


def create_panels(grid: GridSpecBase, titles: Sequence[str]) -> list[Axes]:
    """A panel for every title, sharing both axes; labels only at the outer ones."""
    panels = list(grid.subplots(sharex=True, sharey=True, squeeze=False).ravel())
    for unused in panels[len(titles) :]:
        unused.remove()
    panels = panels[: len(titles)]
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(panel_title(title, grid.ncols))
    label_outer_panels(panels)
    return panels


def panel_title(title: str, columns: int) -> str:
    """The title of a panel in one of so many columns, broken or cut to the panel's width."""
    width = WIDTH / columns - _LABELS_WIDTH
    return wrap_text(title, width, _PANEL_TITLE_SIZE, bold=True, lines=_MOST_TITLE_LINES)


def label_outer_panels(panels: Sequence[Axes]) -> None:
    """Keep tick and axis labels at the lowest panel of every column and the first of every row."""
    cells = [cast(Any, axes.get_subplotspec()) for axes in panels]
    # Panels come row by row, so the last one of each column stays.
    lowest = {cell.colspan.start: cell.rowspan.start for cell in cells}
    for axes, cell in zip(panels, cells, strict=True):
        last = cell.rowspan.start == lowest[cell.colspan.start]
        first = cell.colspan.start == 0
        axes.tick_params(labelbottom=last, labelleft=first)
        axes.xaxis.label.set_visible(last)
        axes.yaxis.label.set_visible(first)


def name_rows(axes: Axes, names: Sequence[str], width: float) -> None:
    """Write the names of rows beside a panel, the first at the top; at most `width` inches each.

    Where one is wider, all go without the parts that they have in common: they tell rows apart
    by nothing, and where a name is cut something has to go.
    """
    if any(text_width(name, _ROW_SIZE) > width for name in names):
        names = _drop_common_parts(names)
    axes.set_yticks(range(len(names)), [shorten_text(name, width, _ROW_SIZE) for name in names])
    axes.tick_params(axis="y", length=0, labelsize=_ROW_SIZE)
    axes.grid(visible=False, axis="y")


def _drop_common_parts(names: Sequence[str]) -> list[str]:
    parts = [name.split(SEPARATOR) for name in names]
    common = set(parts[0]).intersection(*parts) if len(names) > 1 else set()
    # A name of common parts alone, beside others that have more, stays as it is.
    return [SEPARATOR.join([part for part in own if part not in common] or own) for own in parts]


def add_tooltip(artist: Artist, words: str) -> None:
    """Have the figure's SVG say these words where one points at what is drawn."""
    artist.set_gid(_TOOLTIP + printable_line(words))


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<name>.png` and `<name>.svg`, each whole or not at all, the same bytes every time.

    Raises:
        OSError: the folder cannot be written.
    """
    _remove_unprintable_text(figure)
    fix_layout(figure)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    # Without matplotlib's version and the date, or the same figure would be another file.
    with replace_atomically(png) as draft:
        figure.savefig(draft, format="png", metadata={"Software": None})
    with replace_atomically(svg) as draft:
        figure.savefig(draft, format="svg", metadata={"Date": None, "Creator": None})
    write_text(svg, _TOOLTIP_GROUP.sub(r"<g><title>\1</title>", svg.read_text(encoding="utf-8")))
    return [png, svg]


def _remove_unprintable_text(figure: Figure) -> None:
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


def fix_layout(figure: Figure) -> None:
    """Lay out once and round: the last digits of the layout solver differ from call to call."""
    # Ticks, marks and the note first, because the layout makes room for them.
    write_plain_ticks(figure)
    mark_cut_curves(figure)
    if widen_hidden_curves(figure) and isinstance(figure, Sheet):
        figure.add_note(HIDDEN_NOTE)
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
    # Or saving would lay out once more; with "none" it would still draw for that, without a layout.
    figure.set_layout_engine(None)
    # Of parts of parts too.
    for part in cast("list[SubFigure]", figure.findobj(SubFigure)):
        part.bbox_relative.set_points(np.round(part.bbox_relative.get_points(), 4))
    for axes in figure.axes:
        left, bottom, width, height = np.round(axes.get_position().bounds, 4)
        axes.set_position((left, bottom, width, height))


def _legend_shape(labels: Sequence[str], width: float) -> tuple[int, int]:
    """Columns and lines: as few lines as the labels, filled in column by column, allow."""
    widths = [_HANDLE + text_width(label, _LEGEND_SIZE) for label in labels]
    for count in range(min(_MOST_LEGEND_COLUMNS, len(labels)), 1, -1):
        columns = np.array_split(widths, count)  # as a legend divides its entries
        if sum(map(max, columns)) < width:
            return count, len(columns[0])
    return 1, len(labels)
