"""One row a claim: what was claimed, what was published and what was measured, with intervals.

The rows have unlike units, so each has a scale of its own, and the numbers stand at its right. A
dot whose bar lies within the shaded part reproduces its claim.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from normlab.analysis import sheet
from normlab.analysis.formatting import format_number
from normlab.analysis.sheet import shorten_text, wrap_text
from normlab.analysis.style import GREY, INK, WIDTH, figure_style
from normlab.apps.claims.page import describe_value
from normlab.apps.claims.record import ClaimsRecord, ClaimVerdict, Range, Verdict

# Colour, mark and filling of every word; the marks differ for those who cannot tell the colours.
# Of what is not measured there is no number to mark.
LOOKS: dict[Verdict, tuple[str, str, str]] = {
    "reproduced": ("#0072B2", "o", "full"),
    "not reproduced": ("#B26E00", "s", "full"),
    "refuted": ("#D55E00", "v", "full"),
    "cannot tell": ("#6E6E6E", "o", "none"),
    "vacuous": ("#6E6E6E", "x", "full"),
    "out of regime": ("#6E6E6E", "D", "none"),
    "not measured": ("#6E6E6E", "", "none"),
}
_CLAIMED, _ABSENT = "#CDE7DC", "#E3E3E3"

MOST_ROWS = 60

# Inches a row; where the columns begin, in shares of the width.
_ROW = 0.235
_NAME, _LEFT, _RIGHT, _WORD, _VALUE = 0.01, 0.265, 0.46, 0.475, 0.608
_PAD = 0.12  # of an axis of effects, on both sides


def draw_claims(record: ClaimsRecord, folder: Path, name: str = "claims") -> list[Path]:
    """Write `<name>.png` and `.svg`, and return both. Raises OSError."""
    with figure_style():
        note = (
            f"Runs at budget={record.budget}. Every row has a scale of its own: shaded, where the "
            "interval must lie for the claim to hold; grey, where there is no effect."
        )
        rows, hidden = record.verdicts[:MOST_ROWS], len(record.verdicts) - MOST_ROWS
        if hidden > 0:
            note += f"\nThe first {MOST_ROWS} claims; {hidden} more are in the table."
        published = Line2D([], [], color=INK, marker="D", mfc="white", ls="", ms=5)
        height = _ROW * (len(rows) + 1)
        figure, body = sheet.create_sheet(
            "Claims, published against measured", note, create_legend(published), height
        )
        _draw_rows(body.add_axes((0, 0, 1, 1)), rows)
        return sheet.save_figure(figure, folder, name)


def create_legend(published: Artist) -> tuple[list[Artist], list[str]]:
    """The handles and labels of every marked word, the shaded ranges, the published number's."""
    marked = {word: look for word, look in LOOKS.items() if look[1]}
    handles: list[Artist] = [
        Line2D([], [], color=colour, marker=mark, fillstyle=filling, ms=5)  # type: ignore[arg-type]
        for colour, mark, filling in marked.values()
    ]
    handles += [published, Patch(color=_CLAIMED), Patch(color=_ABSENT)]
    return handles, [*marked, "published", "as claimed", "no effect"]


def range_shades(verdict: ClaimVerdict) -> list[tuple[Range, str]]:
    """The ranges of no effect and of the claim, each with its colour."""
    absent = [] if verdict.absent is None else [(verdict.absent, _ABSENT)]
    return [*absent, (verdict.claimed, _CLAIMED)]


def _draw_rows(axes: Axes, verdicts: Sequence[ClaimVerdict]) -> None:
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    # Downwards, with room for the heads above the first row.
    axes.set_ylim(len(verdicts) - 0.5, -1.2)
    for x, head in ((_NAME, "claim"), (_WORD, "verdict"), (_VALUE, "published → measured")):
        axes.text(x, -0.8, head, fontsize=8, color=GREY, va="center")
    for row, verdict in enumerate(verdicts):
        if row:
            axes.axhline(row - 0.5, 0.01, 0.99, color="#EEEEEE", lw=0.6)
        _draw_row(axes, row, verdict)


def _draw_row(axes: Axes, row: int, verdict: ClaimVerdict) -> None:
    colour, mark, filling = LOOKS[verdict.word]
    name = shorten_text(verdict.name, _inches(_NAME, _LEFT), 8)
    published = verdict.published_value
    numbers = "" if published is None else f"{format_number(published)} → "
    numbers += "–" if verdict.value is None else f"{describe_value(verdict)} {verdict.unit}"
    numbers = wrap_text(numbers, _inches(_VALUE, 1.0), 7, lines=1)
    axes.text(_NAME, row, name, fontsize=8, va="center")
    axes.text(_VALUE, row, numbers, fontsize=7, va="center")
    axes.text(_WORD, row, verdict.label, fontsize=8, va="center", color=colour, weight="bold")

    # The scale of the row holds every finite number of it, with space for the open ends.
    ranges = range_shades(verdict)
    ends = [verdict.value, verdict.low, verdict.high, verdict.published_value]
    ends += [end for range_, _ in ranges for end in (range_.low, range_.high)]
    low, high = find_limits(ends)

    def scale_x(value: float) -> float:
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return _LEFT + (_RIGHT - _LEFT) * share

    for range_, shade in ranges:
        tall = 0.38 if shade == _CLAIMED else 0.3
        left = _LEFT if range_.low is None else scale_x(range_.low)
        right = _RIGHT if range_.high is None else scale_x(range_.high)
        # A range of no width is drawn as a thin line.
        axes.fill_betweenx([row - tall, row + tall], left, max(right, left + 2e-3), color=shade)
    if published is not None:
        x = scale_x(published)
        axes.plot(x, row, "D", color=INK, mfc="white", ms=4.5, zorder=3)
    if verdict.value is None:
        return
    if verdict.low is not None and verdict.high is not None:
        bar = [scale_x(verdict.low), scale_x(verdict.high)]
        axes.plot(bar, [row, row], color=colour, lw=1.6, zorder=4)
    x = scale_x(verdict.value)
    axes.plot(x, row, mark, color=colour, fillstyle=filling, ms=5.5, zorder=5)


def find_limits(values: Iterable[float | None]) -> tuple[float, float]:
    """From below the lowest to above the highest of the values that are known."""
    finite = [value for value in values if value is not None]
    # A share of the numbers' span, or where all are the same one, of its size.
    pad = _PAD * ((max(finite) - min(finite)) or abs(max(finite)) or 1.0)
    return min(finite) - pad, max(finite) + pad


def _inches(left: float, right: float) -> float:
    """Inches between two shares of the width, less a margin."""
    return WIDTH * (right - left) - 0.1
