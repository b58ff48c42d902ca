"""The terminal: rich's console, on which text can only be read."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from normlab.text import printable

# Columns where nobody watches: rows of tables stay whole.
UNWATCHED = 140


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
    """Standard output; lines are never broken, and where nobody watches it has a fixed width."""
    terminal = Terminal(highlight=False, soft_wrap=True, emoji=False)
    if not terminal.is_terminal:
        terminal.width = unwatched
    return terminal
