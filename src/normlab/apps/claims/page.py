"""Verdicts in words: lines in the terminal, docs/claims.md and docs/checks.md, what words mean."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from normlab.analysis.formatting import format_number
from normlab.apps.claims.claim import RUN_TESTS
from normlab.apps.claims.record import (
    CHECK_WORDS,
    MEANINGS,
    ClaimsRecord,
    ClaimVerdict,
    EarlierVerdict,
    IntervalVerdict,
    Range,
    RunCounts,
)
from normlab.archive.files import write_text
from normlab.text import count_noun, printable

if TYPE_CHECKING:
    from rich.console import Console

_COLOURS = {
    "reproduced": "green",
    "not reproduced": "yellow",
    "refuted": "red",
    "cannot tell": "dim",
    "vacuous": "dim",
    "out of regime": "dim",
    "not measured": "dim",
}


def print_verdicts(console: "Console", record: ClaimsRecord) -> None:
    """Print what came out of the claims, and what the words mean."""
    from rich.markup import escape

    for verdict in record.verdicts:
        colour = _COLOURS[verdict.word]
        console.print(f"[{colour}]{verdict.label:14}[/] [bold]{escape(verdict.name)}[/]")
        for line in verdict_lines(verdict):
            console.print(f"               {line}", markup=False)
    console.print(f"\n{tally_verdicts(record)}", markup=False)
    for word, meaning in MEANINGS.items():
        if any(verdict.label == word for verdict in record.verdicts):
            console.print(f"{word:14} {meaning}", markup=False, style="dim")


def verdict_lines(verdict: ClaimVerdict) -> list[str]:
    """What a claim says, what was published, what was measured, what is different here."""
    lines = [f"{verdict.statement} ({verdict.source})", f"published  {verdict.published}"]
    if verdict.value is not None:
        lines.append(f"measured   {describe_result(verdict)}")
    if verdict.value is None or verdict.reason:
        lines.append(f"because    {verdict.reason}")
    if len(verdict.horizons) > 1:
        lines += [
            f"{horizon.steps:>6} steps {describe_value(horizon)} {verdict.label_of(horizon.word)}"
            for horizon in verdict.horizons
        ]
    return [*lines, f"differs    {verdict.differs}"]


def tally_verdicts(record: ClaimsRecord) -> str:
    """How many verdicts of each word, claims and checks apart."""
    sentences = []
    for noun, part in zip(("claim", "check"), record.split_roles(), strict=True):
        counts = Counter(verdict.label for verdict in part.verdicts)
        labels = [*MEANINGS, *CHECK_WORDS.values()]
        words = ", ".join(f"{counts[label]} {label}" for label in labels if counts[label])
        if counts:
            total = count_noun(counts.total(), noun)
            sentences.append(f"{total} at budget={record.budget}: {words}.")
    return " ".join(sentences)


def write_pages(folder: Path, record: ClaimsRecord) -> tuple[Path, Path]:
    """Write claims.md and checks.md atomically, and return both: a table, then a section each.

    Raises:
        OSError: they cannot be written.
    """
    claims, checks = record.split_roles()
    meanings = "\n".join(f"- **{word}**: {meaning}." for word, meaning in MEANINGS.items())
    paths = folder / "claims.md", folder / "checks.md"
    for path, head, part in zip(paths, (_CLAIMS, _CHECKS), (claims, checks), strict=True):
        rows = []
        for v in part.verdicts:
            value = "–" if v.value is None else f"{describe_value(v)} {v.unit}"
            budget = v.budget or record.budget
            result = (v.published, value, budget, v.label)
            cells = (f"[{v.name}](#{v.name})", _link_source(v.source), *result)
            # A | of a text, as in |ln x|, would begin another cell.
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
        lengths = _LENGTHS if any(map(has_lengths, part.verdicts)) else ""
        intervals = sum(verdict.low is not None for verdict in part.verdicts)
        counts = {"intervals": intervals, "misses": f"{0.05 * intervals:.1f}"}
        text = head.format(meanings=meanings, lengths=lengths, **counts)
        write_text(path, printable("".join([text, *rows, *map(_write_section, part.verdicts)])))
    return paths


_CLAIMS = """\
# Claims

Published statements about normalization, each tested by fixed rules.
`python scripts/claims.py budget=quick` (or `standard`, `full`) trains and measures what is \
missing and writes this page with `--docs`: of each claim the verdict at the largest budget that \
measured it.
Each claim is a file in `conf/claim/`; yours go into `claim/` of a folder that `--config-dir` names.
Equations that must hold are on the page of [checks](checks.md); how long the runs of a claim \
must be is from [a study of lengths](lengths.md), or from the paper that its regime names.
`python scripts/claims.py budget=quick --from docs/claims/runs` computes the verdicts again from \
the committed runs, without training.
Each of the {intervals} intervals is a 95 % interval on its own, so by chance about {misses} of \
them are expected to miss the true value.

![What was claimed and what was measured](figures/claims.png)

{lengths}{meanings}

| claim | source | published | measured, 95 % interval | budget | verdict |
|---|---|---|---|---|---|
"""
_LENGTHS = """\
Where a claim is judged at several lengths, its verdict is that of the longest in its regime:

![The effect against the length of the runs](figures/claims_lengths.png)

"""
_CHECKS = """\
# Checks

Equations that follow from the definitions: that they hold says that norms, models and probes are \
right, and nothing about training. `python scripts/claims.py budget=quick --docs` measures them \
and writes this page beside that of the [claims](claims.md).

| check | source | published | measured, 95 % interval | budget | result |
|---|---|---|---|---|---|
"""


def has_lengths(verdict: ClaimVerdict) -> bool:
    """Whether there are effects at two lengths of runs or more."""
    return sum(horizon.value is not None for horizon in verdict.horizons) > 1


def _write_section(verdict: ClaimVerdict) -> str:
    # Without a unit a space is left before the period.
    explanation = f"{describe_value(verdict)} {verdict.unit}.".replace(" .", ".")
    if reason := verdict.reason:
        # A path at the beginning keeps its case.
        begins_with_path = "/" in reason.split(" ", 1)[0]
        explanation = f"{reason if begins_with_path else reason[0].upper() + reason[1:]}."
    condition = f"the {verdict.role} holds if the interval lies {describe_range(verdict.claimed)}"
    if verdict.absent is not None:
        condition += f"; no effect: {describe_range(verdict.absent)}"
    runs, seeds = describe_runs(verdict.runs), ", ".join(map(str, verdict.seeds))
    is_claim = verdict.role == "claim" and verdict.registration
    registration = f"- registration: {verdict.registration}\n" if is_claim else ""
    is_decided = verdict.word in ("reproduced", "refuted")
    origin = f"runs: {runs}" if runs else "no training"
    if not runs and verdict.kind in RUN_TESTS:
        origin = "no runs yet"
    origin += f"; seeds {seeds}" if seeds else ""
    origin += "; not repeated with other seeds" if runs and is_decided else ""
    regime = f"- regime: {verdict.regime}\n" if verdict.regime else ""
    trained = f"- trained here: {verdict.trained}\n" if verdict.trained else ""
    return f"""
## {verdict.name}

*{verdict.statement}* {_link_source(verdict.source)}

**{verdict.label.capitalize()}.** {explanation}
{_write_horizons(verdict)}{_write_earlier(verdict)}
- published: {verdict.published}
- obtained in: {verdict.setup}
- measured: {describe_result(verdict)}
- test: {verdict.kind}; {condition}
{regime}- different here: {verdict.differs}
{trained}{registration}- {origin}
- again: `{verdict.command}`
- {verdict.machine}, {verdict.date}
"""


def _write_horizons(verdict: ClaimVerdict) -> str:
    """A table of what came out at every length; empty where there is one."""
    if len(verdict.horizons) < 2:
        return ""
    rows = [
        f"| {horizon.steps} | {describe_value(horizon)} | {horizon.basis or '–'} | "
        f"{verdict.label_of(horizon.word)} |"
        for horizon in verdict.horizons
    ]
    head = "| steps | measured, 95 % interval | from | verdict |\n|---:|---|---|---|"
    return "\n".join(["", head, *rows, ""])


def _write_earlier(verdict: ClaimVerdict) -> str:
    """A table of this verdict beside those of other hashes; empty for a check, or without any."""
    if not verdict.earlier or verdict.role == "check":
        return ""
    history: list[EarlierVerdict | ClaimVerdict] = [*verdict.earlier, verdict]
    rows = [
        f"| {entry.digest or 'not hashed'} | {describe_value(entry)} | {entry.word} | "
        f"{entry.date} |"
        for entry in history
    ]
    head = "| test and budget | measured, 95 % interval | verdict | judged |\n|---|---|---|---|"
    note = (
        "Earlier verdicts are of another test, budget or rule, or were not hashed; the last row is "
        "the present one:"
    )
    return "\n".join(["", note, "", head, *rows, ""])


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


def describe_value(verdict: IntervalVerdict) -> str:
    """`-0.031 [-0.040, -0.022]`; no interval where there is none or, by nature, one of no width."""
    if verdict.value is None:
        return "–"
    value = format_number(verdict.value)
    is_exact = isinstance(verdict, ClaimVerdict) and verdict.kind == "exact"
    if verdict.low is None or verdict.high is None or is_exact:
        return value
    return f"{value} [{format_number(verdict.low)}, {format_number(verdict.high)}]"


def describe_range(range_: Range) -> str:
    """`below 0`, `above 1.07`, `between 0.95 and 1.05`, as the claim's file says it."""
    # Adding 0 makes 0 of −0.
    low, high = (None if end is None else f"{end + 0:.6g}" for end in (range_.low, range_.high))
    if low is not None and high is not None:
        return f"between {low} and {high}"
    return f"below {high}" if low is None else f"above {low}"


def describe_runs(runs: RunCounts) -> str:
    """`12 runs, 2 diverged`; empty where none was needed."""
    if not runs.total:
        return ""
    counts = (("diverged", runs.diverged), ("failed", runs.failed), ("missing", runs.missing))
    return ", ".join(
        [count_noun(runs.total, "run"), *(f"{count} {word}" for word, count in counts if count)]
    )
