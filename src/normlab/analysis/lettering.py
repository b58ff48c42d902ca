"""How wide words are in a figure's font, and how they are cut or broken to fit."""

from collections.abc import Iterator
from functools import lru_cache

from matplotlib import rcParams
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

_POINTS_AN_INCH = 72
_ELLIPSIS = "…"
_paths = TextToPath()


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Width in inches of a line of text, `size` in points, in the font of the figures."""
    return _points(text, bold, tuple(rcParams["font.sans-serif"])) * size / _POINTS_AN_INCH / _UNIT


_UNIT = 100.0  # points at which widths are measured; a width is proportional to the size


@lru_cache(maxsize=4096)
def _points(text: str, bold: bool, family: tuple[str, ...]) -> float:
    font = FontProperties(family=list(family), weight="bold" if bold else "normal", size=_UNIT)
    return float(_paths.get_text_width_height_descent(text, font, False)[0])


def shorten(text: str, width: float, size: float, *, bold: bool = False) -> str:
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


def wrap(text: str, width: float, size: float, *, bold: bool = False, lines: int = 99) -> str:
    """The text broken at spaces into lines of at most `width` inches; beyond `lines` it is cut.

    Line breaks of the text itself stay.
    """
    broken = [line for part in text.split("\n") for line in _broken(part, width, size, bold)]
    if len(broken) <= lines:
        return "\n".join(broken)
    rest = " ".join(broken[lines - 1 :])
    while text_width(rest + _ELLIPSIS, size, bold=bold) > width:
        rest = rest[:-1].rstrip()
    return "\n".join([*broken[: lines - 1], rest + _ELLIPSIS])


def _broken(text: str, width: float, size: float, bold: bool) -> Iterator[str]:
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if line and text_width(longer, size, bold=bold) > width:
            yield line
            longer = word
        line = shorten(longer, width, size, bold=bold)
    yield line
