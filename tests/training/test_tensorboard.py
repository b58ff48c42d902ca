"""What TensorBoard's own reader finds of what a run wrote."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from normlab.config.schema import LoggerConfig
from normlab.training.tensorboard import RunLogger


def buckets(folder: Path, values: torch.Tensor) -> list[Any]:
    """Limits and counts of the histogram of these values that are not empty."""
    logger = RunLogger(folder, LoggerConfig())
    logger.write_histogram("gain_distribution", "final", values, 1)
    logger.experiment.close()
    found = EventAccumulator(str(folder)).Reload()
    (event,) = found.Histograms("probe/gain_distribution/final")
    counted = zip(event.histogram_value.bucket_limit, event.histogram_value.bucket, strict=True)
    return [(limit, count) for limit, count in counted if count]


def test_gains_near_one_are_told_apart(tmp_path: Path) -> None:
    found = buckets(tmp_path, torch.linspace(0.95, 1.05, 300, dtype=torch.bfloat16))
    assert len(found) > 10
    assert sum(count for _, count in found) == 300
    assert found[-1][0] == pytest.approx(1.05, rel=1e-2)


@pytest.mark.parametrize("value", [0.0, 1.0, -1e30])
def test_equal_values_are_one_narrow_bucket(tmp_path: Path, value: float) -> None:
    ((limit, count),) = buckets(tmp_path, torch.full((5,), value))
    assert count == 5
    assert limit == pytest.approx(value, abs=1e-3 * max(1, abs(value)))
