"""Runs over learning rates made without training: records, and a validation loss at step 0."""

from pathlib import Path
from typing import Any

import numpy as np

from normlab.archive import tags
from normlab.archive.events import Events, Series
from normlab.archive.record import FinalNumbers, RunRecord
from normlab.archive.study import Run, Study

INITIAL = 4.0


def runs_by_rate(
    losses: dict[float, list[float | None]],
    norm: str = "rmsnorm",
    placement: str = "pre",
    initial: float | None = INITIAL,
    halves: dict[float, tuple[float, float]] | None = None,
    **config: Any,
) -> list[Run]:
    """Runs by rate and seed that ended at these losses; None: it diverged at step 7.

    `halves` has by rate the losses on the windows that choose and on those that compare.
    """
    runs = _whole_runs(losses, norm, placement, initial, config)
    for run in runs:
        if halves is not None and run.record.state == "finished":
            rate = run.record.config["optimizer"]["lr"]
            run.record.final.selection_loss, run.record.final.test_loss = halves[rate]
    return runs


def _whole_runs(
    losses: dict[float, list[float | None]], norm: str, placement: str, initial: float | None,
    config: dict[str, Any],
) -> list[Run]:  # fmt: skip
    return [
        _make_run(rate, seed, loss, norm, placement, initial, config)
        for rate, some in losses.items()
        for seed, loss in enumerate(some)
    ]


def study_of_arms(*arms: list[Run]) -> Study:
    return Study(Path("study"), [run for runs in arms for run in runs])


def _make_run(
    rate: float, seed: int, loss: float | None, norm: str, placement: str,
    initial: float | None, config: dict[str, Any],
) -> Run:  # fmt: skip
    record = RunRecord(
        id="", name=f"{norm}-{placement}-lr{rate}-s{seed}", norm=norm, placement=placement,
        data="synthetic", seed=seed, choices={"norm": norm, "placement": placement},
        config={"seed": seed, "optimizer": {"lr": rate}, **config},
        state="diverged" if loss is None else "finished", step=7 if loss is None else 100,
        diverged_step=7 if loss is None else None, final=FinalNumbers(loss, loss),
        command="train.py -m sweep=lr",
    )  # fmt: skip
    events = Events()
    if initial is not None:
        step, value = np.array([0]), np.array([initial])
        events.scalars[tags.VALIDATION_LOSS] = Series(step, value)
    return Run(Path("run"), record, events)
