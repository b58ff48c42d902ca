"""The learning rate over a run, as the recipes that use it publish it."""

import math

import pytest

from normlab.config.schema import Decay, ScheduleConfig
from normlab.training.module import learning_rate_factor


def nanogpt(iteration: int) -> float:
    """nanoGPT's CPU recipe: lr 1e-3 to 1e-4, warm-up 100, decay over 2000, as a factor."""
    if iteration < 100:
        return (iteration + 1) / 101
    ratio = (iteration - 100) / 1900
    return 0.1 + 0.5 * (1 + math.cos(math.pi * ratio)) * 0.9


def test_cosine_is_nanogpts_at_every_step() -> None:
    schedule = ScheduleConfig(Decay.cosine, warmup=0.05, decay_share=1.0, final_ratio=0.1)
    for step in range(2000):
        assert learning_rate_factor(schedule, step, 2000) == pytest.approx(nanogpt(step))


def test_constant_stays_at_the_top_after_warmup() -> None:
    schedule = ScheduleConfig(Decay.constant, warmup=0.1, decay_share=1.0, final_ratio=1.0)
    assert [learning_rate_factor(schedule, step, 20) for step in range(4)] == pytest.approx(
        [1 / 3, 2 / 3, 1, 1]
    )
    assert learning_rate_factor(schedule, 19, 20) == 1


def test_warmup_stable_decay_falls_linearly_over_its_last_part_only() -> None:
    schedule = ScheduleConfig(Decay.linear, warmup=0.0, decay_share=0.2, final_ratio=0.0)
    assert learning_rate_factor(schedule, 0, 100) == 1
    assert learning_rate_factor(schedule, 80, 100) == 1
    assert learning_rate_factor(schedule, 90, 100) == pytest.approx(0.5)
    assert learning_rate_factor(schedule, 100, 100) == pytest.approx(0.0)
