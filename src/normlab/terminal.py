"""The terminal: rich's console, on which text can only be read."""

import os
from collections.abc import Iterable
from shutil import get_terminal_size

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from normlab.text import printable

# Columns where nobody watches: rows of tables stay whole.
UNWATCHED = 140
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


def open_terminal(unwatched: int = UNWATCHED) -> Terminal:
    """Standard output; text is never broken, and where nobody watches it has a fixed width.

    COLUMNS sets that width, as it does everywhere.
    """
    terminal = Terminal(highlight=False, soft_wrap=True, emoji=False)
    if not terminal.is_terminal:
        terminal.width = get_terminal_size((unwatched, 0)).columns
    terminal.width = max(terminal.width, NARROWEST)
    return terminal


def has_fixed_width(console: Console) -> bool:
    """Whether there is a window, or COLUMNS says how wide the text may be."""
    return console.is_terminal or os.environ.get("COLUMNS", "").strip("0").isdigit()
