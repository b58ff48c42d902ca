"""The runs of a report: all of them, and those that did not end as they should."""

import math
from collections.abc import Sequence
from datetime import datetime

from normlab.analysis.arms import Arm, describe, group, identity
from normlab.analysis.cells import Cell, Column, Table, number
from normlab.analysis.curves import divergence
from normlab.analysis.speed import comparable, speed_cell
from normlab.analysis.style import Look
from normlab.archive.record import RunRecord
from normlab.archive.study import Run, Study


def runs_table(study: Study) -> Table:
    """A row a run, by name."""
    arms = group(study.runs)
    look = Look.of(arms)
    arm_of = {identity(run): arm for arm in arms for run in arm.runs}
    settings = list(dict.fromkeys(key for arm in arms for key, _ in arm.settings))
    columns = [
        Column("run"),
        Column("state"),
        Column("norm"),
        Column("placement"),
        *(Column(key) for key in settings),
        Column("seed", numeric=True),
        Column("step", numeric=True),
        Column("best val", numeric=True),
        Column("at step", numeric=True),
        Column("final val", numeric=True),
        Column("tokens/s", numeric=True),
        Column("time", numeric=True),
    ]
    rows = [_run_row(run, arm_of[identity(run)], look, settings) for run in study.runs]
    return Table(f"{len(rows)} runs, losses in nats per token.", tuple(columns), tuple(rows))


def _run_row(run: Run, arm: Arm, look: Look, settings: Sequence[str]) -> tuple[Cell, ...]:
    record, known = run.record, dict(arm.settings)
    varying = [
        Cell(describe((key, known[key])).partition("=")[2], _size(known[key]))
        if key in known
        else Cell("–")
        for key in settings
    ]
    return (
        Cell(record.name, colour=look.colour(arm)),
        Cell(record.state, state=record.state),
        Cell(record.norm),
        Cell(record.placement),
        *varying,
        number(record.seed, "d"),
        number(record.step, "d"),
        number(record.best.val_loss),
        number(record.best.step, "d"),
        number(record.final.val_loss),
        speed_cell(record.tokens_per_second, comparable([run])),
        _duration(record.train_seconds),
    )


def diverged_table(study: Study) -> Table | None:
    """What diverged and where; None where nothing did."""
    runs = [run for run in study.runs if run.record.state == "diverged"]
    if not runs:
        return None
    columns = (
        Column("run"),
        Column("at step", numeric=True),
        Column("of", numeric=True),
        Column("last finite training loss", numeric=True),
        Column("why", wide=True),
    )
    look = Look.of(group(study.runs))
    rows = []
    for run in sorted(runs, key=lambda one: one.record.diverged_step or one.record.step):
        record, end = run.record, divergence(run)
        rows.append(
            (
                Cell(record.name, colour=look.colours[record.norm]),
                number(record.diverged_step, "d"),
                number(_planned(record), "d"),
                number(end[1] if end else None),
                Cell(record.reason or "not recorded"),
            )
        )
    return Table("Runs that diverged, the earliest first.", columns, tuple(rows))


def unfinished_table(study: Study) -> Table | None:
    """What failed, was interrupted or still runs, and why; None where nothing did."""
    runs = [run for run in study.runs if run.record.state not in ("finished", "diverged")]
    if not runs:
        return None
    columns = (
        Column("run"),
        Column("state"),
        Column("step", numeric=True),
        Column("of", numeric=True),
        Column("why", wide=True),
    )
    rows = [
        (
            Cell(record.name),
            Cell(record.state, state=record.state),
            number(record.step, "d"),
            number(_planned(record), "d"),
            Cell(record.reason or "not recorded"),
        )
        for record in (run.record for run in runs)
    ]
    return Table("Runs without a result; they are in no mean.", columns, tuple(rows))


def _planned(record: RunRecord) -> int | None:
    trainer = record.config.get("trainer")
    steps = trainer.get("max_steps") if isinstance(trainer, dict) else None
    return steps if isinstance(steps, int) else None


def _size(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None  # type: ignore[arg-type]


def _duration(seconds: float | None) -> Cell:
    if seconds is None or not math.isfinite(seconds):
        return number(None)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return Cell(f"{hours} h {minutes:02d} min", seconds)
    return Cell(f"{minutes} min {rest:02d} s" if minutes else f"{rest} s", seconds)


def period(study: Study) -> str:
    """From the first start to the last end, as dates in UTC as the records tell them."""
    starts = sorted(run.record.started for run in study.runs if run.record.started)
    ends = sorted(run.record.ended for run in study.runs if run.record.ended)
    days = list(dict.fromkeys(_day(moment) for moment in [*starts[:1], *ends[-1:]]))
    return " – ".join(filter(None, days)) or "date not recorded"


def _day(moment: str) -> str:
    try:
        return datetime.fromisoformat(moment).date().isoformat()
    except ValueError:
        return ""
