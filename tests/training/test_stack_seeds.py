"""Whole runs of eight seeds, in a stack and alone: they end at the same loss, seed by seed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from normlab.analysis.statistics import paired_difference
from normlab.archive.record import RunRecord
from normlab.config.run_spec import RunSpec
from normlab.training.run import train
from normlab.training.stack_run import train_stack
from tiny_run import TINY, SilentDisplay, keep_last

OWN = (
    "model.width=32",
    "model.context=32",
    "data.batch_size=8",
    "data.validation_windows=64",
    "trainer.max_steps=300",
    "trainer.val_every=150",
)
SMALL = keep_last((*TINY, *OWN))
SEEDS = range(8)
# Nats per token. Rounding alone gives 1e-7 here, at a rate where it does not grow.
MARGIN = 1e-5


def final_losses(specs: list[RunSpec]) -> dict[int, float]:
    records = [RunRecord.read(spec.folder) for spec in specs]
    assert [record.state for record in records] == ["finished"] * len(specs)
    return {record.seed: record.final.val_loss for record in records}


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "placement"), [("rmsnorm", "pre"), ("layernorm", "post")])
def test_eight_seeds_end_in_a_stack_where_they_end_alone(
    norm: str, placement: str, specified: Callable, tmp_path: Path
) -> None:
    stacked, alone = (
        [
            specified(
                *SMALL,
                f"norm={norm}",
                f"placement={placement}",
                f"seed={seed}",
                f"output_dir={tmp_path / place}",
            )
            for seed in SEEDS
        ]
        for place in ("stacked", "alone")
    )
    train_stack(stacked, "the command", [SilentDisplay() for _ in SEEDS])
    for spec in alone:
        train(spec, "the command", SilentDisplay())
    difference = paired_difference(final_losses(stacked), final_losses(alone))
    assert abs(difference.mean) + difference.half <= MARGIN
    # They are other computations, whose losses differ in the last digits.
    assert difference.spread > 0
