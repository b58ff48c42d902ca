"""Every figure that the project draws, of so many arms: made up, and laid out without a file.

`FIGURES` names them by the module that draws them; a test holds it against the sources, so that a
new figure is not forgotten.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure

from example_card import make_example_card
from example_measurements import (
    gradient_vanishing,
    measurement_record,
    norm_comparison,
    norm_times,
    precision,
    stack_profile,
    stream_profile,
)
from normlab.analysis import figures, sheet
from normlab.analysis.arms import group_runs
from normlab.analysis.figures import learning_rate_figure
from normlab.analysis.learning_rates import analyse_learning_rates
from normlab.analysis.result import StudyResult, analyse_study
from normlab.analysis.style import RC
from normlab.apps.card import figure as card_figure
from normlab.apps.claims import figure as claims_figure
from normlab.apps.claims import lengths_figure as claims_lengths_figure
from normlab.apps.claims import record as claims_record
from normlab.apps.experiments import TRAINED_EXPERIMENTS
from normlab.apps.experiments import report as experiment_report
from normlab.apps.experiments.layernorm_vs_rmsnorm import IMPLEMENTATIONS, LayerNormVsRmsNorm
from normlab.apps.probe import figure as probe_figure
from normlab.apps.probe.record import ProbedModel, ProbeResult
from normlab.apps.probe.slopes import fit_slopes
from normlab.archive import tags
from normlab.archive.events import Events, Series
from normlab.archive.record import BestNumbers, FinalNumbers, RunRecord
from normlab.archive.study import Run, Study

Capture = dict[str, Figure]

NORMS = (
    *("rmsnorm", "layernorm", "none", "dyt", "layernorm_nobias", "partial_rmsnorm", "scalenorm"),
    *("groupnorm", "gemma_rmsnorm", "derf", "seednorm", "simple_rmsnorm"),
)
PLACEMENTS = ("pre", "post", "sandwich", "hybridnorm", "normformer")
STEPS = 400
LONG = "my_rmsnorm_with_a_learned_exponent_of_the_mean_square"  # as long as names get


def arms(count: int) -> list[tuple[str, str]]:
    """So many norms and placements, as users combine them; a last one has a long name."""
    pairs = [(norm, "any" if norm == "none" else place) for place in PLACEMENTS for norm in NORMS]
    pairs = list(dict.fromkeys(pairs))
    pairs += [(f"{LONG}_{at:03d}", "hybridnorm") for at in range(max(0, count - len(pairs)))]
    chosen = pairs[:count]
    if count >= 12:
        chosen[-1] = (f"{LONG}_{count}", "normformer")
    return chosen


def run(
    norm: str,
    placement: str,
    seed: int,
    loss: float,
    *,
    diverged: bool = False,
    probed: bool = False,
    **config: Any,
) -> Run:
    """A run whose loss falls from 3.2 to `loss`; or that diverges half-way."""
    rng = np.random.default_rng([seed, int(loss * 1e6)])
    end = STEPS // 2 if diverged else STEPS
    steps = np.arange(0, end + 1, 5)
    losses = loss + (3.2 - loss) * np.exp(-steps / 60) + rng.normal(0, 0.02, len(steps))
    if diverged:
        losses = losses + np.maximum(0, steps - end / 2) ** 1.5
        losses[-1] = math.nan
    validated = np.arange(0, end + 1, 50)
    smooth = loss + (3.2 - loss) * np.exp(-validated / 60)
    scalars = {
        tags.TRAIN_LOSS: series(steps, losses),
        tags.VALIDATION_LOSS: series(validated, smooth),
        tags.GRADIENT_NORM: series(steps, 1e-3 + np.exp(-steps / 90)),
        tags.TOKENS_PER_SECOND: series(steps[1:], 45_000 + rng.normal(0, 500, len(steps) - 1)),
    }
    quantities = (*tags.QUANTITIES, "gain_mean", "gain_std") if probed else ()
    for quantity, block in itertools.product(quantities, range(1, 4)):
        for site in ("attention", "feedforward"):
            values = block * loss * np.exp(validated / 300)
            name = tags.probe_tag(quantity, f"block_{block:02d}/{site}")
            scalars[name] = series(validated, values)
    whole = {"seed": seed, "trainer": {"max_steps": STEPS, "val_every": 50}, **config}
    setting = "-".join(str(part) for value in config.values() for part in np.ravel([value]))
    record = RunRecord(
        id=f"{norm}{placement}{seed}",
        name=f"{norm}-{placement}-s{seed}-{setting}",
        norm=norm,
        placement=placement,
        data="synthetic",
        seed=seed,
        choices={"norm": norm, "placement": placement},
        config=whole,
        state="diverged" if diverged else "finished",
        step=end,
        diverged_step=end if diverged else None,
        floor=1.43,
        unigram=2.6,
        final=FinalNumbers(None if diverged else float(smooth[-1])),
        best=BestNumbers(float(smooth.min()), int(validated[-1])),
        command="train.py -m norm=… placement=…",
        tokens_per_second=45_000.0,
    )
    return Run(Path("study") / record.name, record, Events(scalars))


def series(steps: Any, values: Any) -> Series:
    return Series(np.asarray(steps), np.asarray(values, float))


def study(count: int) -> Study:
    """Arms with two seeds each; of every fifth both runs diverge."""
    runs = [
        run(
            norm,
            placement,
            seed,
            1.5 + 0.011 * at + 0.004 * seed,
            diverged=at % 5 == 4,
            probed=True,
        )
        for at, (norm, placement) in enumerate(arms(count))
        for seed in (0, 1)
    ]
    return Study(Path("my_study"), runs)


def faceted(count: int) -> Study:
    """One norm under so many other settings, which are unlike in many keys."""
    runs = [
        run(
            norm, "pre", 0, 1.5 + 0.01 * at,
            model={"depth": 1 + at % 7, "width": 32 * (1 + at), "heads": 1 + at % 3},
            optimizer={"betas": [0.9, 0.9 + 0.0001 * at], "weight_decay": 0.1 * at},
        )
        for at in range(count)
        for norm in ("rmsnorm", "layernorm")
    ]  # fmt: skip
    return Study(Path("a_study_whose_name_is_as_long_as_a_name_of_a_study_can_be_at_all"), runs)


def rated(count: int, name: str | None = None) -> Study:
    """So many arms over seven learning rates, the largest of which diverges for some."""
    rates = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
    runs = [
        run(
            norm, placement, seed, 1.5 + 0.01 * at + 0.1 * abs(math.log10(rate / 3e-3)),
            diverged=rate > 0.2 and at % 3 == 0, probed=name == "block",
            optimizer={"lr": rate}, figure=name,
        )
        for at, (norm, placement) in enumerate(arms(count))
        for rate in rates
        for seed in (0, 1)
    ]  # fmt: skip
    return Study(Path("my_rates"), runs)


def deepened(count: int) -> Study:
    """So many arms over depth, learning rate and warm-up."""
    runs = [
        run(
            norm, placement, 0, 1.5 + 0.01 * at + 0.02 * depth + 0.1 * abs(math.log10(rate / 3e-3)),
            diverged=rate > 5e-3 and at % 3 == 1, optimizer={"lr": rate}, model={"depth": depth},
            schedule={"warmup": warmup}, figure="prenorm_vs_postnorm",
        )
        for at, (norm, placement) in enumerate(arms(count))
        for depth, rate, warmup in itertools.product((4, 8, 16), (1e-3, 3e-3, 1e-2), (0.0, 0.1))
    ]  # fmt: skip
    return Study(Path("my_depths"), runs)


def probing(count: int) -> ProbeResult:
    found = tuple(
        ProbedModel(
            norm, placement, (), depth, seed, 4.17,
            {
                quantity: {
                    f"block_{block:02d}{site}": (1 + at / 10) * block ** (0.5 + 0.05 * seed)
                    for block in range(1, depth + 1)
                    for site in ("/feedforward", "")
                }
                for quantity in tags.QUANTITIES
            },
        )
        for at, (norm, placement) in enumerate(arms(count))
        for depth in (4, 8, 16)
        for seed in (0, 1)
    )  # fmt: skip
    return ProbeResult(found, fit_slopes(found))


def claimed(count: int) -> claims_record.ClaimsRecord:
    def one(at: int) -> claims_record.ClaimVerdict:
        low = -0.03 + 0.001 * at
        return claims_record.ClaimVerdict(
            name=f"claim_{at}" if at % 3 else f"a_claim_that_has_quite_a_long_name_{at}",
            statement="A norm ends lower.",
            source="1910.07467",
            kind="lower",
            word=[*claims_record.MEANINGS][at % len(claims_record.MEANINGS)],
            reason="",
            published="0.02 lower",
            published_value=-0.02 if at % 2 else None,
            value=None if at % 4 == 3 else low + 0.01,
            low=None if at % 4 == 3 else low,
            high=None if at % 4 == 3 else low + 0.02,
            unit="nats a token, mean over seeds",
            claimed=claims_record.Range(None, 0.0),
            absent=claims_record.Range(-0.001, 0.001),
            basis="3 pairs of seeds",
            runs=claims_record.RunCounts(6),
            seeds=(0, 1, 2),
            setup="a large model",
            differs="the size",
            command="python scripts/claims.py",
            date="2026-11-24",
            machine="a machine",
            horizons=tuple(
                claims_record.HorizonVerdict(
                    steps=steps,
                    word=[*claims_record.MEANINGS][(at + order) % len(claims_record.MEANINGS)],
                    reason="",
                    value=None if (at + order) % 5 == 4 else low + 0.01 / (order + 1),
                    low=low,
                    high=low + 0.02,
                    basis="3 pairs of seeds",
                    seeds=(0, 1, 2),
                )
                for order, steps in enumerate((250, 500, 1000, 5000)[at % 2 :])
            ),
        )

    return claims_record.ClaimsRecord("quick", tuple(map(one, range(count))))


def compared(count: int) -> LayerNormVsRmsNorm:
    """LayerNorm and RMSNorm at so many shapes."""
    times = [
        norm_times(way, norm, (1 + at + 0.3 * (norm == "rmsnorm")) * (1 + width % 5), width)
        for width in (64 * (2 + at) for at in range(count))
        for at, way in enumerate(IMPLEMENTATIONS)
        for norm in ("layernorm", "rmsnorm")
        if (way, norm) != ("x.var", "rmsnorm")
    ]
    return norm_comparison(times)


def vanished(count: int) -> Any:
    """Stacks and Transformers of so many norms."""
    names = [norm if norm != "none" else "l1" for norm, _ in arms(count)]
    names = [f"{name}_{at}" if names.index(name) < at else name for at, name in enumerate(names)]
    numbers = gradient_vanishing(("rmsnorm",))
    return replace(
        numbers,
        stacks=(*numbers.stacks[:3], *(stack_profile(norm=name) for name in names)),
        transformers=tuple(
            stream_profile(name, place, 1.02 + 0.02 * at)
            for at, (name, place) in enumerate(arms(count))
        ),
    )


def _cards(count: int, folder: Path) -> None:
    cards = [
        make_example_card(f"{norm} eps=1e-{5 + at % 4}" if at % 4 else norm, time=0.3 + 0.4 * at)
        for at, (norm, _) in enumerate(arms(count))
    ]
    cards = [
        replace(card, name=f"{card.name} p={at}" if at >= len(NORMS) else card.name)
        for at, card in enumerate(cards)
    ]
    card_figure.draw_cards(cards, folder)


def _measured(count: int, folder: Path) -> None:
    for numbers in (vanished(count), compared(count), precision()):
        experiment_report.draw_figure(measurement_record(numbers), folder)


def draw_all_figures(result: StudyResult, folder: Path) -> list[Path]:
    """The files of a study's figures, none of which may fail."""
    left_out: list[str] = []
    files = figures.draw_figures(result, folder, left_out)
    assert not left_out
    return files


def _rates(count: int, folder: Path) -> None:
    of = rated(count)
    rates = analyse_learning_rates(group_runs(of.runs))
    assert rates
    sheet.save_figure(learning_rate_figure(of.name, rates), folder, "learning_rate")


def _story(of: Study, folder: Path) -> None:
    result = analyse_study(of, TRAINED_EXPERIMENTS)
    assert result.experiment
    figure = result.experiment.draw_figure(result)
    sheet.save_figure(figure, folder, result.experiment.name)


def _metric(count: int, folder: Path) -> None:
    for tag in (tags.GRADIENT_NORM, tags.probe_tag(tags.STREAM_RMS, "block_01/attention")):
        sheet.save_figure(figures.metric_figure(study(count), tag), folder, tag)


# By the module that saves them.
FIGURES: dict[str, tuple[Callable[[int, Path], object], ...]] = {
    "analysis/figures.py": (
        lambda count, folder: draw_all_figures(analyse_study(study(count)), folder),
        lambda count, folder: draw_all_figures(analyse_study(faceted(count)), folder),
        _rates,
        lambda count, folder: _story(rated(count, "norm_comparison"), folder),
        lambda count, folder: _story(deepened(count), folder),
        lambda count, folder: _story(rated(count, "block"), folder),
        _metric,
    ),
    "apps/card/figure.py": (_cards,),
    "apps/probe/figure.py": (
        lambda count, folder: probe_figure.draw_probes(probing(count), folder),
    ),
    "apps/claims/figure.py": (
        lambda count, folder: claims_figure.draw_claims(claimed(count), folder),
    ),
    "apps/claims/lengths_figure.py": (
        lambda count, folder: claims_lengths_figure.draw_lengths(claimed(count), folder),
    ),
    "apps/experiments/report.py": (_measured,),
}
# Modules whose figures `figures.draw_figures` saves.
DRAWN_WITH_A_STUDY = ("analysis/probe_figures.py",)


@contextmanager
def captured(monkeypatch: pytest.MonkeyPatch, *, laid_out: bool = True) -> Iterator[Capture]:
    """The figures that are saved inside, by name, laid out as in a file, and not written."""
    found: Capture = {}

    def keep(figure: Figure, folder: Path, name: str) -> list[Path]:
        if laid_out:
            sheet.fix_layout(figure)
        found[name] = figure
        return [folder / f"{name}.png", folder / f"{name}.svg"]

    with monkeypatch.context() as patched, rc_context(RC):
        patched.setattr(sheet, "save_figure", keep)
        yield found
