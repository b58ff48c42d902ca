"""Figures inside a page: their SVG without what only a file needs, or their PNG if that is huge."""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from normlab.analysis.web_page import TEMPLATES

# Characters. A browser lays out this much of a drawing at once; beyond it, pixels are quicker.
_LARGEST_DRAWING = 700_000
_LARGEST_SUM = 2_000_000
_COLOURS = 128  # of a picture in pixels

_CAPTIONS = {
    "comparison": "Training loss, validation loss and final validation losses under one legend.",
    "training_loss": "Training loss over optimizer steps.",
    "validation_loss": "Validation loss over optimizer steps.",
    "final_validation_loss": "Final validation loss of every arm, with its seeds.",
    "learning_rate": "Final validation loss against the learning rate.",
    "gradient_vanishing": "Signal, information and gradient by depth; lines are theory.",
    "layernorm_vs_rmsnorm": "What each norm does to tokens, what it does not feel, its time.",
    "norm_comparison": "The four configurations at one learning rate and each at its own best.",
    "prenorm_vs_postnorm": "Norm before or after: final loss by depth, learning rate and warm-up.",
    "probes": "Inside the model, depth by step.",
    "probes_sublayers": "Inside and after the sublayers, depth by step.",
    "probes_norms": "The norms' own parameters, depth by step.",
}

_FILE_ONLY = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.S)
_STYLE = re.compile(r"<style.*?</style>", re.S)
_OPENING = re.compile(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>')
_ID = re.compile(r'\bid="([^"]*)"')
_REFERENCE = re.compile(r'(?:xlink:)?href="#([^"]*)"|url\(#([^)]*)\)')
_PATH = re.compile(r'(?<= d=")[^"]*')
_INLINE_STYLE = re.compile(r'(?<= style=")[^"]*')
_COLOUR = re.compile(r"#([0-9a-f]{6})\b")
# The colours for which the page's style has others on a dark ground.
_ON_DARK = frozenset(
    re.findall(r"--on-([0-9a-f]{6}):", (TEMPLATES / "report.css").read_text(encoding="utf-8"))
)
_DIGITS = re.compile(r"(\.\d\d)\d+")


@dataclass(frozen=True)
class InlineFigure:
    """A figure, as `image` to put into a page.

    Attributes:
        is_vector: whether it is the drawing itself, unless that is too large.
        tells: whether it says what is drawn where one points at it.
    """

    name: str
    caption: str
    image: Markup
    is_vector: bool
    tells: bool


def figures(files: Sequence[Path]) -> list[InlineFigure]:
    """The figures among the files that our own matplotlib has just written, in their order.

    Raises:
        OSError: a file cannot be read.
    """
    found, total = [], 0
    for path in files:
        if path.suffix != ".svg":
            continue
        name, told = path.stem, caption(path.stem)
        drawing = _drawing(path.read_text(encoding="utf-8"), name, told)
        is_vector = len(drawing) <= _LARGEST_DRAWING and total + len(drawing) <= _LARGEST_SUM
        if is_vector:
            total += len(drawing)
        image = drawing if is_vector else _pixels(path.with_suffix(".png"), told)
        found.append(InlineFigure(name, told, image, is_vector, "<title>" in image))
    return found


def captioned() -> tuple[str, ...]:
    """The names of the figures that a report can hold, apart from those of single scalars."""
    return tuple(_CAPTIONS)


def caption(name: str) -> str:
    """What the figure of this name shows."""
    return _CAPTIONS.get(name) or name.replace("_", " ").capitalize() + "."


def _drawing(svg: str, name: str, told: str) -> Markup:
    """The drawing with ids of its own, for a page holds many; hundredths of a point are enough."""
    svg = _STYLE.sub("", _FILE_ONLY.sub("", svg))
    label = Markup('role="img" aria-label="{}"').format(told)
    svg = _OPENING.sub(lambda found: f"<svg {found[1]} {label}>", svg, count=1)
    svg = _ID.sub(lambda found: f'id="{name}-{found[1]}"', svg)
    svg = _REFERENCE.sub(
        lambda found: f'href="#{name}-{found[1]}"' if found[1] else f"url(#{name}-{found[2]})", svg
    )
    svg = _PATH.sub(lambda found: _DIGITS.sub(r"\1", found[0]).replace("\n", ""), svg)
    svg = _INLINE_STYLE.sub(lambda found: _COLOUR.sub(_variable, found[0]), svg)
    return Markup(re.sub(r"\s*\n\s*", "\n", svg).strip())


def _variable(colour: re.Match[str]) -> str:
    """A colour as a variable of the page's style, which has another value on a dark ground."""
    return f"var(--on-{colour[1]}, {colour[0]})" if colour[1] in _ON_DARK else colour[0]


def _pixels(png: Path, told: str) -> Markup:
    """The picture in fewer colours, a third of its size."""
    with Image.open(png) as picture:
        few = picture.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    packed = BytesIO()
    few.save(packed, "PNG")
    data = b64encode(packed.getvalue()).decode()
    return Markup('<img src="data:image/png;base64,{}" alt="{}">').format(data, told)
