"""Figures and paragraphs of experiments that train nothing, from their numbers alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from normlab.analysis import page
from normlab.analysis.measured import comparison_words, gradient_words
from normlab.analysis.style import RC
from normlab.archive.measured import Measured

FIGURES_FOLDER = "figures"


def draw(found: Measured, folder: Path) -> list[Path]:
    """Write `<name>.png` and `<name>.svg` into the folder; returns their paths. Raises OSError."""
    from normlab.analysis.measured import comparison_figure, gradient_figure

    sheets: dict[str, Callable[[Measured], Figure]] = {
        "gradient_vanishing": gradient_figure.sheet,
        "layernorm_vs_rmsnorm": comparison_figure.sheet,
    }
    with matplotlib.rc_context(RC):
        return page.save(sheets[found.name](found), folder, found.name)


def paragraph(found: Measured) -> str:
    """What the numbers show, in sentences that follow from them."""
    words: dict[str, Callable[[Any], list[str]]] = {
        "gradient_vanishing": gradient_words.sentences,
        "layernorm_vs_rmsnorm": comparison_words.sentences,
    }
    return " ".join(words[found.name](found.numbers))
