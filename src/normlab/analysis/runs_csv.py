"""`runs.csv`: a row for every run of a study, with its speed as it was measured."""

import csv
import io
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from normlab.analysis.arms import flatten_keys
from normlab.analysis.convergence import count_spikes, steps_to_target, training_losses
from normlab.archive.files import write_text
from normlab.archive.record import SETTLED_STATES
from normlab.archive.study import Run, Study
from normlab.text import printable_line

RUNS_FILE = "runs.csv"

# The order is fixed: others script against the columns, and a human reads from the left.
_COLUMNS = (
    *("id", "name", "state", "reason", "step", "command", "seed", "norm", "placement", "data"),
    *("parameters", "tokens_per_second", "train_seconds", "precision", "device"),
    *("floor", "diverged_step", "final.val_loss", "final.train_loss"),
    *("best.val_loss", "best.step", "started", "ended", "unigram"),
    *("target", "steps_to_target", "loss_spikes", "final.selection_loss", "final.test_loss"),
)
_OPEN_COLUMNS = ("versions.", "choices.", "config.")


def write_runs_csv(study: Study, target: float | None = None) -> Path:
    """Write `runs.csv` into the study's folder, whole or not at all, and return its path.

    A row a run, by name; the columns are the keys of `run.json`, nested ones joined by dots, then
    the steps to `target` (nats per token) and the loss spikes. What is not known is empty, and so
    are the steps of a run that did not reach the target; a list is JSON.

    Raises:
        OSError: the folder cannot be written.
    """
    rows = [_csv_row(run, target) for run in study.runs]
    keys = {key for row in rows for key in row}
    columns = [*_COLUMNS]
    for prefix in _OPEN_COLUMNS:
        columns += sorted(key for key in keys if key.startswith(prefix))
    text = io.StringIO()
    # Not every key of a record has a column: digests of files, hardware and tracebacks have none.
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path = study.folder / RUNS_FILE
    write_text(path, text.getvalue())
    return path


def _csv_row(run: Run, target: float | None) -> dict[str, Any]:
    values = flatten_keys(asdict(run.record))
    if run.record.state in SETTLED_STATES and run.complete:
        values["loss_spikes"] = count_spikes(training_losses(run))
        if target is not None:
            steps = steps_to_target(run, target)
            values |= {
                "target": target,
                "steps_to_target": int(steps) if steps < math.inf else None,
            }
    return {printable_line(key): _csv_cell(value) for key, value in values.items()}


def _csv_cell(value: Any) -> Any:
    """A number as it is, text as text: with an apostrophe where a spreadsheet would calculate."""
    if isinstance(value, list | dict):
        return json.dumps(value)
    if not isinstance(value, str):
        return value
    text = printable_line(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
