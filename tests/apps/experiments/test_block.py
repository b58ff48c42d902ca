"""`block`: the complete block against its variants; other numbers, other sentences and figures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import yaml

from every_figure import run, series
from figure_texts import overlapping_words, visible_words, words_outside
from normlab import config
from normlab.analysis.result import StudyResult, analyse_study
from normlab.analysis.style import RC
from normlab.apps.experiments import TRAINED_EXPERIMENTS
from normlab.apps.experiments.block import first_gradients
from normlab.apps.experiments.trials import read_trials
from normlab.archive import tags
from normlab.archive.study import Run, Study

RATES = (3e-3, 1e-2)


def gradient_series(run: Run, gradients: Sequence[float]) -> None:
    """Give a run probes: each block's gradient at step 0, three and four parts of five."""
    for block, gradient in enumerate(gradients, 1):
        for sublayer, part in (("attention", 0.6), ("feedforward", 0.8)):
            tag = tags.probe_tag(tags.PARAMETER_GRADIENT, f"block_{block:02d}/{sublayer}")
            run.events.scalars[tag] = series([0, 100], [part * gradient, 7.0])


def studied(
    losses: Mapping[str, tuple[float | None, float | None]],
    seeds: int = 3,
    gradients: Mapping[str, Sequence[float]] | None = None,
    norm: str = "rmsnorm",
) -> StudyResult:
    """Placements with their losses at both rates; None diverges."""
    runs = []
    for placement, by_rate in losses.items():
        for rate, loss in zip(RATES, by_rate, strict=True):
            for seed in range(seeds):
                level = (loss or 2.0) + 0.001 * math.sin(7 * seed + 100 * rate + len(placement))
                one = run(
                    norm, placement, seed, level, diverged=loss is None,
                    optimizer={"lr": rate}, model={"depth": 2}, figure="block",
                )  # fmt: skip
                gradient_series(one, (gradients or {}).get(placement, ()))
                runs.append(one)
    return analyse_study(Study(Path("my_block"), runs), TRAINED_EXPERIMENTS)


def said(result: StudyResult) -> str:
    assert result.experiment is not None
    assert all(sentence.endswith(".") for sentence in result.story)
    return " ".join(result.story)


def test_what_a_part_changes_is_judged_at_each_arms_best_rate() -> None:
    words = said(
        studied(
            {
                "pre": (1.50, 1.60),
                "pre/no_skip": (2.10, 2.08),
                "pre/feedforward_first": (1.30, 1.15),
                "pre/no_final_norm": (1.70, 1.5002),
            }
        )
    )
    assert "rmsnorm · pre, with all its parts, ends at 1.50" in words
    assert "End higher, each at its own best rate: rmsnorm · pre/no_skip by 0.5" in words
    assert "End lower, each at its own best rate: rmsnorm · pre/feedforward_first by 0.3" in words
    assert "Cannot tell rmsnorm · pre from rmsnorm · pre/no_final_norm (" in words
    assert "No run of" in words
    assert "together" in words


def test_of_one_seed_no_part_is_judged() -> None:
    words = said(studied({"pre": (1.5, 1.6), "pre/no_skip": (2.15, 2.2)}, seeds=1))
    assert "Others, each at its own best rate, less that: rmsnorm · pre/no_skip 0.6" in words
    assert "End higher" not in words
    assert "One seed: no interval" in words


def test_what_diverges_and_what_learns_nothing_is_said() -> None:
    words = said(studied({"pre": (1.5, 1.6), "pre/no_skip": (2.59, None)}))
    assert "Runs of the arm rmsnorm · pre/no_skip diverge at lr=1e-2 (3 of 3)." in words
    assert (
        "(2.60), and so with hardly any use of context: rmsnorm · pre/no_skip at lr=3e-3" in words
    )


def test_without_the_complete_block_nothing_is_compared() -> None:
    words = said(studied({"pre": (None, None), "pre/no_skip": (2.15, 2.2)}))
    assert "The complete block (placement=pre) finishes at no rate" in words
    assert "together" not in words
    assert "End higher" not in words


def test_the_gradient_at_the_start_is_that_of_both_sublayers() -> None:
    result = studied(
        {"pre": (1.5, 1.6), "pre/no_skip": (2.1, 2.0)},
        gradients={"pre": (2.0, 2.0), "pre/no_skip": (0.1, 0.4)},
    )
    trials = [t for t in read_trials(result.arms) if t.arm.placement == "pre/no_skip"]
    np.testing.assert_allclose(first_gradients(trials), [0.1, 0.4])
    words = said(result)
    assert "over that of rmsnorm · pre, the geometric mean of the blocks, ×0.10" in words
    assert "over that of the last is ×1.00 (rmsnorm · pre) and ×0.25 (rmsnorm" in words
    assert "gradient" not in said(studied({"pre": (1.5, 1.6), "pre/no_skip": (2.1, 2.0)}))


def test_norms_are_compared_with_the_complete_block_of_the_same_norm() -> None:
    losses = {"pre": (1.5, 1.6), "pre/no_skip": (2.15, 2.2)}
    both = [*studied(losses).study.runs, *studied(losses, norm="layernorm").study.runs]
    words = said(analyse_study(Study(Path("my_block"), both), TRAINED_EXPERIMENTS))
    assert "End higher, each at its own best rate: layernorm · pre/no_skip by 0.6" in words
    assert "End higher, each at its own best rate: rmsnorm · pre/no_skip by 0.6" in words


@pytest.mark.parametrize("probed", [True, False])
def test_every_variant_has_its_own_colour_and_its_gradient(probed: bool) -> None:
    path = config.conf_folder() / "experiment" / "block.yaml"
    arms = yaml.safe_load(path.read_text())["hydra"]["sweeper"]["arms"]
    placements = [arm.removeprefix("placement=") for arm in arms]
    result = studied(
        {name: (1.5 + at / 10, 1.6) for at, name in enumerate(placements)},
        gradients={name: (1.0 + at, 2.0) for at, name in enumerate(placements) if probed},
    )
    assert result.experiment is not None
    with matplotlib.rc_context(RC):
        figure = result.experiment.draw_figure(result)
        figure.draw_without_rendering()
    assert words_outside(figure) == overlapping_words(figure) == []
    gradients = next(axes for axes in figure.axes if axes.get_title("left").startswith("Gradient"))
    assert len({line.get_color() for line in gradients.lines}) == len(placements) * probed
    words = [text.get_text() for text in visible_words(figure)]
    assert ("not measured: probes=on" in words) is not probed
