"""Text for any terminal: wrapped at its width, and in ASCII where its encoding has no more.

Where the output is not a terminal and COLUMNS is not set, lines stay whole, for other programs to
read.
"""

import sys
import textwrap
import unicodedata
from typing import TYPE_CHECKING

from normlab.terminal import Terminal, has_fixed_width, open_terminal

if TYPE_CHECKING:
    from rich.console import RenderableType

_DEFAULT_WIDTH = 100
# How formulas are written where letters of Greek and signs are missing.
_ASCII = str.maketrans(
    {
        "ε": "eps",
        "√": "sqrt",
        "²": "^2",
        "·": "*",
        "⊙": "*",
        "−": "-",
        "–": "-",
        "×": "x",
        "σ": "sigma",
        "γ": "gamma",
        "β": "beta",
        "α": "alpha",
        "μ": "mu",
        "η": "eta",
        "‖": "||",
        "½": "1/2",
        "¼": "1/4",
        "ᵀ": "^T",
        "←": "<-",
        "→": "->",
        "∞": "inf",
        "≤": "<=",
        "≥": ">=",
        "≈": "~",
        "≠": "!=",
        "∂": "d",
        "…": "...",
        "′": "'",
        "°": "deg",
        "•": "*",
        "─": "-",
        "━": "=",
        "│": "|",
        "┃": "|",
        "▌": "|",
        "’": "'",
        "“": '"',
        "”": '"',
        "„": '"',
        "╇": "+",
        "┼": "+",
        "╺": "=",
        "╸": "=",
        "█": "#",
        "\u0302": "^",  # the circumflex of x̂
        "⁻": "^-",
    }
)


class Writer:
    """Standard output of the teaching path."""

    def __init__(self) -> None:
        self._terminal: Terminal = open_terminal(_DEFAULT_WIDTH)

    def print_text(self, text: str, indent: str = "") -> None:
        """Print lines of text; where one is wrapped, it goes on under `indent`."""
        text = fit_encoding(text)  # first, for it may get longer
        if has_fixed_width(self._terminal):
            text = "\n".join(
                textwrap.fill(
                    line,
                    self._terminal.width,
                    subsequent_indent=indent,
                    replace_whitespace=False,
                    tabsize=4,
                )
                for line in text.split("\n")
            )
        # rich's markup would take the [x] of a tick for a tag and drop it.
        self._terminal.print(text, markup=False)

    def print_block(self, block: "RenderableType") -> None:
        """Print what rich lays out by itself at the terminal's width."""
        with self._terminal.capture() as captured:
            self._terminal.print(block, soft_wrap=False, crop=False)
        # It is clean and may hold rich's own colours: it is written as it is.
        sys.stdout.write(fit_encoding(captured.get()))


def fit_encoding(text: str) -> str:
    """The text, where standard output has no letters beyond ASCII with words in their place."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        # Translated first: NFKD makes 2 of ², and x² would become x2.
        plain = unicodedata.normalize("NFKD", text.translate(_ASCII))
        return "".join(sign for sign in plain if not unicodedata.combining(sign))
    return text
