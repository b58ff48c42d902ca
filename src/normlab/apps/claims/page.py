"""Verdicts in words: a line a claim in the terminal, docs/claims.md, what all of them mean."""

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from normlab.apps.claims.record import MEANINGS, ClaimsRecord, ClaimVerdict, Range, RunCounts
from normlab.archive.files import write_text
from normlab.text import printable

if TYPE_CHECKING:
    from rich.console import Console

_COLOURS = {
    "reproduced": "green",
    "not reproduced": "yellow",
    "refuted": "red",
    "cannot tell": "dim",
    "vacuous": "dim",
    "out of regime": "dim",
}


def print_verdicts(console: "Console", record: ClaimsRecord) -> None:
    """Print what came out of the claims, and what the words mean."""
    from rich.markup import escape

    for verdict in record.verdicts:
        word = verdict.word
        console.print(f"[{_COLOURS[word]}]{word:14}[/] [bold]{escape(verdict.name)}[/]")
        for line in verdict_lines(verdict):
            console.print(f"               {line}", markup=False)
    console.print(f"\n{tally_verdicts(record)}", markup=False)
    for word, meaning in MEANINGS.items():
        if any(verdict.word == word for verdict in record.verdicts):
            console.print(f"{word:14} {meaning}", markup=False, style="dim")


def verdict_lines(verdict: ClaimVerdict) -> list[str]:
    """What a claim says, what was published, what was measured, what is different here."""
    lines = [f"{verdict.statement} ({verdict.source})", f"published  {verdict.published}"]
    if verdict.value is not None:
        lines.append(f"measured   {describe_result(verdict)}")
    if verdict.value is None or verdict.reason:
        lines.append(f"because    {verdict.reason}")
    return [*lines, f"differs    {verdict.differs}"]


def tally_verdicts(record: ClaimsRecord) -> str:
    """How many verdicts of each word."""
    counts = Counter(verdict.word for verdict in record.verdicts)
    words = ", ".join(f"{counts[word]} {word}" for word in MEANINGS if counts[word])
    plural = "" if counts.total() == 1 else "s"
    return f"{counts.total()} claim{plural} at budget={record.budget}: {words}."


def write_page(path: Path, record: ClaimsRecord) -> None:
    """Write docs/claims.md atomically: a table, then a section a claim. Raises OSError."""
    rows = []
    for v in record.verdicts:
        value = "–" if v.value is None else f"{describe_value(v)} {v.unit}"
        cells = (f"[{v.name}](#{v.name})", _link_source(v.source), v.published, value, v.word)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    head = _PAGE.format(
        budget=record.budget,
        meanings="\n".join(f"- **{word}**: {meaning}." for word, meaning in MEANINGS.items()),
    )
    write_text(path, printable("".join([head, *rows, *map(_write_section, record.verdicts)])))


_PAGE = """\
# Claims

What is said of normalization, put to a test by rule: `python scripts/claims.py budget={budget}` \
trains and measures what is missing and writes this page with `--docs`. Each claim is a file in \
`conf/claim/`; yours go into `claim/` of a folder that `--config-dir` names.

![What was claimed and what was measured](figures/claims.png)

{meanings}

| claim | source | published | measured, 95 % interval | verdict |
|---|---|---|---|---|
"""


def _write_section(verdict: ClaimVerdict) -> str:
    explanation = f"{describe_value(verdict)} {verdict.unit}.".replace(" .", ".")
    if verdict.reason:
        explanation = f"{verdict.reason[0].upper()}{verdict.reason[1:]}."
    condition = describe_range(verdict.claimed)
    if verdict.absent is not None:
        condition += f", and is absent from {describe_range(verdict.absent)}"
    runs, seeds = describe_runs(verdict.runs), ", ".join(map(str, verdict.seeds))
    return f"""
## {verdict.name}

*{verdict.statement}* {_link_source(verdict.source)}

**{verdict.word.capitalize()}.** {explanation}

- published: {verdict.published}
- obtained in: {verdict.setup}
- measured: {describe_result(verdict)}
- test: {verdict.kind}; the claim holds {condition}
- different here: {verdict.differs}
- {"runs: " + runs if runs else "no training"}{"; seeds " + seeds if seeds else ""}
- again: `{verdict.command}`
- {verdict.machine}, {verdict.date}
"""


def _link_source(source: str) -> str:
    """An arXiv id as a link."""
    first, _, rest = source.partition(" ")
    if first.replace(".", "").isdigit() and "." in first:
        return f"[{first}](https://arxiv.org/abs/{first}) {rest}".rstrip()
    return source


def describe_result(verdict: ClaimVerdict) -> str:
    """`-0.031 [-0.040, -0.022] nats; claimed: below 0; 3 pairs of seeds; 12 runs, 2 diverged`."""
    if verdict.value is None:
        return f"nothing: {verdict.reason}"
    value = f"{describe_value(verdict)} {verdict.unit}".rstrip()
    claimed = f"claimed: {describe_range(verdict.claimed)}"
    return "; ".join(filter(None, [value, claimed, verdict.basis, describe_runs(verdict.runs)]))


def describe_value(verdict: ClaimVerdict) -> str:
    """`-0.031 [-0.040, -0.022]`; no interval where there is none or, by nature, one of no width."""
    value = format_number(verdict.value or 0.0)
    if verdict.low is None or verdict.high is None or verdict.kind == "exact":
        return value
    return f"{value} [{format_number(verdict.low)}, {format_number(verdict.high)}]"


def describe_range(range_: Range) -> str:
    """`below 0`, `above 1.07`, `0.95 to 1.05`, as the claim's file says it."""
    # What stands for the first number beyond zero is zero.
    low, high = (
        None if end is None else "0" if abs(end) < 1e-300 else f"{end:.6g}"
        for end in (range_.low, range_.high)
    )
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"below {high or 0}" if low is None else f"above {low}"


def describe_runs(runs: RunCounts) -> str:
    """`12 runs, 2 diverged`; empty where none was needed."""
    if not runs.total:
        return ""
    counts = (("diverged", runs.diverged), ("failed", runs.failed), ("missing", runs.missing))
    total = f"{runs.total} run{'' if runs.total == 1 else 's'}"
    return ", ".join([total, *(f"{count} {word}" for word, count in counts if count)])


def format_number(value: float) -> str:
    """Three figures; what is far from 1 by its power of ten."""
    if abs(value) < 1e-300:
        return "0"
    if not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"
