"""Runs and measurements for claims, made without training."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from normlab.apps.claims.claim import Claim, Published, Test
from normlab.apps.claims.judge import judge_claim as judge
from normlab.apps.claims.record import ClaimVerdict, StoredMeasurement
from normlab.apps.claims.runs import ClaimData
from normlab.archive import tags
from normlab.archive.events import Events, Series
from normlab.archive.record import BestNumbers, FinalNumbers, RunRecord, State
from normlab.archive.study import Run

START = 3.0


def make_run(
    norm: str,
    seed: int,
    loss: float | None,
    *,
    lr: float = 1e-3,
    state: State = "finished",
    growth: float | None = None,
    variances: Sequence[float] = (),
    steps: int | None = None,
    config: dict[str, Any] | None = None,
) -> Run:
    """A run with this final loss; `growth` the power with which its stream gains variance.

    `variances` are those of the stream after each block, `steps` the length of the run.
    """
    whole = {"seed": seed, "optimizer": {"lr": lr}, "placement": {"qk": False}, **(config or {})}
    whole |= {"model": {"depth": 8, "width": 64}}
    whole |= {} if steps is None else {"trainer": {"max_steps": steps}}
    record = RunRecord(
        id=f"{norm}-{seed}-{lr}-{config}-{steps}",
        name=f"{norm}-lr{lr}-s{seed}",
        norm=norm,
        placement="any" if norm == "none" else "pre",
        data="synthetic",
        seed=seed,
        choices={"norm": norm, "placement": "pre", "model": "nanogpt"},
        config=whole,
        state=state,
        reason="it broke" if state == "failed" else None,
        final=FinalNumbers(loss),
        best=BestNumbers(loss),
        command="train.py -m optimizer.lr=1e-3",
    )
    scalars = {
        tags.VALIDATION_LOSS: make_series([0, 10], [START, math.nan if loss is None else loss])
    }
    if growth is not None:
        variances = [0.5 + 3 * block**growth for block in range(1, 5)]
        scalars[tags.probe_tag(tags.STREAM_VARIANCE, "embedding")] = make_series(
            [0, 10], [1.0, 0.5]
        )
    for block, variance in enumerate(variances, 1):
        tag = tags.probe_tag(tags.STREAM_VARIANCE, f"block_{block:02d}/feedforward")
        scalars[tag] = make_series([0, 10], [1.0, variance])
    return Run(Path("study") / record.name, record, Events(scalars))


def make_series(steps: list[int], values: list[float]) -> Series:
    return Series(np.array(steps), np.array(values))


def make_arm(norm: str, losses: list[float | None], **more: Any) -> list[Run]:
    """A run for every loss, seeds from 0; None diverged."""
    return [
        make_run(norm, seed, loss, state="diverged" if loss is None else "finished", **more)
        for seed, loss in enumerate(losses)
    ]


def make_claim(test: Test, **more: Any) -> Claim:
    said = {
        "statement": "A is so.",
        "source": "1910.07467",
        "published": Published("so | much", 0.5),
        "setup": "a large model",
        "differs": "the size",
        "unit": "nats per token",
    }
    return Claim(**(said | more), test=test)


def make_claim_data(**values: list[float]) -> ClaimData:
    found = StoredMeasurement("thing", {}, "seed", values, "a machine", "2026-11-24")
    return ClaimData(measurement=found, command="python scripts/claims.py claim=thing")


def judge_claim(test: Test, data: ClaimData, name: str = "thing", **more: Any) -> ClaimVerdict:
    return judge(name, make_claim(test, **more), data, date="2026-11-24", machine="a machine")
