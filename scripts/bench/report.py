"""What a suite answers, as it stands in its JSON file, and docs/performance.md.

A result is plain JSON: `suite`, `title`, `notes`, `samples` (every number), and

    tables  {"title", "first", "columns", "rows": [{"name", "kind", "values": {column: number}}]}
    goals   {"what", "value": number, "least" or "most"}
    panels  {"title", "x_label", "y_label"} with "bars", "lines" or "grid"; see figure.py

where a number is the median with its quartiles, {"median", "low", "high", "count"}, and `kind`
says whose it is: ours, peer, limit or other. docs/bench/ holds the JSON file of each suite beside
its figure, so the page can be written again from what is in the repository.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import ROOT, Block, Samples
from normlab.analysis.statistics import Spread, quartile_spread
from normlab.archive.files import write_text
from normlab.errors import ConfigError, NormlabError

SCHEMA_VERSION = 1

Json = dict[str, Any]
ComputeNumber = Callable[[Sequence[Block]], Spread]


def new_result(suite: str, title: str, samples: Samples, *notes: str) -> Json:
    """A result without tables, goals and panels."""
    result: Json = {"suite": suite, "title": title, "notes": list(notes), "samples": samples}
    return {**result, "tables": [], "goals": [], "panels": []}


def column(blocks: Iterable[Block], quantity: str) -> list[float]:
    """One quantity over the rounds."""
    return [block[quantity] for block in blocks]


def spread_of(quantity: str) -> ComputeNumber:
    """A column of `add_table`: a quantity as it was measured."""
    return lambda blocks: quartile_spread(column(blocks, quantity))


def add_table(
    result: Json,
    title: str,
    first: str,
    samples: Mapping[str, Sequence[Block]],
    columns: Mapping[str, ComputeNumber],
    owner: Callable[[str], str] = lambda name: "ours",
) -> Json:
    """Add a table with a row for each contender; a column computes a number from its blocks."""
    rows = [
        {
            "name": name,
            "kind": owner(name),
            "values": {head: asdict(compute(blocks)) for head, compute in columns.items()},
        }
        for name, blocks in samples.items()
    ]
    table = {"title": title, "first": first, "columns": list(columns), "rows": rows}
    result["tables"].append(table)
    return table


def add_bars(result: Json, table: Json, head: str) -> None:
    """Add a panel with a bar for each row of a table, as long as the number in one column."""
    bars = [{**row, "value": row["values"][head]} for row in table["rows"]]
    result["panels"].append({"title": table["title"], "x_label": head, "bars": bars})


def add_goal(result: Json, what: str, value: Spread, **bound: float | None) -> None:
    """Add a number whose median should be `least=` or more, `most=` or less."""
    result["goals"].append({"what": what, "value": asdict(value), **bound})


def write_report(report: Json, path: Path) -> None:
    """Write the JSON file. Raises OSError."""
    report = {**report, "schema_version": SCHEMA_VERSION}
    write_text(path, json.dumps(report, indent=1, allow_nan=False) + "\n")


def read_report(path: Path) -> Json:
    """A report from its JSON file.

    Raises:
        NormlabError: it is missing, damaged, or of a newer version.
    """
    try:
        report: Json = json.loads(path.read_text(encoding="utf-8"))
        if report["schema_version"] > SCHEMA_VERSION:
            raise ValueError(f"its schema version is {report['schema_version']}")
        # What the page needs of it is there, or is missed now and not half way through the page.
        format_markdown(report)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise NormlabError(
            f"{path} is no result of the benchmarks that can be read ({error}); measure it again."
        ) from error
    return report


def format_machine(machine: Json) -> str:
    """Where a report was measured; the load is that of the minute before and of the last one."""
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    load = ", then ".join(f"{average:.1f}" for average in machine["load"])
    return (
        f"{machine['cores']}-core {machine['cpu']}, {machine['memory_gib']:g} GiB, {threads}, "
        f"torch {machine['versions']['torch']}, {machine['date']}, load {load}"
    )


def format_markdown(report: Json) -> str:
    """The tables, the goals, and how they were measured."""
    result = report["result"]
    where = format_machine(report["machine"])
    lines = [f"`{report['command']}`: {where}; {report['seconds']:.0f} s."]
    if report["quick"]:
        lines.append("With `--quick`: a look, not a measurement.")
    for table in result["tables"]:
        rows = [
            [row["name"], *(format_number(row["values"].get(head)) for head in table["columns"])]
            for row in table["rows"]
        ]
        heads = [table["first"], *table["columns"]]
        lines += ["", f"**{table['title']}**", "", *format_rows(heads, rows)]
    if result["goals"]:
        rows = [[goal["what"], *format_goal(goal)] for goal in result["goals"]]
        lines += ["", *format_rows(["ratio or time", "measured", "goal", "reached"], rows)]
    return "\n".join([*lines, "", *(f"- {note}" for note in result["notes"])])


def format_number(number: Json | None) -> str:
    """A median with its quartiles; a dash where there is no number."""
    return "–" if number is None else str(Spread(**number))


def format_goal(goal: Json) -> list[str]:
    """The number, its bound, and whether the median keeps to it."""
    median, number = goal["value"]["median"], format_number(goal["value"])
    if (least := goal.get("least")) is not None:
        return [number, f"≥ {least:g}", "yes" if median >= least else "no"]
    if (most := goal.get("most")) is not None:
        return [number, f"≤ {most:g}", "yes" if median <= most else "no"]
    return [number, "", ""]


def format_rows(heads: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def split_page(page: Path, start: str, end: str) -> tuple[str, str, str]:
    """What the page has up to the mark `start`, between the marks, and from the mark `end` on.

    Raises:
        ConfigError: it cannot be read, or has no such part.
    """
    try:
        before, start_mark, rest = page.read_text(encoding="utf-8").partition(start)
    except OSError as error:
        raise ConfigError(f"{page} cannot be read ({error.strerror}).") from error
    part, end_mark, after = rest.partition(end)
    if not end_mark:
        raise ConfigError(f"{page} has no part between {start.strip()} and {end}.")
    return before + start_mark, part, end_mark + after


def refresh_page(results: Path, docs: Path = ROOT / "docs") -> Path:
    """Take `results/<suite>/` into docs/bench/ and write docs/performance.md, which it returns.

    Raises:
        NormlabError: the page cannot be written, or a result cannot be read.
    """
    from figure import draw_report

    def write_part(match: re.Match[str]) -> str:
        suite = match["suite"]
        fresh, stored = results / suite / f"{suite}.json", docs / "bench" / f"{suite}.json"
        if fresh.is_file():
            report = read_report(fresh)
            draw_report(report["result"], format_machine(report["machine"]), stored.parent)
            stored.with_suffix(".svg").unlink()  # the page shows the PNG
            write_report(report, stored)
        body = "Not measured yet."
        if stored.is_file():
            report = read_report(stored)
            figure = f"![{report['result']['title']}](bench/{suite}.png)"
            body = f"{format_markdown(report)}\n\n{figure}"
        return f"<!-- bench {suite} -->\n{body}\n<!-- end -->"

    page = docs / "performance.md"
    try:
        text = page.read_text(encoding="utf-8")
        part = re.compile(r"<!-- bench (?P<suite>\w+) -->\n.*?<!-- end -->", re.DOTALL)
        write_text(page, part.sub(write_part, text))
    except OSError as error:
        raise NormlabError(
            f"{error.filename or page} cannot be read or written ({error.strerror or error})."
        ) from error
    return page
