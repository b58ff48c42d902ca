"""A table for windows of any width."""

from collections.abc import Iterator, Sequence
from textwrap import wrap

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_INDENT = 2


class FittingTable(Table):
    """A table that is printed as a list where the window is too narrow for its columns.

    `rich` would shorten the first column, that of the names, until nothing of it is left. In a list
    a row is its first cell, then each other heading with its value.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, or else the list."""
        for column in self.columns:
            if column.no_wrap:  # the measure of a table takes it for words that may be broken
                cells = (column.header, *column.cells)
                column.min_width = max(_text(cell).cell_len for cell in cells)
        narrowest = Measurement.get(console, options.update(width=10_000), self).minimum
        if narrowest <= options.max_width:
            yield from super().__rich_console__(console, options)
        else:
            yield from self._as_list(options.max_width)

    def _as_list(self, width: int) -> Iterator[Text]:
        headings = [_text(column.header).plain for column in self.columns[1:]]
        yield Text()
        for first, *others in zip(*(column.cells for column in self.columns), strict=True):
            name = _text(first)
            name.stylize("bold")
            name.overflow = "fold"
            yield name
            pairs = zip(headings, map(_text, others), strict=True)
            yield from _lines([f"{name} {cell.plain}" for name, cell in pairs if cell], width)
        yield Text()
        if self.caption is not None:
            for part in _text(self.caption).plain.split("\n"):
                yield from map(Text, wrap(part, width))


def _lines(pairs: Sequence[str], width: int) -> Iterator[Text]:
    """The pairs in lines of at most `width`, indented; none is broken that fits one."""
    line = ""
    for pair in pairs:
        longer = f"{line} · {pair}" if line else pair
        if line and _INDENT + len(longer) > width:
            yield Text(" " * _INDENT + line, overflow="fold")
            longer = pair
        line = longer
    if line:
        yield Text(" " * _INDENT + line, overflow="fold")


def _text(cell: RenderableType) -> Text:
    return cell.copy() if isinstance(cell, Text) else Text.from_markup(str(cell))
