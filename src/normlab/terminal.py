"""The terminal: rich's console, on which text can only be read."""

import os
from collections.abc import Iterable
from shutil import get_terminal_size

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from normlab.text import printable

# Columns where the output is not a terminal: rows of tables stay whole.
DEFAULT_WIDTH = 140
# Columns of the narrowest window that is written for; in a narrower one lines are broken.
NARROWEST = 20


class Terminal(Console):
    """A console whose text is printable, whatever it is given; rich's own control codes pass."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """What rich makes of it, cleaned."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)


def open_terminal(default_width: int = DEFAULT_WIDTH) -> Terminal:
    """Standard output; text is never broken.

    Where the output is not a terminal it has a fixed width, `default_width` unless COLUMNS is set.
    """
    terminal = Terminal(highlight=False, soft_wrap=True, emoji=False)
    if not terminal.is_terminal:
        terminal.width = get_terminal_size((default_width, 0)).columns
    terminal.width = max(terminal.width, NARROWEST)
    return terminal


def has_fixed_width(console: Console) -> bool:
    """Whether there is a window, or COLUMNS says how wide the text may be."""
    return console.is_terminal or os.environ.get("COLUMNS", "").strip("0").isdigit()
