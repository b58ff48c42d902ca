"""The numbers behind the figures, as tables beneath them: a row an arm."""

from collections.abc import Sequence

import numpy as np

from normlab.analysis.arms import Arm, group
from normlab.analysis.cells import Cell, Column, Table, interval, number
from normlab.analysis.curves import Curve, averaged, curve, ending
from normlab.analysis.learning_rates import learning_rates
from normlab.analysis.rate_tables import rate_tables
from normlab.analysis.statistics import mean_interval
from normlab.analysis.style import Look
from normlab.archive import tags
from normlab.archive.study import Study

_STEPS = 8  # columns of a curve

_ARM, _OUTCOME = Column("arm"), Column("did not finish", wide=True)


def readings(study: Study) -> dict[str, tuple[Table, ...]]:
    """For the name of a figure the numbers that it shows, where they are known here."""
    arms = group(study.runs)
    rates = learning_rates(study)
    curves = {
        "training_loss": _curves(arms, tags.TRAIN_LOSS, "Training loss, running mean", smooth=True),
        "validation_loss": _curves(arms, tags.VALIDATION_LOSS, "Validation loss", smooth=False),
    }
    return {
        **{name: (table,) for name, table in curves.items() if table is not None},
        "final_validation_loss": (_finals(arms),),
        **({"learning_rate": rate_tables(study, rates)} if rates else {}),
    }


def arm_cells(arms: Sequence[Arm]) -> list[Cell]:
    """A cell for every arm: its label, and the colour that its norm has in the figures."""
    look = Look.of(arms)
    return [Cell(arm.label, colour=look.colour(arm)) for arm in arms]


def _curves(arms: Sequence[Arm], tag: str, what: str, *, smooth: bool) -> Table | None:
    known = [curve(averaged(arm), tag, smooth=smooth) for arm in arms]
    steps = _columns([one for one in known if one])
    if not steps:
        return None
    rows = [
        (name, *(_at(one, step) for step in steps), Cell(ending(arm)))
        for name, arm, one in zip(arm_cells(arms), arms, known, strict=True)
    ]
    columns = (_ARM, *(Column(f"step {step}", numeric=True) for step in steps), _OUTCOME)
    caption = f"{what} in nats per token, mean over the seeds that reached the end."
    return Table(caption, columns, tuple(rows))


def _columns(curves: Sequence[Curve]) -> list[int]:
    """The steps of the longest curve, or as many of them as a table holds, evenly."""
    longest = max((one.steps for one in curves), key=len, default=np.empty(0, np.int64))
    at = np.linspace(0, len(longest) - 1, min(_STEPS, len(longest))).round().astype(int)
    return [int(step) for step in longest[at]]


def _at(one: Curve | None, step: int) -> Cell:
    if one is None or not one.steps[0] <= step <= one.steps[-1]:
        return number(None)
    return number(float(one.mean[np.searchsorted(one.steps, step, side="right") - 1]))


def _finals(arms: Sequence[Arm]) -> Table:
    rows = []
    for name, arm in zip(arm_cells(arms), arms, strict=True):
        records = [run.record for run in arm.with_state("finished")]
        known = [(one.seed, one.final.val_loss) for one in records]
        losses = sorted((seed, loss) for seed, loss in known if loss is not None)
        seeds = ", ".join(f"{loss:.4f} (seed {seed})" for seed, loss in losses)
        together = mean_interval([loss for _, loss in losses])
        rows.append((name, interval(together), Cell(seeds or "–"), Cell(ending(arm))))
    columns = (_ARM, Column("mean ± 95 %", numeric=True), Column("each seed", wide=True), _OUTCOME)
    caption = "Final validation loss in nats per token, over the finished runs."
    return Table(caption, columns, tuple(rows))
