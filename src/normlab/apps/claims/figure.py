"""One row a claim: what was claimed, what was published and what was measured, with intervals.

The rows have unlike units, so each has a scale of its own: what is drawn of it fills the row, and
the numbers stand beside. A dot whose bar lies within the shaded part reproduces its claim.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from normlab.analysis import sheet
from normlab.analysis.sheet import shorten_text, wrap_text
from normlab.analysis.style import GREY, INK, WIDTH, figure_style
from normlab.apps.claims.show import interval, number, tally
from normlab.apps.claims.verdicts import Judged, Report, Word

# Colour, mark and filling of every word; the marks differ for those who cannot tell the colours.
LOOKS: dict[Word, tuple[str, str, str]] = {
    "reproduced": ("#0072B2", "o", "full"),
    "not reproduced": ("#B26E00", "s", "full"),
    "refuted": ("#D55E00", "v", "full"),
    "cannot tell": ("#6E6E6E", "o", "none"),
}
_CLAIMED, _ABSENT = "#CDE7DC", "#E3E3E3"

MOST_ROWS = 60

# Inches a row; where the columns begin, in shares of the width.
_ROW = 0.235
_NAME, _LEFT, _RIGHT, _WORD, _VALUE = 0.01, 0.265, 0.465, 0.48, 0.605
_PAD = 0.12  # of a row's scale, on both sides


class _Scale(NamedTuple):
    low: float
    high: float

    def place(self, value: float | None, end: float) -> float:
        """Where a value stands between 0 and 1; an open end is `end`."""
        if value is None:
            return end
        share = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))


def draw(report: Report, folder: Path, name: str = "claims") -> list[Path]:
    """Write `<name>.png` and `.svg`, and return both. Raises OSError."""
    with figure_style():
        note = (
            f"{tally(report)}\nEvery row has a scale of its own: shaded, where the interval must "
            "lie for the claim to hold; grey, where there is no effect."
        )
        shown, hidden = report.judged[:MOST_ROWS], len(report.judged) - MOST_ROWS
        if hidden > 0:
            note += f"\nThe first {MOST_ROWS} claims; {hidden} more are in the table."
        height = _ROW * (len(shown) + 1)
        figure, body = sheet.create_sheet(
            "Claims, published against measured", note, _legend(), height
        )
        axes = body.add_axes((0, 0, 1, 1))
        _rows(axes, shown)
        return sheet.save_figure(figure, folder, name)


def _legend() -> tuple[list[Artist], list[str]]:
    handles: list[Artist] = [
        Line2D([], [], color=colour, marker=mark, fillstyle=filling, ms=5)  # type: ignore[arg-type]
        for colour, mark, filling in LOOKS.values()
    ]
    labels: list[str] = list(LOOKS)
    handles += [Line2D([], [], color=INK, marker="D", mfc="white", ls="", ms=5)]
    handles += [Patch(color=_CLAIMED), Patch(color=_ABSENT)]
    return handles, [*labels, "published", "as claimed", "no effect"]


def _rows(axes: Axes, judged: Sequence[Judged]) -> None:
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(len(judged) - 0.5, -1.2)
    for x, head in ((_NAME, "claim"), (_WORD, "verdict"), (_VALUE, "published → measured")):
        axes.text(x, -0.8, head, fontsize=8, color=GREY, va="center")
    for at, one in enumerate(judged):
        if at:
            axes.axhline(at - 0.5, 0.01, 0.99, color="#EEEEEE", lw=0.6)
        _row(axes, at, one)


def _row(axes: Axes, at: int, one: Judged) -> None:
    colour, mark, filling = LOOKS[one.word]
    axes.text(_NAME, at, shorten_text(one.name, _width(_NAME, _LEFT), 8), fontsize=8, va="center")
    axes.text(
        _VALUE,
        at,
        wrap_text(_numbers(one), _width(_VALUE, 1.0), 7, lines=1),
        fontsize=7,
        va="center",
    )
    axes.text(_WORD, at, one.word, fontsize=8, va="center", color=colour, weight="bold")
    scale = _scale(one)
    x = [_LEFT + (_RIGHT - _LEFT) * share for share in (0.0, 1.0)]

    def place(value: float | None, end: float = 0.0) -> float:
        return x[0] + (x[1] - x[0]) * scale.place(value, end)

    for region, shade, tall in ((one.absent, _ABSENT, 0.3), (one.claimed, _CLAIMED, 0.38)):
        if region is not None:
            left, right = place(region.low, 0.0), place(region.high, 1.0)
            axes.fill_betweenx([at - tall, at + tall], left, max(right, left + 2e-3), color=shade)
    if one.published_value is not None:
        axes.plot(place(one.published_value), at, "D", color=INK, mfc="white", ms=4.5, zorder=3)
    if one.value is None:
        return
    if one.low is not None and one.high is not None:
        axes.plot([place(one.low), place(one.high)], [at, at], color=colour, lw=1.6, zorder=4)
    axes.plot(place(one.value), at, mark, color=colour, fillstyle=filling, ms=5.5, zorder=5)


def _scale(one: Judged) -> _Scale:
    """Holds every finite number of the row, with room for the open ends."""
    regions = [region for region in (one.claimed, one.absent) if region is not None]
    numbers = [one.value, one.low, one.high, one.published_value]
    numbers += [end for region in regions for end in (region.low, region.high)]
    known = [value for value in numbers if value is not None]
    low, high = min(known), max(known)
    room = _PAD * ((high - low) or abs(high) or 1.0)
    return _Scale(low - room, high + room)


def _numbers(one: Judged) -> str:
    published = "" if one.published_value is None else f"{number(one.published_value)} → "
    if one.value is None:
        return f"{published}–"
    return f"{published}{number(one.value)}{interval(one)} {one.unit}"


def _width(left: float, right: float) -> float:
    """Inches between two shares of the width, less a margin."""
    return WIDTH * (right - left) - 0.1
