"""A table as the report shows it: columns, rows of cells, and how numbers are written in them."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """What stands in a cell.

    Attributes:
        text: as it is shown; whatever it holds is text, never markup.
        value: what the column is sorted by, instead of the text; NaN where nothing is known.
        colour: of the dot before the text, `#rrggbb`; none where empty.
        state: how a run ended, where the cell says that.
    """

    text: str
    value: float | None = None
    colour: str = ""
    state: str = ""


@dataclass(frozen=True)
class Column:
    """A heading; numbers stand to the right, and words of more than a line are broken."""

    title: str
    numeric: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under columns; the first cell of a row names it."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def number(value: float | None, spec: str = ".4f") -> Cell:
    """A number, or a dash where it is not known."""
    if value is None or math.isnan(value):
        return Cell("–", math.nan)
    return Cell(format(value, spec), float(value))


def interval(pair: tuple[float, float]) -> Cell:
    """A mean and half the width of its interval, sorted by the mean."""
    mean, half = pair
    if math.isnan(mean) or math.isnan(half):
        return number(mean)
    return Cell(f"{number(mean).text} ± {half:.4f}", mean)
