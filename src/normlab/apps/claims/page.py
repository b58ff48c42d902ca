"""docs/claims.md, written from judged claims: a table, then a section a claim."""

from collections.abc import Iterator
from pathlib import Path

from normlab.apps.claims.show import counted, interval, measured, number, region, tally
from normlab.apps.claims.verdicts import WORDS, Judged, Report
from normlab.apps.claims.words import MEANING
from normlab.archive.files import write_text
from normlab.text import printable

FIGURE = "figures/claims.png"


def write(path: Path, report: Report) -> None:
    """Write the page, whole or not at all. Raises OSError."""
    write_text(path, printable("\n".join(_page(report)) + "\n"))


def _page(report: Report) -> Iterator[str]:
    yield "# Claims"
    yield ""
    yield (
        "What is said of normalization, put to a test by rule: `python scripts/claims.py "
        f"budget={report.budget}` trains and measures what is missing and writes this page with "
        "`--docs`. Each claim is a file in `conf/claim/`; yours go into `claim/` of a folder that "
        "`--config-dir` names."
    )
    yield ""
    yield f"![What was claimed and what was measured]({FIGURE})"
    yield ""
    yield tally(report)
    yield ""
    yield from (f"- **{word}**: {MEANING[word]}." for word in WORDS)
    yield ""
    yield "| claim | source | published | measured, 95 % interval | verdict |"
    yield "|---|---|---|---|---|"
    for one in report.judged:
        value = "–" if one.value is None else f"{number(one.value)}{interval(one)} {one.unit}"
        cells = (f"[{one.name}](#{one.name})", _source(one.source), one.published, value, one.word)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    for one in report.judged:
        yield from _section(one)


def _section(one: Judged) -> Iterator[str]:
    yield ""
    yield f"## {one.name}"
    yield ""
    yield f"*{one.statement}* {_source(one.source)}"
    yield ""
    yield f"**{one.word.capitalize()}.** {_why(one)}"
    yield ""
    yield f"- published: {one.published}"
    yield f"- obtained in: {one.setup}"
    yield f"- measured: {measured(one)}"
    yield f"- test: {one.kind}; the claim holds {_where(one)}"
    yield f"- different here: {one.differs}"
    runs = counted(one.runs)
    seeds = ", ".join(map(str, one.seeds))
    yield f"- {'runs: ' + runs if runs else 'no training'}{'; seeds ' + seeds if seeds else ''}"
    yield f"- again: `{one.command}`"
    yield f"- {one.machine}, {one.date}"


def _why(one: Judged) -> str:
    if one.reason:
        return f"{one.reason[0].upper()}{one.reason[1:]}."
    return f"{number(one.value or 0.0)}{interval(one)} {one.unit}.".replace(" .", ".")


def _where(one: Judged) -> str:
    where = region(one.claimed)
    return where if one.absent is None else f"{where}, and is absent from {region(one.absent)}"


def _source(source: str) -> str:
    """An arXiv id as a link."""
    first, _, rest = source.partition(" ")
    if first.replace(".", "").isdigit() and "." in first:
        return f"[{first}](https://arxiv.org/abs/{first}) {rest}".rstrip()
    return source
