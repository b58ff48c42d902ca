"""Steps to a target, loss spikes, arms that learned nothing, seeds in two groups."""

import csv
import itertools
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normlab.analysis import convergence
from normlab.analysis.caveats import split_in_two
from normlab.analysis.convergence import (
    Convergence,
    count_spikes,
    describe_convergence,
    log_rank_p,
    steps_to_target,
)
from normlab.analysis.result import StudyResult, analyse_study
from normlab.analysis.runs_csv import write_runs_csv
from normlab.archive import tags
from normlab.archive.events import Events, Series
from normlab.archive.record import RunRecord, State
from normlab.archive.study import Run, read_study


def observed_less_expected(a: list[float], b: list[float]) -> Fraction:
    """The log-rank numerator: events of a, less its share of all events at each of their times."""
    total = Fraction(0)
    for time in {step for step in (*a, *b) if step < math.inf}:
        at_risk = [sum(step >= time for step in side) for side in (a, b)]
        events = [side.count(time) for side in (a, b)]
        total += events[0] - Fraction(sum(events) * at_risk[0], sum(at_risk))
    return total


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([100, 150, 200], [300, 350, math.inf], Fraction(2, 20)),
        ([100, 250, 250, math.inf], [150, 250, 400], Fraction(30, 35)),
        ([50, 100, 100, 150], [50, math.inf, math.inf, math.inf], Fraction(10, 70)),
    ],
)
def test_the_log_rank_p_is_that_of_all_divisions(
    a: list[float], b: list[float], expected: Fraction
) -> None:
    together = [*a, *b]
    sizes = []
    for chosen in itertools.combinations(range(len(together)), len(a)):
        one = [together[i] for i in chosen]
        other = [together[i] for i in range(len(together)) if i not in chosen]
        sizes.append(abs(observed_less_expected(one, other)))
    as_large = sum(size >= abs(observed_less_expected(a, b)) for size in sizes)
    assert Fraction(as_large, len(sizes)) == expected
    assert log_rank_p(a, b) == pytest.approx(float(expected), abs=1e-12)


def test_of_too_many_divisions_a_random_part_is_taken_with_the_one_at_hand() -> None:
    """Ten runs against ten can be divided in 184,756 ways, of which two are so far apart."""
    assert 1 / 20_000 <= log_rank_p(list(range(10)), [math.inf] * 10) <= 5 / 20_000
    assert log_rank_p([math.inf] * 10, [math.inf] * 10) == 1.0


def test_arms_wholly_apart_have_the_smallest_p_of_their_seeds() -> None:
    assert log_rank_p([1, 2, 3], [4, 5, math.inf]) == pytest.approx(2 / 20)
    assert log_rank_p([1, 2, 3, 4, 5], [math.inf] * 5) == pytest.approx(2 / 252)
    assert log_rank_p([math.inf] * 3, [math.inf] * 3) == 1.0
    assert math.isnan(log_rank_p([], [1.0]))


def test_the_log_rank_p_of_equal_arms_is_uniform() -> None:
    random = np.random.default_rng(1)
    draws = random.exponential(size=(300, 10))
    draws[draws > 1.5] = math.inf
    ps = np.array([log_rank_p(list(row[:5]), list(row[5:])) for row in draws])
    assert np.mean(ps < 0.05) < 0.08
    assert 0.4 < ps.mean() < 0.65


def test_spikes_are_counted_once_each_and_only_upward() -> None:
    random = np.random.default_rng(0)
    losses = 2 + 0.05 * random.standard_normal(600)
    assert count_spikes(losses) == 0
    losses[200] += 1.0
    losses[400:404] += 1.0  # four steps in a row
    losses[500] -= 1.0
    assert count_spikes(losses) == 2
    losses[550] = math.nan
    assert count_spikes(losses) == 3
    assert count_spikes(losses[:255]) is None


def test_a_spike_is_six_robust_standard_deviations_above_the_median() -> None:
    """Of 1.0 and 1.1 in turn the threshold is 1.05 + 6 · 1.4826 · 0.05 = 1.4948."""
    losses = np.array([1.0, 1.1] * 150)
    losses[200] = 1.49
    assert count_spikes(losses) == 0
    losses[200] = 1.50
    assert count_spikes(losses) == 1


def test_a_falling_loss_has_no_spikes() -> None:
    random = np.random.default_rng(0)
    steps = np.arange(1000)
    losses = 2 + 2 * np.exp(-steps / 100) + 0.03 * random.standard_normal(1000)
    assert count_spikes(losses) == 0


def analyse(maker: Any, **settings: float | None) -> StudyResult:
    return analyse_study(read_study(maker.folder), **settings)


def test_steps_to_the_target_are_those_of_the_first_validation_below_it(maker: Any) -> None:
    for seed in range(5):
        maker.run("rmsnorm", seed=seed, level=1.45)
        maker.run("layernorm", seed=seed, level=1.70)
    result = analyse(maker)  # 0.1 above the floor of 1.43
    slow, fast = result.convergence.arms
    assert (fast.reached, slow.reached) == (5, 0)
    series = read_study(maker.folder).runs[-1].events.scalars[tags.VALIDATION_LOSS]
    first = int(series.steps[np.flatnonzero(series.values <= 1.53)[0]])
    assert first in fast.steps
    assert slow.median_steps == math.inf
    sentences = " ".join(result.sentences)
    assert "layernorm · pre not reached (0 of 5 runs)" in sentences
    assert "rmsnorm · pre reaches it in fewer steps than layernorm · pre (p = 0.008)" in sentences
    with write_runs_csv(result.study, result.convergence.target).open() as file:
        reached = [row["steps_to_target"] for row in csv.DictReader(file)]
    assert sorted(reached) == sorted(["", "", "", "", "", *(f"{step:g}" for step in fast.steps)])


VALIDATED = [3.0, 2.0, 1.5, 1.6, 1.4]  # at steps 0, 50, 100, 150 and 200


def validated_run(values: list[float], state: State = "finished") -> Run:
    record = RunRecord("", "run", "rmsnorm", "pre", "synthetic", 0, {}, {}, state)
    series = Series(np.arange(len(values)) * 50, np.array(values))
    return Run(Path("run"), record, Events({tags.VALIDATION_LOSS: series}))


@pytest.mark.parametrize(("target", "step"), [(1.5, 100), (1.4, 200), (1.39, math.inf)])
def test_the_step_to_a_target_is_that_of_the_first_loss_at_or_below_it(
    target: float, step: float
) -> None:
    assert steps_to_target(validated_run(VALIDATED), target) == step
    assert steps_to_target(validated_run(VALIDATED, "diverged"), target) == math.inf


def test_a_run_that_ends_above_a_target_that_it_was_below_has_reached_it() -> None:
    assert steps_to_target(validated_run([2.0, 1.4, 1.6]), 1.5) == 50


def test_the_median_of_steps_is_infinite_where_half_of_the_runs_reached_nothing(maker: Any) -> None:
    maker.run("rmsnorm")
    (row,) = analyse(maker).convergence.arms
    assert replace(row, steps=(100, 200, math.inf, math.inf)).median_steps == math.inf
    assert replace(row, steps=(100, 200, math.inf)).median_steps == 200


def test_seconds_to_a_target_are_its_share_of_the_steps(
    maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fifth of 500 steps in 10 seconds."""
    monkeypatch.setattr(convergence, "are_speeds_comparable", lambda runs: True)
    maker.run("rmsnorm", train_seconds=10.0)
    study = read_study(maker.folder)
    study.runs[0].events = validated_run(VALIDATED).events
    (row,) = analyse_study(study, target=1.5).convergence.arms
    assert (row.steps, row.seconds) == ((100,), (2.0,))


def test_a_target_that_no_run_reaches_or_no_model_can_is_named(maker: Any) -> None:
    maker.run("rmsnorm", level=1.6)
    maker.run("layernorm", level=1.7)
    assert (
        "No run reached the target of 1.5000 nats per token."
        in analyse(maker, target=1.5).sentences
    )
    (sentence,) = [line for line in analyse(maker, target=1.2).sentences if "1.2000" in line]
    assert "is below the floor, 1.4300: no model reaches it" in sentence


def test_a_diverged_run_has_not_reached_a_target(maker: Any) -> None:
    maker.run("rmsnorm", level=1.45, diverge_at=450)
    (row,) = analyse(maker, target=2.0).convergence.arms
    assert row.steps == (math.inf,)


def test_an_arm_at_the_unigram_loss_has_learned_nothing(maker: Any) -> None:
    maker.run("rmsnorm", level=1.45, unigram=2.0)
    maker.run("layernorm", level=1.995, unigram=2.0)
    (sentence,) = [line for line in analyse(maker).sentences if "unigram loss" in line]
    assert "layernorm · pre (1 of 1 runs)" in sentence
    assert "rmsnorm" not in sentence


def test_seeds_in_two_groups_are_told_apart_from_noise() -> None:
    assert split_in_two([1.50, 1.90, 1.51, 1.91, 1.92]) == ([1.50, 1.51], [1.90, 1.91, 1.92])
    assert split_in_two([1.50, 1.60, 1.70, 1.80]) is None
    assert split_in_two([1.50, 1.51, 1.52, 1.90]) is None  # one run is no group
    assert split_in_two([1.5000, 1.5001, 1.5100, 1.5101]) is None  # too near to matter
    normal = np.random.default_rng(0).normal(1.6, 0.05, size=(2000, 5))
    assert np.mean([split_in_two(list(row)) is not None for row in normal]) < 0.03


def test_two_groups_are_a_warning(maker: Any) -> None:
    for seed, level in enumerate([1.5, 1.5, 1.9, 1.9]):
        maker.run("rmsnorm", seed=seed, level=level)
    warnings = " ".join(analyse(maker).warnings)
    assert "Seeds end in two groups" in warnings
    assert "rmsnorm · pre (2 at 1.5" in warnings


def test_a_finished_run_whose_curves_are_incomplete_is_not_counted(maker: Any) -> None:
    for seed in range(3):
        maker.run("rmsnorm", seed=seed, level=1.45)
    study = read_study(maker.folder)
    study.runs[0].complete = False
    result = analyse_study(study)
    (row,) = result.convergence.arms
    assert (row.runs, row.reached, len(row.steps)) == (2, 2, 2)
    with write_runs_csv(study, result.convergence.target).open() as file:
        cells = [(line["steps_to_target"], line["loss_spikes"]) for line in csv.DictReader(file)]
    assert cells[0] == ("", "")
    assert all(all(of_run) for of_run in cells[1:])


def test_an_arm_that_is_not_compared_has_no_verdict_on_its_steps(maker: Any) -> None:
    for seed in range(5):
        maker.run("rmsnorm", seed=seed, level=1.45, config={"allow_leak": True})
        maker.run("layernorm", seed=seed, level=1.70)
    assert "fewer steps" not in " ".join(analyse(maker).sentences)


def test_the_p_of_steps_counts_the_facets_too(maker: Any) -> None:
    for depth in (2, 4):
        for seed in range(5):
            shared = {"seed": seed, "config": {"model": {"depth": depth}}}
            maker.run("rmsnorm", name=f"r{depth}{seed}", level=1.45, **shared)
            maker.run("layernorm", name=f"l{depth}{seed}", level=1.70, **shared)
    sentences = [line for line in analyse(maker).sentences if "fewer steps" in line]
    assert len(sentences) == 2
    assert all("(p = 0.016)" in sentence for sentence in sentences)


def test_spikes_are_of_the_runs_that_have_curves(maker: Any) -> None:
    maker.run("rmsnorm", seed=0)
    maker.run("rmsnorm", seed=1, state="failed")
    study = read_study(maker.folder)
    study.runs[0].events.scalars[tags.TRAIN_LOSS].values[400] += 5.0
    (sentence,) = [line for line in analyse_study(study).sentences if "spikes" in line]
    assert "rmsnorm · pre 1 in 1 run." in sentence


def test_seconds_are_not_given_where_a_run_has_none(
    maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convergence, "are_speeds_comparable", lambda runs: True)
    for seed in range(3):
        maker.run("rmsnorm", seed=seed, level=1.45, train_seconds=None if seed == 1 else 10.0)
    (row,) = analyse(maker).convergence.arms
    assert (len(row.steps), row.seconds) == (3, ())


def test_many_steps_are_written_with_all_digits(maker: Any) -> None:
    maker.run("rmsnorm")
    (row,) = analyse(maker).convergence.arms
    long = Convergence(2.0, False, (replace(row, steps=(1_234_567.0,)),), ())
    (sentence,) = describe_convergence(long)
    assert "rmsnorm · pre 1234567." in sentence


def test_the_target_is_below_the_floor_only_where_it_is_below_all_floors(maker: Any) -> None:
    for kind, floor, level in (("a", 0.5, 0.6), ("b", 1.2, 1.3)):
        for norm in ("rmsnorm", "layernorm"):
            maker.run(
                norm,
                name=f"{norm}{kind}",
                level=level,
                floor=floor,
                config={"data": {"kind": kind}},
            )
    said = " ".join(analyse(maker, target=0.9).sentences)
    assert "below the floor" not in said
    said = " ".join(analyse(maker, target=0.4).sentences)
    assert "The target of 0.4000 nats per token is below the floor, 0.5000" in said


def test_the_arm_that_is_called_faster_has_reached_the_target_earlier(maker: Any) -> None:
    """The medians are equal, and the log-rank test tells the arms apart."""
    reached = {"layernorm": [100] * 4 + [150] * 3, "rmsnorm": [50] * 3 + [100] * 4}
    for norm in reached:
        for seed in range(7):
            maker.run(norm, seed=seed, steps=150)
    study = read_study(maker.folder)
    for run in study.runs:
        at = reached[run.record.norm][run.record.seed]
        losses = np.array([2.0 if step < at else 1.0 for step in (0, 50, 100, 150)])
        run.events.scalars[tags.VALIDATION_LOSS] = Series(np.array([0, 50, 100, 150]), losses)
    result = analyse_study(study, target=1.5)
    first, second = (row.steps for row in sorted(result.convergence.arms, key=lambda r: r.arm.norm))
    assert log_rank_p(first, second) < 0.05
    sentences = " ".join(result.sentences)
    assert "layernorm · pre reaches it in fewer steps" not in sentences
    assert "rmsnorm · pre reaches it in fewer steps than layernorm · pre (p = " in sentences
