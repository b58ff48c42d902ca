"""An experiment's paragraph says what its numbers give, and changes with them."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from html_page import Page
from learning_rate_runs import runs_by_rate
from normlab.analysis import figures
from normlab.analysis.arms import group_runs
from normlab.analysis.experiment import StudyExperiment
from normlab.analysis.plot import print_report, write_study_report
from normlab.analysis.result import analyse_study
from normlab.analysis.style import Look
from normlab.apps.experiments import TRAINED_EXPERIMENTS
from normlab.apps.experiments.trial_panels import draw_best_rates, write_note
from normlab.apps.experiments.trials import best_trial_of_arms, group_trials, read_trials
from normlab.archive.study import Study, read_study
from normlab.data import build_source, unigram_loss

UNIGRAM = 3.3


def find_experiment(study: Study) -> StudyExperiment | None:
    return analyse_study(study, TRAINED_EXPERIMENTS).experiment


def trained(
    maker: Any,
    arm: str,
    level: float | None,
    seed: int = 0,
    *,
    rate: float = 1e-3,
    depth: int = 4,
    warmup: float = 0.0,
    figure: str = "norm_comparison",
) -> None:
    norm, placement = arm.split()
    fallen = math.exp(-100 / 60)  # a made loss is not at its level yet after 100 steps
    level = level and (level - 3.2 * fallen) / (1 - fallen)
    maker.run(
        norm,
        placement,
        seed,
        steps=100,
        level=level or 2.0,
        diverge_at=None if level else 60,
        unigram=UNIGRAM,
        name=f"{norm}-{placement}-{rate}-{depth}-{warmup}-s{seed}",
        config={
            "figure": figure,
            "optimizer": {"lr": rate},
            "model": {"depth": depth},
            "schedule": {"warmup": warmup},
        },
    )


def told(maker: Any) -> str:
    study = read_study(maker.folder)
    found = find_experiment(study)
    assert found is not None
    result = analyse_study(study, TRAINED_EXPERIMENTS)
    sentences = result.story
    assert all(sentence.endswith(".") for sentence in sentences)
    return " ".join(sentences)


def norms(maker: Any, seeds: int, **levels: tuple[float | None, float | None]) -> None:
    """Final losses of arms at lr=1e-3 and lr=1e-2."""
    arms = {"none": "none any", "post": "layernorm post", "pre": "layernorm pre"}
    for seed in range(seeds):
        for name, some in levels.items():
            for rate, level in zip((1e-3, 1e-2), some, strict=True):
                trained(maker, arms[name], level, seed, rate=rate)


def test_it_says_where_an_arm_diverges_and_who_ends_where(maker: Any) -> None:
    norms(maker, 1, none=(2.6, None), post=(2.5, 2.4), pre=(2.2, 2.3))
    words = told(maker)
    assert "Runs of the arm none diverge at lr=1e-2 (1 of 1)." in words
    assert "At lr=1e-2 these finish: layernorm · post at 2.4" in words
    # 1e-3 is the one rate at which all finish; post is better at the other.
    shared = "At one shared rate, lr=1e-3, the losses after 100 steps are layernorm · pre at 2."
    assert shared in words
    assert "(lr=1e-2)" in words.partition("each at its own best rate")[2]
    assert "One seed: no interval" in words
    assert "Holm" not in words


def test_the_same_words_are_not_said_of_other_numbers(maker: Any) -> None:
    norms(maker, 3, none=(2.0, 2.05), post=(2.5, 2.4), pre=(2.21, None))
    words = told(maker)
    assert "Runs of the arm layernorm · pre diverge at lr=1e-2 (3 of 3)" in words
    assert "the arm none" not in words
    assert "So none ends lower than layernorm · pre by 0.2" in words
    assert "layernorm · post by 0.4" in words
    assert "One seed" not in words


def test_what_cannot_be_told_is_said_so(maker: Any) -> None:
    norms(maker, 2, post=(2.4, 2.5), pre=(2.39, 2.6))
    words = told(maker)
    assert "Cannot tell layernorm · pre from layernorm · post (0.0070 ± " in words
    assert " detectable)" in words
    assert "ends lower" not in words
    assert "No run of" in words


def test_without_a_rate_at_which_all_finish_none_is_shared(maker: Any, draw_only: Callable) -> None:
    draw_only("norm_comparison")
    norms(maker, 1, none=(2.4, None), pre=(None, 2.2))
    words = told(maker)
    assert "There is no rate at which every arm finishes" in words
    assert len(write_study_report(maker.folder, TRAINED_EXPERIMENTS).figures) == 2


@pytest.mark.parametrize("finishes", [False, True])
def test_best_losses_have_a_scale_where_an_arm_finishes(maker: Any, finishes: bool) -> None:
    norms(maker, 1, none=(None, None), pre=(2.4 if finishes else None, None))
    arms = group_runs(read_study(maker.folder).runs)
    axes = Figure().add_subplot()
    draw_best_rates(axes, group_trials(read_trials(arms), "name"), Look.of(arms))
    assert "finishes at no rate" in [text.get_text() for text in axes.texts]
    assert (axes.get_xlabel() == "no arm finishes at any rate") == (not finishes)
    assert bool(len(axes.get_xticks())) == finishes


def test_a_figure_explains_what_it_shows_and_nothing_else(maker: Any) -> None:
    norms(maker, 1, pre=(2.4, 2.2))
    trials = read_trials(group_runs(read_study(maker.folder).runs))
    assert write_note(trials, "Dots.", "One seed.").startswith("One seed.")
    halved = [replace(trial, selection={0: 2.5}) for trial in trials]
    best = "Each at its own best rate"
    assert best in write_note(halved, "Dots.", "One seed.")
    assert best not in write_note(halved, "Dots.", "One seed.", best_rates=False)
    norms(maker, 2, post=(2.4, None))
    trials = read_trials(group_runs(read_study(maker.folder).runs))
    assert write_note(trials, "Dots.", "One seed.").startswith("× diverged")


def test_who_is_no_better_than_frequencies_is_named(maker: Any) -> None:
    norms(maker, 1, post=(3.29, 3.31), pre=(2.4, 3.3))
    words = told(maker)
    assert "(3.30)" in words
    assert "layernorm · post at lr=1e-3 and lr=1e-2; layernorm · pre at lr=1e-2." in words


def test_the_loss_without_context_is_the_entropy_of_what_is_scored() -> None:
    source = build_source({"kind": "synthetic", "source": "random", "vocabulary": 4}, 16)
    assert unigram_loss(source) == pytest.approx(1.3863, abs=1e-3)


def test_the_loss_without_context_of_few_tokens_is_not_below_the_floor() -> None:
    data = {"kind": "synthetic", "source": "random", "vocabulary": 1000, "validation_windows": 64}
    source = build_source(data, 16)
    assert source.floor is not None
    assert unigram_loss(source) >= source.floor


def depths(maker: Any, seeds: int, gains: dict[int, float], warm: float = 0.0) -> None:
    """Pre-LN ends at 2.2 everywhere; Post-LN so much above it by depth, and `warm` less warmed."""
    for seed in range(seeds):
        for depth, gain in gains.items():
            for warmup in (0.0, 0.2):
                for rate in (1e-3, 1e-2):
                    more: Any = {"rate": rate, "depth": depth, "warmup": warmup}
                    more["figure"] = "prenorm_vs_postnorm"
                    trained(maker, "layernorm pre", 2.2 + 10 * rate, seed, **more)
                    level = 2.2 + gain + 10 * rate - warm * (warmup > 0)
                    trained(maker, "layernorm post", level, seed, **more)


def test_depths_are_compared_at_their_best_settings(maker: Any) -> None:
    depths(maker, 3, {4: -0.1, 16: 1.2}, warm=0.05)
    words = told(maker)
    shallow, deep = words.partition("Warm-up")[0].split("At depth 16")
    assert "layernorm · post ends lower than layernorm · pre by 0." in shallow
    assert "layernorm · pre ends lower than layernorm · post by 1.1" in deep
    assert deep.endswith("at depth 16. ")
    assert "Warm-up changes the best final loss of layernorm · post by -0.0" in words
    assert "4 settings" not in words
    assert (
        "Of 8 settings of layernorm · pre 0 diverge and 0 end above, or less than 0.05 below, the "
        "loss of token frequencies alone." in words
    )
    assert "layernorm · post 0 diverge and 4 end above" in words
    assert "(4 at depth 16)." in words


def test_no_intervals_are_named_where_nothing_was_compared(maker: Any) -> None:
    for seed in range(2):
        for rate in (1e-3, 1e-2):
            more: Any = {"rate": rate, "figure": "prenorm_vs_postnorm"}
            trained(maker, "layernorm pre", 2.2 + rate, seed, **more)
    assert "hold together" not in told(maker)


def test_depths_that_cannot_be_told_apart_say_what_could_have_been(maker: Any) -> None:
    depths(maker, 2, {4: 0.001})
    words = told(maker)
    assert "Cannot tell layernorm · pre from layernorm · post at depth 4 (0.00" in words
    assert " detectable)" in words


@pytest.mark.usefixtures("without_figures")
def test_the_sentences_are_a_paragraph_on_the_terminal_and_a_list_on_the_page(
    maker: Any, capfd: pytest.CaptureFixture
) -> None:
    norms(maker, 2, post=(2.4, 2.5), pre=(2.2, 2.3))
    done = write_study_report(maker.folder, TRAINED_EXPERIMENTS)
    print_report(done)
    assert " ".join(done.result.story) in capfd.readouterr().out
    (found,) = [
        one for one in Page(done.page).root.all("ul") if one.attributes.get("class") == "findings"
    ]
    assert [one.text for one in found.all("li")] == [
        *done.result.story[1:],
        *done.result.sentences,
    ]


def test_figures_are_drawn_and_drawn_again_when_numbers_change(
    maker: Any, draw_only: Callable
) -> None:
    draw_only("prenorm_vs_postnorm")
    depths(maker, 1, {4: 0.1})
    drawn, _ = write_study_report(maker.folder, TRAINED_EXPERIMENTS).figures
    assert drawn.name == "prenorm_vs_postnorm.png"
    before = drawn.read_bytes()
    assert len(before) > 20_000
    trained(
        maker, "layernorm post", None, 2, rate=1e-2, depth=4, warmup=0.2,
        figure="prenorm_vs_postnorm",
    )  # fmt: skip
    assert write_study_report(maker.folder, TRAINED_EXPERIMENTS).figures[0].read_bytes() != before


def test_a_study_of_two_experiments_or_without_a_result_has_no_sentences(maker: Any) -> None:
    trained(maker, "layernorm pre", None)
    result = analyse_study(read_study(maker.folder), TRAINED_EXPERIMENTS)
    assert "No run has finished" in " ".join(result.sentences)
    assert "norm_comparison" not in figures._figure_drawers(result, maker.folder)
    trained(maker, "layernorm post", 2.0, figure="prenorm_vs_postnorm")
    assert find_experiment(read_study(maker.folder)) is None
    assert find_experiment(Study(Path("empty"), [])) is None


def test_runs_that_differ_in_something_else_are_no_trained_experiment(maker: Any) -> None:
    norms(maker, 1, post=(2.4, 2.5), pre=(2.2, 2.3))
    assert find_experiment(read_study(maker.folder)) is not None
    maker.run(
        "rmsnorm", "pre", steps=100, name="rmsnorm-pre-others", precision="32-true",
        config={
            "figure": "norm_comparison",
            "optimizer": {"lr": 1e-3},
            "model": {"depth": 4},
            "schedule": {"warmup": 0.0},
            "trainer": {"max_steps": 100, "precision": "32-true"},
        },
    )  # fmt: skip
    study = read_study(maker.folder)
    for run in study.runs[:2]:
        run.record.config["trainer"] = {"max_steps": 50, "precision": "bf16-mixed"}
    assert find_experiment(study) is None
    assert not analyse_study(study, TRAINED_EXPERIMENTS).story
    assert "Diverged" not in analyse_study(study, TRAINED_EXPERIMENTS).sentences[0]


def test_without_a_seed_in_common_the_means_are_compared_by_welch(maker: Any) -> None:
    for rate in (1e-3, 1e-2):
        for seed in (0, 1):
            trained(maker, "layernorm pre", 2.2, seed, rate=rate)
        for seed in (2, 3):
            trained(maker, "layernorm post", 2.4, seed, rate=rate)
    words = told(maker)
    assert "So layernorm · pre ends lower than layernorm · post by 0.19" in words
    assert "nan" not in words


def test_a_setting_is_chosen_on_other_windows_than_it_is_compared_on() -> None:
    halves = {1e-3: (2.0, 1.5), 1e-2: (1.4, 1.9)}
    losses: dict = {1e-3: [1.75], 1e-2: [1.8]}
    (best,) = best_trial_of_arms(read_trials(group_runs(runs_by_rate(losses, halves=halves))))
    assert (best.rate, best.loss) == (1e-2, "1.9000")
    (best,) = best_trial_of_arms(read_trials(group_runs(runs_by_rate(losses))))
    assert (best.rate, best.loss, best.windows) == (1e-3, "1.7500", "")
