"""What the commands leave in their folder, as names and values that two builds can be compared in.

Left out is what no two executions have in common: times, speeds, the machine and the commit. Event
files are read by TensorBoard's own reader, not by the project's.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tiny_run import TINY

# Keys of run.json, of the other JSON files and columns of runs.csv.
VARYING = {
    *("started", "ended", "seconds", "train_seconds", "tokens_per_second", "speed", "date"),
    *("command", "output_dir", "git", "versions", "hardware", "machine", "device", "origin"),
    *("files", "checksum"),
}
VARYING_COLUMNS = ("tokens/s", "time")  # of the report's tables

RATES = ("norm=rmsnorm", "placement=pre,post", "optimizer.lr=1e-4,3e-4,1e-3", "seed=0,1")
COMMANDS: dict[str, tuple[str, ...]] = {
    "study": (
        *("train.py", "-m", "norm=rmsnorm,layernorm", "placement=pre,post", "seed=0,1", *TINY),
        *("probes=on", "jobs=1"),
    ),
    "rates": ("train.py", "-m", *RATES, *TINY, "study=rates"),
    "card": ("scripts/card.py", "norm=rmsnorm,layernorm,dyt"),
    "probe": ("scripts/probe.py", "norm=rmsnorm,none", "model.depth=2,4"),
    "experiment": (
        *("train.py", "experiment=gradient_vanishing", "seed=0,1", "model.width=32"),
        *("model.depth=4", "trainer.threads=1"),
    ),
    "claim": ("scripts/claims.py", "claim=xiong_last_gradient_pre,variance_init_post"),
    # Trains three arms of 300 steps: only where two commits are compared.
    "trained claim": ("scripts/claims.py", "claim=tutorial_nan,tutorial_loss"),
}


def execute(root: Path, arguments: tuple[str, ...], folder: Path) -> str:
    """Execute a command of a checkout; returns its standard output.

    Raises:
        AssertionError: it ended with an error.
    """
    script, *rest = arguments
    ended = subprocess.run(
        [sys.executable, str(root / script), *rest],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{arguments}: {ended.stderr[-2000:]}"
    return ended.stdout


def repeat_first_run(root: Path, folder: Path) -> str:
    """Repeat the first run of the study that `study` has left in a folder."""
    run = min((folder / "outputs" / "synthetic").glob("*/run.json")).parent
    return execute(root, ("train.py", "--from", str(run)), folder)


def read_behaviour(folder: Path) -> dict[str, Any]:
    """Every value that a command has left below a folder, by file and name."""
    values: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json":
            values.update(flatten(json.loads(path.read_text()), name))
        elif path.name == "runs.csv":
            values.update(read_table_of_runs(path, name))
        elif path.name == "report.html":
            values.update(read_report(path, name))
        elif path.name.startswith("events."):
            values.update(read_scalars(path, path.parent.relative_to(folder).as_posix()))
        elif path.suffix in (".png", ".svg", ".ckpt"):
            values[name] = "exists"
    return values


def flatten(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The leaves of a JSON value, each under the path of its keys."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in VARYING:
                yield from flatten(item, f"{name} {key}")
    elif isinstance(value, list):
        yield f"{name} length", len(value)
        for index, item in enumerate(value):
            yield from flatten(item, f"{name} {index}")
    else:
        yield name, value


def read_table_of_runs(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """The cells of runs.csv, by the run's name and the column."""
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for column, cell in row.items():
                if not VARYING & set(column.split(".")):
                    yield f"{name} {row['name']} {column}", cell


def read_scalars(path: Path, name: str) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """The scalars of an event file, by tag, but for speeds: (step, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path), size_guidance={"scalars": 0})
    events.Reload()
    for tag in events.Tags()["scalars"]:
        if not tag.startswith("perf/"):
            yield f"{name} {tag}", [(point.step, point.value) for point in events.Scalars(tag)]


def read_report(path: Path, name: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of every table of the report, without the columns of speed and time.

    A number is taken with all its digits, where the cell holds them for sorting.
    """
    parser = _TableParser()
    parser.feed(path.read_text())
    for title, rows in parser.tables.items():
        taken = [i for i, head in enumerate(rows[0]) if head not in VARYING_COLUMNS]
        for index, row in enumerate(rows):
            yield f"{name} {title} row {index}", [row[i] for i in taken if i < len(row)]


class _TableParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self._row: list[str] | None = None
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables[dict(attrs).get("id") or f"table {len(self.tables)}"] = []
        elif tag == "tr" and self.tables:
            self._row = []
            self.tables[next(reversed(self.tables))].append(self._row)
        elif tag in ("td", "th") and self._row is not None:
            value = dict(attrs).get("data-value")
            self._row.append(f"{value} " if value is not None else "")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside and self._row:
            self._row[-1] += data.strip()
