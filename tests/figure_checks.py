"""What a figure must be to be read: checked on what matplotlib has laid out, not on the code."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure, FigureBase
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Annotation, Text

from normlab.analysis.style import RC

# Least share of the canvas's width, and least inches of height, that a panel takes.
LEAST_WIDTH, LEAST_HEIGHT = 0.09, 0.4
COLOURBAR_HEIGHT = 0.08
MARGIN = 12  # pixels between any text and the edge of the canvas
# More inches than this no page shows; a sheet of 12 panels or 40 rows is lower.
MOST_HEIGHT = 16.0

_MARKUP = re.compile(r"\\[a-z]+\{|\$[^$]*\$|<[a-z]+>")
_GREYNESS = 0.12  # of a colour whose channels differ by less, and which names no arm
_FAINT = 0.3  # what is measured behind a mean, and bands
_POINTLIKE = {"", "None", "none", " ", ".", "x", "_", "|", 4, 5}


def faults(figure: Figure) -> list[str]:
    """Everything that keeps the figure from being read, in sentences; empty where nothing does."""
    with rc_context(RC):
        figure.draw_without_rendering()
        return [
            *_outside(figure),
            *_overlapping(figure),
            *_raw_markup(figure),
            *_slivers(figure),
            *_without_legend(figure),
            *_alike_in_a_legend(figure),
            *_with_few_ticks(figure),
            *_second_minus_sign(figure),
            *_curves_cut_in_silence(figure),
        ]


def visible_texts(figure: Figure) -> list[tuple[Text, Axes | None]]:
    """Every text that is drawn, with the panel that it belongs to."""
    found: list[tuple[Text, Axes | None]] = []
    for part in (figure, *_parts(figure)):
        found += [(text, None) for text in part.texts]
        found += [(text, None) for legend in part.legends for text in legend.get_texts()]
    for axes in figure.axes:
        if axes.get_visible():
            found += [(text, axes) for text in _texts_of(axes)]
    return [(t, a) for t, a in found if t.get_visible() and t.get_text().strip()]


def _parts(figure: FigureBase) -> Iterator[FigureBase]:
    for part in figure.subfigs:
        yield part
        yield from _parts(part)


def _texts_of(axes: Axes) -> Iterator[Text]:
    legend = axes.get_legend()
    if legend:
        yield from legend.get_texts()
    if not axes.axison:
        yield from axes.texts
        return
    yield from (child for child in axes.get_children() if isinstance(child, Text))  # and titles
    for axis in (axes.xaxis, axes.yaxis):
        yield from (axis.label, axis.get_offset_text())
        scale = axis.get_transform().transform
        low, high = sorted(scale(axis.get_view_interval()))
        room = 1e-6 * (high - low)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if low - room <= scale([tick.get_loc()])[0] <= high + room:
                yield from (tick.label1, tick.label2)


def _box(text: Text) -> tuple[float, float, float, float]:
    # Of an annotation the words alone, not the line to what they mean.
    box = Text.get_window_extent(text) if isinstance(text, Annotation) else text.get_window_extent()
    return box.x0, box.y0, box.x1, box.y1


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width > 2 and height > 2


def _outside(figure: Figure) -> Iterator[str]:
    page = figure.bbox
    for text, _ in visible_texts(figure):
        x0, y0, x1, y1 = _box(text)
        room = min(x0, y0, page.x1 - x1, page.y1 - y1)
        if room < -1:
            yield f"{text.get_text()!r} leaves the canvas"
        elif room < MARGIN:
            yield f"{text.get_text()!r} stands {room:.0f} pixels from the edge of the canvas"
    if figure.get_figheight() > MOST_HEIGHT:
        yield f"the canvas is {figure.get_figheight():.1f} inches high"


def _overlapping(figure: Figure) -> Iterator[str]:
    texts = visible_texts(figure)
    boxes = [_box(text) for text, _ in texts]
    panels = {axes: axes.get_window_extent() for axes in figure.axes if axes.axison}
    for at, (text, own) in enumerate(texts):
        for other in range(at + 1, len(texts)):
            if _overlap(boxes[at], boxes[other]):
                yield f"{text.get_text()!r} lies on {texts[other][0].get_text()!r}"
        for axes, extent in panels.items():
            if axes is not own and _overlap(
                boxes[at], (extent.x0, extent.y0, extent.x1, extent.y1)
            ):
                yield f"{text.get_text()!r} lies on the panel {axes.get_title('left')!r}"


def _second_minus_sign(figure: Figure) -> Iterator[str]:
    """Numbers with a minus sign (U+2212) beside the hyphens of 1e-4 and of names."""
    for text, _ in visible_texts(figure):
        if re.search("\u2212[\\d.]", text.get_text()):
            yield f"{text.get_text()!r} has another minus sign"


def _with_few_ticks(figure: Figure) -> Iterator[str]:
    """Axes of numbers along which fewer than two have a label: no distance can be read there."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            ticks = [one for one in axis.get_major_ticks() if low <= one.get_loc() <= high]
            words = [one.label1.get_text() for one in ticks if one.label1.get_visible()]
            if len(words) == 1 and re.fullmatch(r"[-\d.e]+", words[0]):
                yield f"one tick alone, {words[0]}, in {axes.get_title('left')!r}"


def _curves_cut_in_silence(figure: Figure) -> Iterator[str]:
    """Curves that leave a panel at the top without a word about it there."""
    for axes in figure.axes:
        top = max(axes.get_ylim())
        lines = [one for one in axes.lines if one.get_transform() == axes.transData]
        lines = [one for one in lines if (one.get_alpha() or 1.0) >= _FAINT]
        values = [y for one in lines if len(one.get_xydata()) > 1 for y in one.get_ydata()]
        highest = np.nanmax([*values, -np.inf])
        if highest > top and not any("above the axis" in text.get_text() for text in axes.texts):
            yield f"a curve goes to {highest:g}, above {axes.get_title('left')!r}"


def _raw_markup(figure: Figure) -> Iterator[str]:
    for text, _ in visible_texts(figure):
        if _MARKUP.search(text.get_text()):
            yield f"{text.get_text()!r} is raw markup"


def _slivers(figure: Figure) -> Iterator[str]:
    for axes in figure.axes:
        box, name = axes.get_window_extent(), axes.get_title("left") or axes.get_label()
        if box.width < LEAST_WIDTH * figure.bbox.width:
            yield f"the panel {name!r} takes {box.width / figure.bbox.width:.1%} of the width"
        least = COLOURBAR_HEIGHT if axes.get_label() == "<colorbar>" else LEAST_HEIGHT
        if box.height < least * figure.dpi:
            yield f"the panel {name!r} is {box.height / figure.dpi:.2f} inches high"


def _without_legend(figure: Figure) -> Iterator[str]:
    """Colours, dashes and markers that no legend, row or word in the same colour explains."""
    legends: list[Legend] = [one for part in (figure, *_parts(figure)) for one in part.legends]
    legends += [one for axes in figure.axes if (one := axes.get_legend())]
    handles = [handle for legend in legends for handle in legend.legend_handles if handle]
    colours = {colour for handle in handles for colour in _colours(handle)}
    dashes = {(_colours(handle)[0], _dash(handle)) for handle in handles if _dash(handle)}
    markers = {handle.get_marker() for handle in handles if isinstance(handle, Line2D)}
    words = {to_rgba(text.get_color())[:3] for text, _ in visible_texts(figure)}
    for axes, artist in _to_be_explained(figure):
        for colour in _colours(artist):
            if _is_grey(colour) or colour in words:
                continue
            panel = axes.get_title("left")
            if colour not in colours:
                yield f"no legend for the colour {np.round(colour, 2)} in {panel!r}"
            elif not _explains(dashes, colour, _dash(artist)):
                yield f"no legend for the dashes {_dash(artist)} in {panel!r}"
            elif _marker(artist) not in _POINTLIKE | markers | {"o"}:
                yield f"no legend for the marker {_marker(artist)} in {panel!r}"


def _to_be_explained(figure: Figure) -> Iterator[tuple[Axes, Artist]]:
    """What is drawn in panels whose rows have no names, but for what is faint or empty."""
    for axes in figure.axes:
        if axes.get_label() == "<colorbar>" or not axes.axison:
            continue
        if any(_names_rows(other) for other in _alike(axes)):
            continue
        for artist in (*axes.lines, *axes.patches, *axes.collections):
            empty = isinstance(artist, Line2D) and not len(artist.get_xdata())
            if not empty and (artist.get_alpha() or 1.0) >= _FAINT:
                yield axes, artist


def _alike(axes: Axes) -> list[Axes]:
    """The panel, and those whose y-axis it shares, of which one has the names."""
    return [one for one in axes.figure.axes if axes.get_shared_y_axes().joined(axes, one)] or [axes]


def _names_rows(axes: Axes) -> bool:
    return any(re.search("[a-z]{2}", label.get_text()) for label in axes.get_yticklabels())


def _explains(dashes: set[tuple[tuple[float, ...], str]], colour: Any, dash: str) -> bool:
    """Whether the pair is in a legend, or the dash is, in grey, beside the colour."""
    pair = (colour, dash) in dashes
    return not dash or not dashes or pair or any(_is_grey(c) and d == dash for c, d in dashes)


def _alike_in_a_legend(figure: Figure) -> Iterator[str]:
    for part in _parts(figure):
        for legend in part.legends:
            seen: dict[object, str] = {}
            texts = (text.get_text() for text in legend.get_texts())
            for handle, text in zip(legend.legend_handles, texts, strict=True):
                look = (_colours(handle)[0], _dash(handle), _marker(handle), _filling(handle))
                if look in seen:
                    yield f"{text!r} looks like {seen[look]!r}"
                seen[look] = text


def _filling(artist: Artist) -> object:
    return artist.get_markerfacecolor() if isinstance(artist, Line2D) else ""


def _is_grey(colour: tuple[float, ...]) -> bool:
    return max(colour) - min(colour) < _GREYNESS


def _colours(artist: Artist) -> list[tuple[float, ...]]:
    if isinstance(artist, Line2D):
        return [to_rgba(artist.get_color())[:3]]
    if isinstance(artist, Patch):
        return [artist.get_facecolor()[:3] if artist.get_fill() else artist.get_edgecolor()[:3]]
    if getattr(artist, "get_array", lambda: None)() is not None:
        return []  # a picture, explained by its colour bar
    faces = artist.get_facecolor()  # type: ignore[attr-defined]
    edges = artist.get_edgecolor()  # type: ignore[attr-defined]
    return [tuple(row[:3]) for row in (faces if len(faces) else edges)]


def _dash(artist: Artist) -> str:
    """Solid, `-`, or dashed, `--`; empty for what is no line."""
    if not isinstance(artist, Line2D) or artist.get_linestyle() in ("None", "", " "):
        return ""
    return str(artist.get_linestyle())


def _marker(artist: Artist) -> object:
    return artist.get_marker() if isinstance(artist, Line2D) else ""
