"""Judged claims in words: a line a claim, and what all of them together mean."""

import math
from collections import Counter
from typing import TYPE_CHECKING

from normlab.apps.claims.verdicts import WORDS, Judged, Range, Report, Runs
from normlab.apps.claims.words import MEANING

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {
    "reproduced": "green",
    "not reproduced": "yellow",
    "refuted": "red",
    "cannot tell": "dim",
}


def show(console: "Console", report: Report) -> None:
    """Print what came out of every claim, and what the words mean."""
    from rich.markup import escape

    for one in report.judged:
        console.print(f"[{COLOURS[one.word]}]{one.word:14}[/] [bold]{escape(one.name)}[/]")
        for line in lines(one):
            console.print(f"               {line}", markup=False)
    console.print(f"\n{tally(report)}", markup=False)
    for word in WORDS:
        if any(one.word == word for one in report.judged):
            console.print(f"{word:14} {MEANING[word]}", markup=False, style="dim")


def lines(one: Judged) -> list[str]:
    """What a claim says, what was published, what was measured, what is different here."""
    said = [f"{one.statement} ({one.source})", f"published  {one.published}"]
    said.append(
        f"measured   {measured(one)}" if one.value is not None else f"because    {one.reason}"
    )
    if one.value is not None and one.reason:
        said.append(f"because    {one.reason}")
    return [*said, f"differs    {one.differs}"]


def measured(one: Judged) -> str:
    """`-0.031 [-0.040, -0.022] nats; claimed: below 0; 3 pairs of seeds; 12 runs, 2 diverged`."""
    if one.value is None:
        return f"nothing: {one.reason}"
    parts = [f"{number(one.value)}{interval(one)} {one.unit}".rstrip()]
    parts.append(f"claimed: {region(one.claimed)}")
    return "; ".join([*parts, *filter(None, [one.basis, counted(one.runs)])])


def interval(one: Judged) -> str:
    """` [low, high]`, or nothing where there is none, or where it has no width by its nature."""
    if one.low is None or one.high is None or one.kind == "exact":
        return ""
    return f" [{number(one.low)}, {number(one.high)}]"


def region(one: Range) -> str:
    """`below 0`, `above 1.07`, `0.95 to 1.05`."""
    if one.low is None or one.high is None:
        border = one.high if one.low is None else one.low
        return f"{'below' if one.low is None else 'above'} {_border(border or 0.0)}"
    return f"{_border(one.low)} to {_border(one.high)}"


def _border(value: float) -> str:
    """As the claim's file says it; what stands for the first number beyond zero is zero."""
    return "0" if abs(value) < 1e-300 else f"{value:.6g}"


def counted(runs: Runs) -> str:
    """`12 runs, 2 diverged`; empty where none was needed."""
    total = runs.finished + runs.diverged + runs.failed + runs.missing
    if not total:
        return ""
    others = (("diverged", runs.diverged), ("failed", runs.failed), ("missing", runs.missing))
    told = [f"{total} run{'' if total == 1 else 's'}"]
    return ", ".join([*told, *(f"{count} {word}" for word, count in others if count)])


def tally(report: Report) -> str:
    """How many of each word, and how far to trust so many verdicts."""
    words = Counter(one.word for one in report.judged)
    told = sum(count for word, count in words.items() if word != "cannot tell")
    counts = ", ".join(f"{words[word]} {word}" for word in WORDS if words[word])
    luck = (
        f" Each verdict is at 95 % by itself: of {told}, about {told / 20:.1f} may be luck."
        if told
        else ""
    )
    plural = "" if len(report.judged) == 1 else "s"
    return f"{len(report.judged)} claim{plural} at budget={report.budget}: {counts}.{luck}"


def number(value: float) -> str:
    """Three figures, written to be read."""
    if value == 0 or abs(value) < 1e-300:
        return "0"
    if not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"
