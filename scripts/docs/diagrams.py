"""The block diagrams of docs/learn/figures: one SVG per placement, drawn from conf/placement.

    python scripts/docs/diagrams.py

Which sites hold a norm is read from the resolved placement, so a diagram cannot show a norm that
the model does not have. Only placements of one stream with unit scales can be drawn.
"""

from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from normlab import config
from normlab.apps.catalogue import read_entry
from normlab.archive.files import write_text
from normlab.config.placement import (
    END_SITES,
    ResolvedPlacement,
    ResolvedSublayer,
    resolve_placement,
)
from normlab.study.composition import compose_specs

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "learn" / "figures"
PLACEMENTS = ("pre", "post", "sandwich", "output", "parallel")
_DRAWN_SITES = {"input", "output", "stream"}
_LABELS = {"attention": "attention", "feedforward": "feed-forward"}

# Pixels. The residual stream runs down at _STREAM, the sublayers stand right of it.
_STREAM, _BRANCH, _BRANCH_STEP = 150, 330, 165
_BOX_WIDTH, _BOX_HEIGHT, _GAP = 136, 34, 34
_SUBLAYER_SHAPE = "(B, T, d)"

# The background is part of the picture: whichever page shows it, text and lines have contrast.
_STYLE = """
svg { --back: #ffffff; --ink: #1b1f24; --quiet: #57606a; --line: #57606a; --box: #eef1f4;
  --norm: #ffd8a8; --norm-line: #b35900; font: 14px system-ui, "Segoe UI", Helvetica, sans-serif; }
@media (prefers-color-scheme: dark) { svg { --back: #161b22; --ink: #e6edf3; --quiet: #a6b0bb;
  --line: #8b949e; --box: #2a313a; --norm: #6b3d0a; --norm-line: #ffb35c; } }
.back { fill: var(--back); } text { fill: var(--ink); } .quiet { fill: var(--quiet); }
.title { font-size: 17px; font-weight: 600; } .middle { text-anchor: middle; }
.shape { font-size: 12px; fill: var(--quiet); }
.line { stroke: var(--line); stroke-width: 1.6; fill: none; }
.stream { stroke: var(--ink); stroke-width: 3; fill: none; }
.head { fill: var(--line); } .stream-head { fill: var(--ink); }
.box { fill: var(--box); stroke: var(--line); }
.norm { fill: var(--norm); stroke: var(--norm-line); stroke-width: 1.6; }
.block { fill: none; stroke: var(--quiet); stroke-dasharray: 6 5; }
"""


@dataclass
class Drawing:
    """Elements of an SVG, and the rightmost point so far, in pixels."""

    elements: list[str] = field(default_factory=list)
    right: float = 0.0

    def add_text(self, x: float, y: float, words: str, style: str) -> None:
        """Text whose baseline begins at (x, y)."""
        self.elements.append(f'<text x="{x:g}" y="{y:g}" class="{style}">{escape(words)}</text>')

    def add_box(self, x: float, y: float, words: str, style: str) -> float:
        """A box centred at x whose top is at y; returns its bottom."""
        self.elements.append(
            f'<rect x="{x - _BOX_WIDTH / 2:g}" y="{y:g}" width="{_BOX_WIDTH}" '
            f'height="{_BOX_HEIGHT}" rx="6" class="{style}"/>'
        )
        self.add_text(x, y + 22, words, "middle")
        self.right = max(self.right, x + _BOX_WIDTH / 2)
        return y + _BOX_HEIGHT

    def add_arrow(self, points: list[tuple[float, float]], stream: bool = False) -> None:
        """A line through these points with a head at the last."""
        style = "stream" if stream else "line"
        marker = "stream-arrow" if stream else "arrow"
        path = " L ".join(f"{x:g} {y:g}" for x, y in points)
        self.elements.append(f'<path d="M {path}" class="{style}" marker-end="url(#{marker})"/>')

    def add_sum(self, x: float, y: float) -> None:
        """A circle with a plus, centred at (x, y)."""
        self.elements.append(f'<circle cx="{x:g}" cy="{y:g}" r="11" class="box"/>')
        self.elements.append(
            f'<path d="M {x - 6:g} {y:g} H {x + 6:g} M {x:g} {y - 6:g} V {y + 6:g}" class="line"/>'
        )

    def to_svg(self, height: float, title: str, description: str) -> str:
        """The file."""
        width = self.right + 24
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}" role="img" aria-labelledby="title text">'
        )
        markers = "".join(
            f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="{size}" '
            f'markerHeight="{size}" orient="auto"><path d="M 0 0 L 10 5 L 0 10 z" class="{style}"/>'
            "</marker>"
            for name, size, style in (("arrow", 7, "head"), ("stream-arrow", 5, "stream-head"))
        )
        return "\n".join(
            [
                head,
                f'<title id="title">{escape(title)}</title>',
                f'<desc id="text">{escape(description)}</desc>',
                f"<style>{_STYLE}</style><defs>{markers}</defs>",
                '<rect width="100%" height="100%" rx="10" class="back"/>',
                *self.elements,
                "</svg>\n",
            ]
        )


def resolve_by_name(name: str) -> ResolvedPlacement:
    """The placement of conf/placement with RMSNorm, for the default model."""
    settings = compose_specs(["norm=rmsnorm", f"placement={name}"])[0].config
    return resolve_placement(settings.placement, settings.norm, settings.model.depth)


def check_drawable(name: str, placement: ResolvedPlacement) -> None:
    """Refuse a placement that a diagram would show wrongly.

    Raises:
        ValueError: it has scales, other sites, or blocks that differ.
    """
    for block in placement.blocks:
        for sublayer in block.values():
            sites = {site for site, norm in sublayer.norms.items() if norm is not None}
            scales = {key: scale.value for key, scale in sublayer.scales.items()}
            # Every scale is 1, but the skip of a whole block, which most placements have at 0.
            unit = scales == {key: float(key != "block_skip") for key in scales}
            if not sites <= _DRAWN_SITES or not unit or block != placement.blocks[0]:
                raise ValueError(f"placement={name} has more than a diagram shows")


def draw_placement(name: str) -> str:
    """The SVG of a placement of conf/placement."""
    placement = resolve_by_name(name)
    check_drawable(name, placement)
    entry = read_entry(config.conf_folder() / "placement" / f"{name}.yaml")
    drawing = Drawing()
    drawing.add_text(24, 34, entry.title, "title")
    drawing.add_text(24, 56, entry.equation.replace("<-", "←"), "quiet")
    y = _draw_box(drawing, 78, "embedding", "box", "tokens (B, T)")
    if placement.ends["embedding"] is not None:
        y = _draw_box(drawing, y, "norm", "norm")
    top = y + 16
    attention, feedforward = placement.blocks[0].values()
    if feedforward.reads == "block":
        y = _draw_parallel(drawing, y, [attention, feedforward])
    else:
        y = _draw_sublayer(drawing, y, "attention", attention)
        y = _draw_sublayer(drawing, y, "feedforward", feedforward)
    right = drawing.right + 16
    drawing.elements.append(
        f'<rect x="24" y="{top:g}" width="{right - 24:g}" height="{y + 14 - top:g}" rx="10" '
        'class="block"/>'
    )
    drawing.add_text(right - 76, y + 6, "× L blocks", "shape")
    drawing.right = right
    drawing.elements.append(f'<path d="M {_STREAM} {y:g} V {y + 14:g}" class="stream"/>')
    y += 14
    if placement.ends["final"] is not None:
        y = _draw_box(drawing, y, "final norm", "norm", _SUBLAYER_SHAPE)
    y = _draw_box(drawing, y, "head", "box", _SUBLAYER_SHAPE)
    y = _draw_box(drawing, y, "cross-entropy", "box", "logits (B, T, V)")
    drawing.add_text(
        24, y + 28, "B sequences, T tokens, d features, V symbols; orange: a norm", "shape"
    )
    return drawing.to_svg(y + 44, entry.title, describe(placement))


def _draw_box(drawing: Drawing, y: float, words: str, style: str, shape: str = "") -> float:
    """A box on the stream, with an arrow from y into it; returns its bottom."""
    drawing.add_arrow([(_STREAM, y), (_STREAM, y + _GAP)], stream=True)
    drawing.add_text(_STREAM + 10, y + 20, shape, "shape")
    return drawing.add_box(_STREAM, y + _GAP, words, style)


def _draw_branch(
    drawing: Drawing, x: float, y: float, name: str, wiring: ResolvedSublayer
) -> float:
    """The boxes of a branch below each other at x; returns the bottom of the last."""
    boxes = [("norm", "norm")] * (wiring.norms["input"] is not None)
    boxes += [(_LABELS[name], "box")]
    boxes += [("norm", "norm")] * (wiring.norms["output"] is not None)
    drawing.add_arrow([(_STREAM, y), (x, y), (x, y + _GAP)])
    drawing.add_text(x + 8, y + 20, _SUBLAYER_SHAPE, "shape")
    bottom = drawing.add_box(x, y + _GAP, *boxes[0])
    for words, style in boxes[1:]:
        drawing.add_arrow([(x, bottom), (x, bottom + _GAP)])
        drawing.add_text(x + 8, bottom + 20, _SUBLAYER_SHAPE, "shape")
        bottom = drawing.add_box(x, bottom + _GAP, words, style)
    return bottom


def _draw_sublayer(drawing: Drawing, y: float, name: str, wiring: ResolvedSublayer) -> float:
    """One residual sublayer from y on; returns where the stream leaves it."""
    fork = y + _GAP
    bottom = _draw_branch(drawing, _BRANCH, fork, name, wiring)
    join = bottom + _GAP
    drawing.add_arrow([(_STREAM, y), (_STREAM, join - 11)], stream=True)
    drawing.add_text(_STREAM - 64, fork + 20, _SUBLAYER_SHAPE, "shape")
    drawing.add_arrow([(_BRANCH, bottom), (_BRANCH, join), (_STREAM + 11, join)])
    drawing.add_text(_STREAM + 60, join - 6, _SUBLAYER_SHAPE, "shape")
    drawing.add_sum(_STREAM, join)
    if wiring.norms["stream"] is None:
        return join + 11
    return _draw_box(drawing, join + 11, "norm", "norm")


def _draw_parallel(drawing: Drawing, y: float, wirings: list[ResolvedSublayer]) -> float:
    """Two sublayers that read the same stream and are added one after the other."""
    fork = y + _GAP
    join = fork
    for number, (name, wiring) in enumerate(zip(_LABELS, wirings, strict=True)):
        x = _BRANCH + number * _BRANCH_STEP
        bottom = _draw_branch(drawing, x, fork, name, wiring)
        # Each sublayer has a sum of its own, below that of the one before.
        join = max(join + 10, bottom) + _GAP
        drawing.add_arrow([(x, bottom), (x, join), (_STREAM + 11, join)])
        drawing.add_text(_STREAM + 60, join - 6, _SUBLAYER_SHAPE, "shape")
    first = join - _GAP - 10
    drawing.add_arrow([(_STREAM, y), (_STREAM, first - 11)], stream=True)
    drawing.add_arrow([(_STREAM, first), (_STREAM, join - 11)], stream=True)
    drawing.add_text(_STREAM - 64, fork + 20, _SUBLAYER_SHAPE, "shape")
    drawing.add_sum(_STREAM, first)
    drawing.add_sum(_STREAM, join)
    return join + 11


def describe(placement: ResolvedPlacement) -> str:
    """What the diagram shows, for those who hear it."""
    words = {
        "input": "before the sublayer",
        "output": "after the sublayer, before the addition",
        "stream": "on the residual stream, after the addition",
    }
    parts = []
    for name, wiring in placement.blocks[0].items():
        sites = [words[site] for site in words if wiring.norms[site] is not None]
        reads = "the stream as it entered the block" if wiring.reads == "block" else "the stream"
        parts.append(f"{_LABELS[name]} reads {reads}; a norm stands {' and '.join(sites)}.")
    ends = [site for site in END_SITES if placement.ends[site] is not None]
    last = f"Norms at the ends of the model: {', '.join(ends) or 'none'}."
    return " ".join([part[0].upper() + part[1:] for part in parts] + [last])


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for placement_name in PLACEMENTS:
        write_text(FOLDER / f"{placement_name}.svg", draw_placement(placement_name))
        print(f"wrote {FOLDER / placement_name}.svg")
