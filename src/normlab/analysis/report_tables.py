"""The tables of the report: the arms compared, the numbers behind the figures, runs and keys."""

import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from normlab.analysis.arms import (
    Arm,
    chosen_options,
    flatten_keys,
    format_value,
    run_identity,
)
from normlab.analysis.comparison import LITTLE_LEARNED
from normlab.analysis.convergence import (
    ABOVE_FLOOR,
    SPIKE_SIGMAS,
    SPIKE_WINDOW,
    ArmConvergence,
)
from normlab.analysis.curves import (
    Curve,
    averaged_runs,
    describe_ending,
    is_smoothed,
    last_finite_loss,
    mean_curve,
)
from normlab.analysis.formatting import format_interval, format_probability
from normlab.analysis.learning_rates import (
    OTHER_WINDOWS,
    STABLE_UP_TO,
    LearningRates,
    RatePoint,
)
from normlab.analysis.result import StudyResult
from normlab.analysis.statistics import mean_interval
from normlab.analysis.style import Look
from normlab.analysis.summary import SPEED_NOTE, are_speeds_comparable
from normlab.archive import tags
from normlab.archive.record import NEUTRAL_KEYS, SETTLED_STATES, RunRecord, short_number
from normlab.archive.steadiness import NOT_COMPARABLE
from normlab.archive.study import Run, Study
from normlab.text import count_noun


@dataclass(frozen=True)
class Cell:
    """What stands in a cell.

    Attributes:
        text: as it is shown; whatever it holds is text, never markup.
        value: what the column is sorted by, instead of the text; NaN where nothing is known.
        colour: of the dot before the text, `#rrggbb`; none where empty.
        state: how a run ended, where the cell says that.
    """

    text: str
    value: float | None = None
    colour: str = ""
    state: str = ""


@dataclass(frozen=True)
class Column:
    """A heading; numbers stand to the right, and words of more than a line are broken."""

    title: str
    numeric: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under columns; the first cell of a row names it."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


def number_columns(*titles: str) -> tuple[Column, ...]:
    """Columns of numbers with these headings."""
    return tuple(Column(title, numeric=True) for title in titles)


def number_cell(value: float | None, spec: str = ".4f") -> Cell:
    """A number, or a dash where it is not known."""
    if value is None or math.isnan(value):
        return Cell("–", math.nan)
    return Cell(format(value, spec), float(value))


def interval_cell(pair: tuple[float, float]) -> Cell:
    """A mean and half the width of its interval, sorted by the mean."""
    return Cell(format_interval(*pair), pair[0])


def mean_cell(values: Collection[float]) -> Cell:
    """The mean of single seeds with its interval."""
    return interval_cell(mean_interval(values))


def arm_cell(arm: Arm, look: Look) -> Cell:
    """What distinguishes the arm, with its colour."""
    return Cell(arm.label, colour=look.colour(arm))


def speed_cell(tokens_per_second: float | None, is_comparable: bool) -> Cell:
    """A speed, or why it cannot be compared."""
    if tokens_per_second is None or math.isnan(tokens_per_second) or is_comparable:
        return number_cell(tokens_per_second, ",.0f")
    return Cell(NOT_COMPARABLE, math.nan)


# Of the neutral keys, those that a reader looks for.
_IGNORED_KEYS = {*NEUTRAL_KEYS} - {"measure", "figure", "budget"}
_MOST_VALUES = 12

COMMIT = "normlab commit"


@dataclass(frozen=True)
class Differences:
    """Keys with their values as text: those that vary over the runs, and those that do not."""

    varying: tuple[tuple[str, str], ...]
    fixed: tuple[tuple[str, str], ...]


def configuration_differences(runs: Sequence[Run]) -> Differences:
    """The options taken and every resolved key, by whether all runs agree on it."""
    return _split_differences([_configuration_keys(run.record) for run in runs])


def circumstance_differences(runs: Sequence[Run]) -> Differences:
    """What the runs were made with: machine, device, precision, versions, normlab's commit."""
    return _split_differences([_circumstance_keys(run.record) for run in runs])


def _configuration_keys(record: RunRecord) -> dict[str, Any]:
    keys = {**chosen_options(record), **flatten_keys(record.config)}
    return {key: value for key, value in keys.items() if key.split(".")[0] not in _IGNORED_KEYS}


def _circumstance_keys(record: RunRecord) -> dict[str, Any]:
    git = record.git
    keys = {
        "device": record.device,
        "precision": record.precision,
        **{f"machine {key}": value for key, value in record.hardware.items()},
        COMMIT: git and f"{git.commit}{' with changes that are not in it' if git.dirty else ''}",
        **{f"version {key}": value for key, value in record.versions.items()},
    }
    return {key: value for key, value in keys.items() if value is not None}


def _split_differences(runs_keys: Sequence[Mapping[str, Any]]) -> Differences:
    varying, fixed = [], []
    for key in dict.fromkeys(key for keys in runs_keys for key in keys):
        values = sorted((keys.get(key, _ABSENT) for keys in runs_keys), key=_value_order)
        counts = Counter(map(_format_or_absent, values))  # as text: a list has no hash
        if len(counts) == 1:
            fixed.append((key, next(iter(counts))))
            continue
        texts = [
            f"{value} ({count_noun(count, 'run')})"
            for value, count in list(counts.items())[:_MOST_VALUES]
        ]
        rest = len(counts) - len(texts)
        varying.append((key, ", ".join(texts) + (f", and {rest} other values" if rest else "")))
    return Differences(tuple(varying), tuple(fixed))


_ABSENT = object()  # because None is a value of some keys


def _format_or_absent(value: Any) -> str:
    return "not there" if value is _ABSENT else format_value(value)


def _value_order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, before everything else by text."""
    is_number = isinstance(value, int | float)
    return not is_number, value if is_number else 0.0, json.dumps(_format_or_absent(value))


def runs_table(result: StudyResult) -> Table:
    """A row a run, by name."""
    # By what decides the numbers: of a run without and again with probes, arms hold the latter.
    arm_of = {run_identity(run): arm for arm in result.arms for run in arm.runs}
    settings = list(dict.fromkeys(key for arm in result.arms for key, _ in arm.settings))
    columns = [
        *map(Column, ("run", "state", "norm", "placement")),
        *(Column(key) for key in settings),
        *number_columns("seed", "step", "best val", "at step", "final val", "tokens/s", "time"),
    ]
    rows = []
    for run in result.study.runs:
        record, arm = run.record, arm_of[run_identity(run)]
        settings_of = dict(arm.settings)
        row = (
            Cell(record.name, colour=result.look.colour(arm)),
            Cell(record.state, state=record.state),
            Cell(record.norm),
            Cell(record.placement),
            *(
                _setting_cell(settings_of[key]) if key in settings_of else Cell("–")
                for key in settings
            ),
            number_cell(record.seed, "d"),
            number_cell(record.step, "d"),
            number_cell(record.best.val_loss),
            number_cell(record.best.step, "d"),
            number_cell(record.final.val_loss),
            speed_cell(record.tokens_per_second, are_speeds_comparable([run])),
            _duration_cell(record.train_seconds),
        )
        rows.append(row)
    return Table(f"{len(rows)} runs, losses in nats per token.", columns, rows)


def diverged_table(result: StudyResult) -> Table | None:
    """What diverged and where; None where nothing did."""
    runs = [run for run in result.study.runs if run.record.state == "diverged"]
    if not runs:
        return None
    columns = (
        Column("run"),
        *number_columns("at step", "of", "last finite training loss"),
        Column("why", wide=True),
    )
    rows = []
    for run in sorted(runs, key=lambda run: run.record.end_step):
        record, end = run.record, last_finite_loss(run)
        row = (
            Cell(record.name, colour=result.look.colour(record)),
            number_cell(record.diverged_step, "d"),
            number_cell(record.last_step, "d"),
            number_cell(end[1] if end else None),
            Cell(record.reason or "not recorded"),
        )
        rows.append(row)
    return Table("Runs that diverged, the earliest first.", columns, rows)


def unfinished_table(study: Study) -> Table | None:
    """What failed, was interrupted or still runs, and why; None where nothing did."""
    records = [run.record for run in study.runs if run.record.state not in SETTLED_STATES]
    if not records:
        return None
    columns = (
        *map(Column, ("run", "state")),
        *number_columns("step", "of"),
        Column("why", wide=True),
    )
    rows = [
        (
            Cell(record.name),
            Cell(record.state, state=record.state),
            number_cell(record.step, "d"),
            number_cell(record.last_step, "d"),
            Cell(record.reason or "not recorded"),
        )
        for record in records
    ]
    return Table("Runs without a result; they are in no mean.", columns, rows)


def _setting_cell(value: Any) -> Cell:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(format_value(value), float(value) if is_number else None)


def _duration_cell(seconds: float | None) -> Cell:
    if seconds is None or not math.isfinite(seconds):
        return number_cell(None)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return Cell(f"{hours} h {minutes:02d} min", seconds)
    return Cell(f"{minutes} min {rest:02d} s" if minutes else f"{rest} s", seconds)


def study_period(study: Study) -> str:
    """From the first start to the last end, as dates in UTC as the records tell them."""
    # Times in ISO format and UTC: sorted as text they are in their order.
    starts = sorted(run.record.started for run in study.runs if run.record.started)
    ends = sorted(run.record.ended for run in study.runs if run.record.ended)
    days = list(dict.fromkeys(_parse_day(moment) for moment in [*starts[:1], *ends[-1:]]))
    return " – ".join(filter(None, days)) or "date not recorded"


def _parse_day(moment: str) -> str:
    try:
        return datetime.fromisoformat(moment).date().isoformat()
    except ValueError:  # a record from elsewhere may hold any text
        return ""


_MOST_STEPS = 8  # columns of a curve

_OUTCOME_COLUMN = Column("did not finish", wide=True)


def figure_tables(result: StudyResult) -> dict[str, tuple[Table, ...]]:
    """For the name of a figure the numbers that it shows, where they are known here."""
    smooth = is_smoothed(result.study.runs, tags.TRAIN_LOSS)
    curves = {
        "training_loss": (tags.TRAIN_LOSS, f"Training loss{', running mean' if smooth else ''}"),
        "validation_loss": (tags.VALIDATION_LOSS, "Validation loss"),
    }
    tables: dict[str, tuple[Table, ...]] = {}
    for name, (tag, title) in curves.items():
        table = _curve_table(result, tag, title)
        if table is not None:
            tables[name] = (table,)
    tables["final_validation_loss"] = (_final_loss_table(result),)
    if result.rates:
        tables["learning_rate"] = (
            rates_table(result.rates, result.look),
            _losses_by_rate_table(result.rates, result.look),
        )
    return tables


def _curve_table(result: StudyResult, tag: str, title: str) -> Table | None:
    smooth = tag == tags.TRAIN_LOSS
    curves = [mean_curve(averaged_runs(arm), tag, smooth=smooth) for arm in result.arms]
    steps = _table_steps([curve for curve in curves if curve])
    if not steps:
        return None
    rows = [
        (
            arm_cell(arm, result.look),
            *(_curve_cell(curve, step) for step in steps),
            Cell(describe_ending(arm)),
        )
        for arm, curve in zip(result.arms, curves, strict=True)
    ]
    columns = (
        Column("arm"),
        *number_columns(*(f"step {step}" for step in steps)),
        _OUTCOME_COLUMN,
    )
    caption = f"{title} in nats per token, mean over the seeds that reached the end."
    return Table(caption, columns, rows)


def _table_steps(curves: Sequence[Curve]) -> list[int]:
    """The steps of the longest curve, or as many of them as a table holds, evenly."""
    longest = max((curve.steps for curve in curves), key=len, default=np.empty(0, np.int64))
    at = np.linspace(0, len(longest) - 1, min(_MOST_STEPS, len(longest))).round().astype(int)
    return [int(step) for step in longest[at]]


def _curve_cell(curve: Curve | None, step: int) -> Cell:
    if curve is None or not curve.steps[0] <= step <= curve.steps[-1]:
        return number_cell(None)
    # The last point up to this step: the arms may have been validated at different ones.
    return number_cell(float(curve.mean[np.searchsorted(curve.steps, step, side="right") - 1]))


def _final_loss_table(result: StudyResult) -> Table:
    rows = []
    for arm in result.arms:
        records = [run.record for run in arm.with_state("finished")]
        seed_losses = [(record.seed, record.final.val_loss) for record in records]
        losses = sorted((seed, loss) for seed, loss in seed_losses if loss is not None)
        seeds = ", ".join(f"{loss:.4f} (seed {seed})" for seed, loss in losses)
        row = (
            arm_cell(arm, result.look),
            mean_cell(arm.final_losses),
            Cell(seeds or "–"),
            Cell(describe_ending(arm)),
        )
        rows.append(row)
    columns = (
        Column("arm"),
        *number_columns("mean ± 95 %"),
        Column("each seed", wide=True),
        _OUTCOME_COLUMN,
    )
    caption = "Final validation loss in nats per token, over the finished runs."
    return Table(caption, columns, rows)


def rates_table(rates: LearningRates, look: Look) -> Table:
    """A row an arm at its best rate, lowest mean loss first."""
    headings = ("best lr", "tuned loss", "LR sensitivity", "stable up to", "diverged")
    rows = [
        (
            arm_cell(rated.arm, look),
            _rate_cell(rated.best_rate),
            mean_cell(rated.tuned.values()),
            mean_cell(rated.sensitivity.values()),
            _rate_cell(rated.largest_stable),
            _count_cell(rated.diverged, rated.arm.runs),
        )
        for rated in rates.ranked
    ]
    windows = f" ({OTHER_WINDOWS})" if rates.halved else ""
    caption = (
        f"Over the {len(rates.grid)} learning rates that all arms share: final validation loss at "
        f"the best of them{windows}; LR sensitivity (arXiv 2309.14322); {STABLE_UP_TO}."
    )
    return Table(caption, (Column("arm"), *number_columns(*headings)), rows)


def _losses_by_rate_table(learning_rates: LearningRates, look: Look) -> Table:
    arms = learning_rates.ranked
    rates = sorted({point.rate for rated in arms for point in rated.points})
    rows = []
    for rated in arms:
        points = {point.rate: point for point in rated.points}
        cells = [_rate_point_cell(points.get(rate)) for rate in rates]
        rows.append([arm_cell(rated.arm, look), *cells])
    columns = (
        Column("arm"),
        *number_columns(*(f"lr={short_number(rate)}" for rate in rates)),
    )
    caption = (
        "Final validation loss of the finished runs by learning rate, what diverged, and what "
        f"learned nothing: less than {LITTLE_LEARNED:g} nats per token below the unigram loss."
    )
    return Table(caption, columns, rows)


def _rate_point_cell(point: RatePoint | None) -> Cell:
    if point is None:
        return number_cell(None)
    cell = mean_cell(point.losses.values())
    counts = ((point.diverged, "diverged"), (point.unlearned, "learned nothing"))
    lost = [f"{count} of {len(point.arm.runs)} {what}" for count, what in counts if count]
    return Cell(", ".join([cell.text] * bool(point.losses) + lost), cell.value)


def _rate_cell(rate: float | None) -> Cell:
    return number_cell(None) if rate is None else Cell(short_number(rate), rate)


def arms_table(result: StudyResult) -> Table:
    """A row an arm, in the order of the summaries, which is that of the terminal's table."""
    summaries = result.summaries
    gap = any(not math.isnan(summary.gap) for summary in summaries)
    columns = [
        Column("arm"),
        *number_columns("seeds finished", "best val loss", "final val loss"),
        *(number_columns("best over floor") if gap else ()),
        *number_columns("diverged", "tokens/s", "parameters"),
    ]
    rows = [
        (
            arm_cell(summary.arm, result.look),
            _count_cell(len(summary.arm.with_state("finished")), summary.arm.runs),
            interval_cell(summary.best_val),
            interval_cell(summary.final_val),
            *([number_cell(summary.gap)] if gap else []),
            _count_cell(len(summary.arm.with_state("diverged"))),
            speed_cell(summary.tokens_per_second, summary.speed_comparable),
            number_cell(summary.parameters, ",d"),
        )
        for summary in summaries
    ]
    caption = (
        "Losses in nats per token: mean of the finished runs ± half the 95 % t-interval over "
        f"seeds. {SPEED_NOTE}"
    )
    return Table(caption, columns, rows)


def comparisons_table(result: StudyResult) -> Table | None:
    """A row a comparison: the lowest arm of a facet against another; None where there is none."""
    comparisons, look = result.comparisons, result.look
    if not comparisons:
        return None
    at = any(comparison.facet for comparison in comparisons)
    columns = [
        *map(Column, ("lowest mean", "against")),
        *([Column("at")] if at else []),
        *number_columns("lower by", "p", "seeds paired"),
        Column("outcome"),
        *number_columns("detectable"),
    ]
    rows = [
        (
            Cell(comparison.best.name, colour=look.colour(comparison.best)),
            Cell(comparison.other.name, colour=look.colour(comparison.other)),
            *([Cell(comparison.facet)] if at else []),
            # The difference is best − other, and negative where the best is lower.
            interval_cell((-comparison.difference.mean, comparison.difference.half)),
            _probability_cell(comparison.difference.p),
            _count_cell(comparison.difference.pairs),
            Cell(comparison.outcome),
            number_cell(comparison.difference.detectable),
        )
        for comparison in comparisons
    ]
    caption = (
        "Final validation loss in nats per token, over equal seeds. Interval and p hold for all "
        "pairs of arms together (docs/statistics.md). Detectable: the true difference that such a "
        "study reports in 4 of 5 cases. No seeds paired: Welch's test over unequal ones."
    )
    return Table(caption, columns, rows)


def convergence_table(result: StudyResult) -> Table | None:
    """A row an arm: steps and seconds to the target, loss spikes; None where neither is known."""
    convergence = result.convergence
    rows = [row for row in convergence.arms if row.steps or row.spikes is not None]
    if not rows:
        return None
    target = convergence.target
    timed = target is not None and any(row.seconds for row in rows)
    columns = [
        Column("arm"),
        *(number_columns("reached by", "steps, median") if target is not None else ()),
        *(number_columns("seconds, median") if timed else ()),
        *number_columns("loss spikes"),
    ]
    cells = [
        (
            arm_cell(row.arm, result.look),
            *_target_cells(row, target, timed),
            number_cell(None) if row.spikes is None else _count_cell(row.spikes),
        )
        for row in rows
    ]
    caption = ""
    if target is not None:
        default = ""
        if convergence.is_default:
            default = (
                f", {ABOVE_FLOOR:g} above the floor (target=…, or plot.py --target, changes it)"
            )
        caption = f"First validation at or below {target:.4f} nats per token{default}. "
    caption += (
        f"Loss spike: a step whose training loss is more "
        f"than {SPIKE_SIGMAS:g} robust standard deviations above the median of the {SPIKE_WINDOW} "
        f"before."
    )
    return Table(caption, columns, cells)


def _target_cells(row: ArmConvergence, target: float | None, timed: bool) -> Iterator[Cell]:
    if target is None:
        return
    yield _count_cell(row.reached, row.steps)
    medians = [(row.median_steps, ",.0f"), *([(row.median_seconds, ".1f")] if timed else [])]
    for value, digits in medians:
        yield Cell("not reached") if math.isinf(value) else number_cell(value, digits)


def _count_cell(count: int, of: Sized | None = None) -> Cell:
    """How many, alone or of how many, sorted by the count."""
    return Cell(str(count) if of is None else f"{count} of {len(of)}", count)


def _probability_cell(p: float) -> Cell:
    if math.isnan(p):
        return number_cell(p)
    return Cell(format_probability(p).removeprefix("= "), p)
