"""The record of a run whose `run.json` is lost, from its event files.

They carry the record as it stood at the start; how the run went and ended is read off its curves.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from normlab.archive import tags
from normlab.archive.events import Events, Series
from normlab.archive.files import LARGEST_TEXT
from normlab.archive.record import RUN_FILE, BestNumbers, FinalNumbers, RunRecord
from normlab.archive.restore import parse_json
from normlab.errors import NormlabError

# The curves that tell how a run went.
NEEDED = (
    tags.TRAIN_LOSS,
    tags.VALIDATION_LOSS,
    tags.TOKENS_PER_SECOND,
    tags.FINAL_VALIDATION_LOSS,
)


def rebuilt(folder: Path, events: Events) -> RunRecord:
    """The record of the run in `folder`, as far as its events tell.

    Raises:
        NormlabError: they do not tell what the run was.
    """
    record = _record_at_start(folder, events)
    scalars = events.scalars
    validation, train = scalars.get(tags.VALIDATION_LOSS), scalars.get(tags.TRAIN_LOSS)
    speed = scalars.get(tags.TOKENS_PER_SECOND)
    record.step = last_step(events)
    record.best = _best(validation)
    record.tokens_per_second = float(np.mean(speed.values)) if speed else None
    _infer_state(record, events)
    final = None if record.state == "diverged" else _last_finite(validation)
    record.final = FinalNumbers(final, _last_finite(train and train.until_divergence()))
    return record


def contradicted(record: RunRecord, events: Events) -> list[str]:
    """Put the numbers of whole curves in place of those of the record that are others.

    Returns what the record said, as `final.val_loss=0.1`; what it does not know is left so.
    """
    scalars = events.scalars
    validation, train = scalars.get(tags.VALIDATION_LOSS), scalars.get(tags.TRAIN_LOSS)
    best = _best(validation)
    pairs: list[tuple[Any, str, str, float | None]] = [
        (record.best, "best", "val_loss", best.val_loss),
        (record.best, "best", "step", best.step),
    ]
    if record.state == "finished":
        pairs.append((record.final, "final", "val_loss", _last_finite(validation)))
        pairs.append((record.final, "final", "train_loss", _last_finite(train)))
    elif record.final.val_loss is not None:
        pairs.append((record.final, "final", "val_loss", None))
    changed = []
    for part, name, key, value in pairs:
        written = getattr(part, key)
        # Curves are kept in single precision.
        if written is not None and (
            value is None or not math.isclose(written, value, rel_tol=1e-6)
        ):
            setattr(part, key, value)
            changed.append(f"{name}.{key}={written:g}")
    speed, written = scalars.get(tags.TOKENS_PER_SECOND), record.tokens_per_second
    # A mean over the run, of stretches whose speeds the curve holds.
    if written is not None and speed:
        low, high = float(speed.values.min()), float(speed.values.max())
        if not 0.999 * low <= written <= 1.001 * high:
            record.tokens_per_second = float(np.mean(speed.values))
            changed.append(f"tokens_per_second={written:g}")
    return changed


def _record_at_start(folder: Path, events: Events) -> RunRecord:
    text = events.texts.get(tags.RECORD, "")
    try:
        if len(text) > LARGEST_TEXT:
            raise ValueError("it is too large")
        # The record's own parser, so that both sources obey one schema.
        fenced = text.partition("```json")[2].rpartition("```")[0]
        record = RunRecord.parse(parse_json(fenced))
    except ValueError:
        raise NormlabError(
            f"{folder} was left out: its {RUN_FILE} is missing or damaged, and its event files "
            f"do not tell what the run was; train it again."
        ) from None
    record.state = "running"
    return record


def _infer_state(record: RunRecord, events: Events) -> None:
    """How the run ended, as far as the events tell; it stays `running` where they do not."""
    losses = [events.scalars.get(tag) for tag in (tags.TRAIN_LOSS, tags.VALIDATION_LOSS)]
    broken = [_first_broken(series) for series in losses if series]
    steps = [step for step in broken if step is not None]
    closing = events.scalars.get(tags.FINAL_VALIDATION_LOSS)
    closed = closing is not None and closing.steps[-1] > 0  # at step 0 it holds a place for HParams
    last = record.last_step
    if steps:
        record.state, record.diverged_step = "diverged", min(steps)
        record.reason = f"loss not finite at step {min(steps)}"
    elif closed and _last_finite(closing) is None:
        record.state, record.diverged_step = "diverged", record.step
        record.reason = "it ended without a final loss"
    elif closed if last is None else record.step >= last:
        record.state = "finished"


def _first_broken(series: Series) -> int | None:
    sound = len(series.until_divergence())
    return int(series.steps[sound]) if sound < len(series) else None


def last_step(events: Events) -> int:
    """The last step that any curve reaches."""
    return max(events.last_steps.values(), default=0)


def _last_finite(series: Series | None) -> float | None:
    if not series or not math.isfinite(series.values[-1]):
        return None
    return float(series.values[-1])


def _best(validation: Series | None) -> BestNumbers:
    finite = validation and validation.until_divergence()
    if not finite:
        return BestNumbers()
    at = int(finite.values.argmin())
    return BestNumbers(float(finite.values[at]), int(finite.steps[at]))
