"""The study in numbers: `runs.csv` with a row a run, and a summary with a row an arm."""

import csv
import io
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from normlab.analysis.arms import Arm, flatten, group
from normlab.analysis.curves import floors
from normlab.analysis.speed import comparable, mean_speed
from normlab.analysis.statistics import mean_interval
from normlab.archive.files import write_text
from normlab.archive.record import RunRecord
from normlab.archive.study import Study
from normlab.text import printable_line

RUNS_FILE = "runs.csv"

_T = TypeVar("_T")

# The order is fixed: others script against the columns, and a human reads from the left.
_COLUMNS = (
    *("id", "name", "state", "reason", "step", "command", "seed", "norm", "placement", "data"),
    *("parameters", "tokens_per_second", "train_seconds", "precision", "device"),
    *("floor", "diverged_step", "final.val_loss", "final.train_loss"),
    *("best.val_loss", "best.step", "started", "ended", "unigram"),
)
_OPEN_COLUMNS = ("versions.", "choices.", "config.")


@dataclass(frozen=True)
class ArmSummary:
    """One arm over its seeds. Losses in nats per token, means over the finished runs.

    Attributes:
        label: what distinguishes the arm: `rmsnorm · pre · lr=3e-3`.
        runs, finished, diverged, failed, interrupted: how many runs there are, and how they ended.
        best_val, final_val: mean and half width of its 95 % t-interval; NaN where unknown.
        tokens_per_second: mean over all runs that measured it, or NaN.
        speed_comparable: whether that may be compared with other arms.
        parameters: of one run of the arm.
        floor: the best loss any model can reach, where it is known.
        gap: mean best validation loss over the floor, or NaN.
    """

    label: str
    norm: str
    placement: str
    runs: int
    finished: int
    diverged: int
    failed: int
    interrupted: int
    best_val: tuple[float, float]
    final_val: tuple[float, float]
    tokens_per_second: float
    speed_comparable: bool
    parameters: int | None
    floor: float | None
    gap: float


def write_runs(study: Study) -> Path:
    """Write `runs.csv` into the study's folder, whole or not at all, and return its path.

    A row a run, by name; the columns are the keys of `run.json`, nested ones joined by dots. What
    is not known is empty; a list is JSON.

    Raises:
        OSError: the folder cannot be written.
    """
    rows = [_row(run.record) for run in study.runs]
    keys = {key for row in rows for key in row}
    columns = [*_COLUMNS]
    for prefix in _OPEN_COLUMNS:
        columns += sorted(key for key in keys if key.startswith(prefix))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path = study.folder / RUNS_FILE
    write_text(path, text.getvalue())
    return path


def summary(study: Study) -> list[ArmSummary]:
    """One summary an arm: lowest mean best validation loss first, arms without one last."""
    summaries = [_summarise(arm) for arm in group(study.runs)]
    return sorted(summaries, key=lambda one: (math.isnan(one.best_val[0]), one.best_val[0]))


def _row(record: RunRecord) -> dict[str, Any]:
    return {printable_line(key): _cell(value) for key, value in flatten(asdict(record)).items()}


def _cell(value: Any) -> Any:
    """A number as it is, text as text: with an apostrophe where a spreadsheet would calculate."""
    if isinstance(value, list | dict):
        return json.dumps(value)
    if not isinstance(value, str):
        return value
    text = printable_line(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _summarise(arm: Arm) -> ArmSummary:
    records = [run.record for run in arm.runs]
    done = [run.record for run in arm.with_state("finished")]
    best = mean_interval(_known(record.best.val_loss for record in done))
    floor = next(iter(floors([arm])), None)
    return ArmSummary(
        label=arm.label,
        norm=arm.norm,
        placement=arm.placement,
        runs=len(records),
        finished=len(done),
        diverged=len(arm.with_state("diverged")),
        failed=len(arm.with_state("failed")),
        interrupted=len(arm.with_state("interrupted")),
        best_val=best,
        final_val=mean_interval(_known(record.final.val_loss for record in done)),
        tokens_per_second=mean_speed(arm),
        speed_comparable=comparable(arm.runs),
        parameters=next(iter(_known(one.parameters for one in records)), None),
        floor=floor,
        gap=math.nan if floor is None else best[0] - floor,
    )


def _known(values: Iterable[_T | None]) -> list[_T]:
    return [value for value in values if value is not None]
